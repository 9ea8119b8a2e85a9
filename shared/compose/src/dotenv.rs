//! Files of variables: `.env` and what `env_file` names.

use indexmap::IndexMap;

use crate::interpolate::{Fault, Variables};

/// Reads `KEY=value` lines. A key without a value is one that the surroundings may set.
///
/// Values without quotes end at ` #`; single quotes keep everything, double quotes know `\n`, `\t`, `\"`,
/// `\\` and `\$`. In the latter two but not in single quotes `${VAR}` is filled in, from lines above and from
/// `lookup`. With `raw`, everything behind the first `=` is the value.
///
/// # Errors
/// The line and what is wrong with it.
pub(crate) fn parse(
    text: &str,
    raw: bool,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<IndexMap<String, Option<String>>, (usize, String)> {
    let mut values: IndexMap<String, Option<String>> = IndexMap::new();
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let Some((key, value)) = line.split_once('=') else {
            let key = line.trim_end();
            check_key(key).map_err(|why| (number, why))?;
            values.insert(key.to_owned(), lookup(key));
            continue;
        };
        let key = key.trim_end();
        check_key(key).map_err(|why| (number, why))?;
        if raw {
            values.insert(key.to_owned(), Some(value.to_owned()));
            continue;
        }
        let value = value.trim_start();
        let known = |name: &str| values.get(name).cloned().flatten().or_else(|| lookup(name));
        let value = match value.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                // A quoted value may go on over several lines.
                let mut quoted = value.get(1..).unwrap_or_default().to_owned();
                let inside = loop {
                    if let Some(inside) = until(&quoted, quote) {
                        break inside;
                    }
                    let Some((_, more)) = lines.next() else {
                        return Err((number, format!("the quote that {key} begins with is not closed")));
                    };
                    quoted.push('\n');
                    quoted.push_str(more);
                };
                if quote == '\'' {
                    inside
                } else {
                    fill(&unescape(&inside), &known).map_err(|why| (number, why))?
                }
            }
            _ => {
                let value = value.split_once(" #").map_or(value, |(value, _)| value);
                fill(value.trim_end(), &known).map_err(|why| (number, why))?
            }
        };
        values.insert(key.to_owned(), Some(value));
    }
    Ok(values)
}

fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty()
        || key
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control())
    {
        return Err("expected KEY=value".to_owned());
    }
    Ok(())
}

/// What stands in front of the quote that closes, if it is there.
fn until(text: &str, quote: char) -> Option<String> {
    let mut escaped = false;
    for (index, letter) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if letter == '\\' && quote == '"' {
            escaped = true;
        } else if letter == quote {
            return text.get(..index).map(str::to_owned);
        }
    }
    None
}

/// Resolves what a backslash stands for; an escaped `$` becomes `$$`, which the filling turns into one.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(other @ ('"' | '\\')) => out.push(other),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

fn fill(text: &str, known: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    match Variables::new(known).text(text) {
        Ok(filled) => Ok(filled),
        // Passwords have dollars in them that name nothing.
        Err(Fault::Invalid(_)) => Ok(text.to_owned()),
        Err(Fault::Required { variable, why }) => Err(format!("{variable} is not set: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_value() {
        let text = "# a comment\n\nexport A=1\nB = two words  # said\nC='$A \\n'\nD=\"x\\ty ${A} \\$A\"\nE=\"first\nsecond\"\n\
                    F=pa$$word#1\nG=\nH\nI=${A:-no}-${NOT:-yes}\nJ=$(x)\nK\u{3d}a=b\nL=#fff\n";
        let values = parse(text, false, &|name| (name == "H").then(|| "h".to_owned())).unwrap();
        let told: Vec<_> = values
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_deref().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "$A \\n"),
                ("D", "x\ty 1 $A"),
                ("E", "first\nsecond"),
                ("F", "pa$word#1"),
                ("G", ""),
                ("H", "h"),
                ("I", "1-yes"),
                ("J", "$(x)"),
                ("K", "a=b"),
                ("L", "#fff"),
            ]
        );
        assert_eq!(
            parse("A='x # y' z", true, &|_| None).unwrap()["A"].as_deref(),
            Some("'x # y' z")
        );
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(parse("A=1\nB C=2\n", false, &|_| None).unwrap_err().0, 2);
        assert_eq!(parse("A='open\n", false, &|_| None).unwrap_err().0, 1);
        assert!(
            parse("A=${B:?why}\n", false, &|_| None)
                .unwrap_err()
                .1
                .contains("why")
        );
    }
}
