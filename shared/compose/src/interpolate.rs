//! `$VAR`, `${VAR:-default}` and their relatives, as the Compose specification has them.

use crate::error::ComposeError;
use crate::notice::Origin;
use crate::yaml::{Node, Value};

/// Deepest nesting of defaults within defaults.
const DEEPEST: usize = 32;

/// Where variables come from, and which were asked for in vain.
pub(crate) struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Names that were not set where nothing else was said.
    missing: Vec<String>,
    /// The same with the key that asked.
    pub(crate) blanks: Vec<Blank>,
}

/// A variable that was not set, so that nothing stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blank {
    pub(crate) variable: String,
    pub(crate) at: Origin,
    pub(crate) key: String,
}

/// Why a text cannot be filled in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `$` in front of something that is no variable.
    Invalid(String),
    /// `${VAR:?why}` of a variable that is not set.
    Required { variable: String, why: String },
}

impl<'a> Variables<'a> {
    pub(crate) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            missing: Vec::new(),
            blanks: Vec::new(),
        }
    }

    /// Fills in all values of a tree; keys stay as they are.
    pub(crate) fn fill(&mut self, node: &mut Node, key: &str) -> Result<(), ComposeError> {
        match &mut node.value {
            Value::Null => {}
            Value::Scalar(scalar) => {
                if scalar.text.contains('$') {
                    let filled = self.text(&scalar.text).map_err(|fault| match fault {
                        Fault::Invalid(why) => ComposeError::invalid(&node.at, key, why),
                        Fault::Required { variable, why } => ComposeError::Required {
                            at: node.at.clone(),
                            key: key.to_owned(),
                            variable,
                            why,
                        },
                    })?;
                    scalar.text = filled;
                    self.blanks.extend(self.missing.drain(..).map(|variable| Blank {
                        variable,
                        at: node.at.clone(),
                        key: key.to_owned(),
                    }));
                    if scalar.plain && scalar.text.is_empty() {
                        // An empty text, not nothing: that is what the variable held.
                        scalar.plain = false;
                    }
                }
            }
            Value::Seq(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.fill(item, &format!("{key}.{index}"))?;
                }
            }
            Value::Map(map) => {
                for (name, value) in map.iter_mut() {
                    let inner = if key.is_empty() {
                        name.clone()
                    } else {
                        format!("{key}.{name}")
                    };
                    self.fill(value, &inner)?;
                }
            }
        }
        Ok(())
    }

    /// Fills in one text.
    pub(crate) fn text(&mut self, text: &str) -> Result<String, Fault> {
        self.nested(text, 0)
    }

    fn nested(&mut self, text: &str, depth: usize) -> Result<String, Fault> {
        if depth > DEEPEST {
            return Err(Fault::Invalid("its defaults are nested too deeply".to_owned()));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(after) = after.strip_prefix('{') {
                let end = closing(after).ok_or_else(|| {
                    Fault::Invalid(format!(
                        "`${{{after}` has no closing brace; a plain $ is written $$"
                    ))
                })?;
                let (inside, beyond) = after.split_at(end);
                out.push_str(&self.braced(inside, depth)?);
                rest = beyond.strip_prefix('}').unwrap_or(beyond);
            } else {
                let end = name_end(after);
                if end == 0 {
                    let shown: String = after.chars().take(12).collect();
                    return Err(Fault::Invalid(format!(
                        "`${shown}` names no variable; a plain $ is written $$"
                    )));
                }
                let (name, beyond) = after.split_at(end);
                out.push_str(&self.plain(name));
                rest = beyond;
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn plain(&mut self, name: &str) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            self.missing.push(name.to_owned());
            String::new()
        })
    }

    fn braced(&mut self, inside: &str, depth: usize) -> Result<String, Fault> {
        let end = name_end(inside);
        let (name, rule) = inside.split_at(end);
        if name.is_empty() {
            return Err(Fault::Invalid(format!(
                "`${{{inside}}}` names no variable; a plain $ is written $$"
            )));
        }
        if rule.is_empty() {
            return Ok(self.plain(name));
        }
        let value = (self.lookup)(name);
        let filled = value.clone().filter(|value| !value.is_empty());
        let (set, operator, word) = if let Some(rest) = rule.strip_prefix(':') {
            let mut letters = rest.chars();
            (filled, letters.next(), letters.as_str())
        } else {
            let mut letters = rule.chars();
            (value, letters.next(), letters.as_str())
        };
        match operator {
            Some('-') => match set {
                Some(value) => Ok(value),
                None => self.nested(word, depth + 1),
            },
            Some('+') => match set {
                Some(_) => self.nested(word, depth + 1),
                None => Ok(String::new()),
            },
            Some('?') => match set {
                Some(value) => Ok(value),
                None => Err(Fault::Required {
                    variable: name.to_owned(),
                    why: match self.nested(word, depth + 1)? {
                        why if why.is_empty() => "the file asks for it".to_owned(),
                        why => why,
                    },
                }),
            },
            _ => Err(Fault::Invalid(format!(
                "`${{{inside}}}` is not understood; write ${{{name}}}, ${{{name}:-default}}, ${{{name}:?why}} or ${{{name}:+other}}"
            ))),
        }
    }
}

/// Where the name of a variable ends.
fn name_end(text: &str) -> usize {
    let is_part = |(index, letter): (usize, char)| {
        letter == '_' || letter.is_ascii_alphabetic() || (index > 0 && letter.is_ascii_digit())
    };
    text.char_indices()
        .find(|found| !is_part(*found))
        .map_or(text.len(), |(index, _)| index)
}

/// Where the brace is that closes what was opened in front of the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut before = None;
    for (index, letter) in text.char_indices() {
        match letter {
            '{' if before == Some('$') => depth += 1,
            '}' if depth == 0 => return Some(index),
            '}' => depth -= 1,
            _ => {}
        }
        before = Some(letter);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
            "EMPTY" => Some(String::new()),
            "N_1" => Some("n".into()),
            _ => None,
        }
    }

    #[test]
    fn every_form() {
        let mut variables = Variables::new(&lookup);
        for (text, expected) in [
            ("$A-$N_1.$$A", "a-n.$A"),
            ("${A}${EMPTY}", "a"),
            ("${X:-d} ${X-d} ${EMPTY:-d} ${EMPTY-d}", "d d d "),
            ("${A:+x}${EMPTY:+x}${EMPTY+y}${X+z}", "xy"),
            ("${X:-${Y:-${A}}}", "a"),
            ("${A:?no} ${EMPTY?no}", "a "),
            ("${X:-a:b?c}", "a:b?c"),
            ("${X:-{}}", "{}"),
            ("${X}", ""),
            ("ü$A", "üa"),
        ] {
            assert_eq!(variables.text(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(variables.missing, ["X"]);
    }

    #[test]
    fn what_is_refused() {
        let mut variables = Variables::new(&lookup);
        for text in [
            "$", "$(date)", "${A", "${}", "${1}", "$1", "${A!x}", "${A:x}", "${A:}",
        ] {
            assert!(matches!(variables.text(text), Err(Fault::Invalid(_))), "{text}");
        }
        for text in ["${X:?set it}", "${EMPTY:?set it}", "${X?set it}"] {
            let Err(Fault::Required { why, .. }) = variables.text(text) else {
                panic!("{text}")
            };
            assert_eq!(why, "set it");
        }
    }

    proptest! {
        #[test]
        fn an_escaped_text_comes_back(text in any::<String>()) {
            let mut variables = Variables::new(&lookup);
            prop_assert_eq!(variables.text(&text.replace('$', "$$")), Ok(text));
        }

        #[test]
        fn any_text_has_an_answer(text in "[$A{}:?+-]{0,24}") {
            let _ = Variables::new(&lookup).text(&text);
        }
    }
}
