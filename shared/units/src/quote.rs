//! Words in values, as systemd.syntax(7) and systemd.service(5) read them.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use crate::error::QuoteError;

/// What the service manager does with a value besides splitting it into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// A command line: specifiers (`%h`) and variables (`$HOME`) are replaced. `ExecStart=`, and what
    /// ends up in one: `Exec=`, `Entrypoint=`, `HealthCmd=`.
    Command,
    /// A list of assignments: specifiers are replaced. `Environment=`, `Label=`.
    Assignment,
}

/// Writes one word so that it is read as it is, whatever it holds.
///
/// # Errors
/// A NUL, which no word can hold.
pub fn quote(word: &str, syntax: Syntax) -> Result<String, QuoteError> {
    if word.contains('\0') {
        return Err(QuoteError::Nul);
    }
    let plain = |sign: char| sign.is_ascii_alphanumeric() || "@%_+=:,./-$~^".contains(sign);
    let bare = !word.is_empty() && word.chars().all(plain);
    let mut text = String::with_capacity(word.len() + 2);
    if !bare {
        text.push('"');
    }
    for sign in word.chars() {
        match sign {
            '%' => text.push_str("%%"),
            '$' if syntax == Syntax::Command => text.push_str("$$"),
            '"' | '\\' => text.extend(['\\', sign]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            sign if sign.is_ascii_control() => {
                let _ = write!(text, "\\x{:02x}", u32::from(sign));
            }
            // Unicode's own control characters, which a value may not hold either.
            sign if sign.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(sign));
            }
            sign => text.push(sign),
        }
    }
    if !bare {
        text.push('"');
    }
    Ok(text)
}

/// Writes a command: the program, and its arguments as they are.
///
/// # Errors
/// No words; a program that is not named by its whole path, for a first word may begin with signs that
/// change how it is run, and no quoting prevents that; a NUL.
pub fn exec_line<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<String, QuoteError> {
    let mut line = String::new();
    for word in words {
        let word = word.as_ref();
        if line.is_empty() {
            if !word.starts_with('/') {
                return Err(QuoteError::Program {
                    program: word.to_owned(),
                });
            }
        } else {
            line.push(' ');
        }
        line.push_str(&quote(word, Syntax::Command)?);
    }
    if line.is_empty() {
        return Err(QuoteError::Empty);
    }
    Ok(line)
}

/// A value that is not split into words, such as a description: only specifiers mean something in it.
#[must_use]
pub fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// Reads the words of a value.
///
/// # Errors
/// What the service manager would refuse, and what it would replace: a specifier, a variable.
pub fn unquote(value: &str, syntax: Syntax) -> Result<Vec<String>, QuoteError> {
    let mut words = Vec::new();
    let mut signs = value.chars().peekable();
    loop {
        while signs.next_if(|sign| sign.is_whitespace()).is_some() {}
        if signs.peek().is_none() {
            return Ok(words);
        }
        words.push(word(&mut signs, syntax)?);
    }
}

fn word(signs: &mut Peekable<Chars<'_>>, syntax: Syntax) -> Result<String, QuoteError> {
    let mut text = String::new();
    let mut open = None;
    while let Some(sign) = signs.next() {
        match (sign, open) {
            (sign, Some(quote)) if sign == quote => {
                open = None;
                // `"a"b` is one word for a shell and an error for systemd in strict mode.
                if signs.peek().is_some_and(|next| !next.is_whitespace()) {
                    return Err(QuoteError::Glued);
                }
            }
            ('"' | '\'', None) => open = Some(sign),
            (sign, None) if sign.is_whitespace() => return Ok(text),
            ('\\', _) => text.push(escape(signs)?),
            ('%', _) => {
                if signs.next_if_eq(&'%').is_none() {
                    return Err(expanded('%', signs));
                }
                text.push('%');
            }
            ('$', _) if syntax == Syntax::Command => {
                if signs.next_if_eq(&'$').is_none() {
                    return Err(expanded('$', signs));
                }
                text.push('$');
            }
            (sign, _) => text.push(sign),
        }
    }
    if open.is_some() {
        return Err(QuoteError::Unclosed);
    }
    Ok(text)
}

fn expanded(sign: char, signs: &mut Peekable<Chars<'_>>) -> QuoteError {
    let mut text = sign.to_string();
    text.extend(signs.take_while(|next| next.is_alphanumeric() || "{_".contains(*next)));
    QuoteError::Expanded { text }
}

fn escape(signs: &mut Peekable<Chars<'_>>) -> Result<char, QuoteError> {
    let Some(sign) = signs.next() else {
        return Err(QuoteError::Escape {
            escape: String::new(),
        });
    };
    let (digits, radix, mut escape) = match sign {
        'a' => return Ok('\u{7}'),
        'b' => return Ok('\u{8}'),
        'f' => return Ok('\u{c}'),
        'n' => return Ok('\n'),
        'r' => return Ok('\r'),
        't' => return Ok('\t'),
        'v' => return Ok('\u{b}'),
        's' => return Ok(' '),
        '\\' | '"' | '\'' => return Ok(sign),
        'x' => (2, 16, String::new()),
        'u' => (4, 16, String::new()),
        'U' => (8, 16, String::new()),
        '0'..='7' => (2, 8, sign.to_string()),
        _ => {
            return Err(QuoteError::Escape {
                escape: sign.to_string(),
            });
        }
    };
    for _ in 0..digits {
        escape.extend(signs.next_if(|digit| digit.is_digit(radix)));
    }
    let wanted = digits + usize::from(radix == 8);
    u32::from_str_radix(&escape, radix)
        .ok()
        .filter(|code| *code != 0 && escape.len() == wanted)
        // One escaped byte above 127 is part of a character, which has to be written as a whole.
        .filter(|code| matches!(sign, 'u' | 'U') || *code < 0x80)
        .and_then(char::from_u32)
        .ok_or(QuoteError::Escape {
            escape: if radix == 8 {
                escape
            } else {
                format!("{sign}{escape}")
            },
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::UnitFile;

    #[test]
    fn words_are_quoted_only_where_it_matters() {
        let quoted = |word| quote(word, Syntax::Command).unwrap();
        assert_eq!(quoted("--port"), "--port");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("100%"), "100%%");
        assert_eq!(quoted("$HOME"), "$$HOME");
        assert_eq!(quote("A=$HOME", Syntax::Assignment).unwrap(), "A=$HOME");
        assert_eq!(quoted(";"), "\";\"");
        assert_eq!(quoted("say \"hi\"\\\n"), "\"say \\\"hi\\\"\\\\\\n\"");
        assert_eq!(quoted("\u{1}"), "\"\\x01\"");
        assert_eq!(quote("a\0", Syntax::Command), Err(QuoteError::Nul));
        assert_eq!(literal("100 % sure"), "100 %% sure");
    }

    #[test]
    fn commands_begin_with_a_path() {
        assert_eq!(
            exec_line(["/bin/sh", "-c", "echo $x"]).unwrap(),
            "/bin/sh -c \"echo $$x\""
        );
        for program in ["sh", "-/bin/sh", "+/bin/sh", "!/bin/sh", "@/bin/sh", ""] {
            assert!(exec_line([program]).is_err(), "{program}");
        }
        assert_eq!(exec_line::<&str>([]), Err(QuoteError::Empty));
    }

    #[test]
    fn others_quoting_is_read_too() {
        let words = |text| unquote(text, Syntax::Command);
        assert_eq!(
            words(r#" /bin/a 'b c'  "d\x41\101\u00e9" \s "#).unwrap(),
            ["/bin/a", "b c", "dAAé", " "]
        );
        assert_eq!(words("a\"b c\"").unwrap(), ["ab c"]);
        assert_eq!(words("").unwrap(), Vec::<String>::new());
        assert_eq!(words("'a"), Err(QuoteError::Unclosed));
        assert_eq!(words("'a'b"), Err(QuoteError::Glued));
        for wrong in ["\\q", "\\x4", "\\x00", "\\xff", "a\\"] {
            assert!(matches!(words(wrong), Err(QuoteError::Escape { .. })), "{wrong}");
        }
        assert_eq!(
            words("%h/x"),
            Err(QuoteError::Expanded {
                text: "%h".to_owned()
            })
        );
        assert_eq!(
            words("${HOME}"),
            Err(QuoteError::Expanded {
                text: "${HOME".to_owned()
            })
        );
        assert_eq!(unquote("A=$HOME", Syntax::Assignment).unwrap(), ["A=$HOME"]);
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(words in proptest::collection::vec("(\\PC|[\\x01-\\x7f]|[%$\"'\\\\ ;]){0,12}", 0..5)) {
            for syntax in [Syntax::Command, Syntax::Assignment] {
                let line: Vec<String> = words.iter().map(|word| quote(word, syntax).unwrap()).collect();
                prop_assert_eq!(&unquote(&line.join(" "), syntax).unwrap(), &words);
                // And every line can stand in a file.
                let mut file = UnitFile::new();
                file.section("Service").unwrap().set("Value", line.join(" ")).unwrap();
                let again = UnitFile::parse(&file.to_string()).unwrap();
                prop_assert_eq!(unquote(again.value("Service", "Value").unwrap(), syntax).unwrap(), words.clone());
            }
        }

        #[test]
        fn any_value_is_read_or_refused(text in "(\\PC|[%$\"'\\\\ ;]){0,40}") {
            let _ = unquote(&text, Syntax::Command);
        }
    }
}
