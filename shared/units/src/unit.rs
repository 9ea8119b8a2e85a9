//! The text of a unit file, kept in its order.

use std::fmt;

use crate::error::UnitError;

/// A unit file: comments, then sections. Keys and sections may repeat, and their order is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFile {
    head: Vec<Line>,
    sections: Vec<Section>,
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    name: String,
    lines: Vec<Line>,
}

/// One line, continuation lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing.
    Blank,
    /// A comment, without its sign.
    Comment(String),
    /// A setting.
    Setting {
        /// Its name.
        key: String,
        /// Its value as it stands in the file, quotes and all.
        value: String,
    },
}

impl UnitFile {
    /// A file without sections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a comment before the first section; each of its lines becomes one.
    pub fn comment(&mut self, text: &str) -> &mut Self {
        push_comment(&mut self.head, text);
        self
    }

    /// The section of this name, added at the end if there is none.
    ///
    /// # Errors
    /// A name with brackets or control characters, or none at all.
    pub fn section(&mut self, name: &str) -> Result<&mut Section, UnitError> {
        if name.trim().is_empty() || name.contains(['[', ']']) || name.contains(char::is_control) {
            return Err(UnitError::Section {
                name: name.to_owned(),
            });
        }
        let at = self.sections.iter().position(|section| section.name == name);
        let at = at.unwrap_or_else(|| {
            self.sections.push(Section {
                name: name.to_owned(),
                lines: Vec::new(),
            });
            self.sections.len() - 1
        });
        self.sections.get_mut(at).ok_or_else(|| UnitError::Section {
            name: name.to_owned(),
        })
    }

    /// The sections in their order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Every value of a setting, sections of one name taken together. An empty assignment is among them.
    pub fn values<'a, 'b>(
        &'a self,
        section: &'b str,
        key: &'b str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'b> {
        self.sections
            .iter()
            .filter(move |found| found.name == section)
            .flat_map(Section::settings)
            .filter(move |(found, _)| *found == key)
            .map(|(_, value)| value)
    }

    /// The last value of a setting, which is the one that counts where there can be one.
    #[must_use]
    pub fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.values(section, key).last()
    }

    /// Reads a text.
    ///
    /// # Errors
    /// A line that is neither section, setting nor comment, with its number.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let mut file = Self::new();
        let mut lines = text.lines().enumerate();
        while let Some((at, raw)) = lines.next() {
            let line = at + 1;
            let trimmed = raw.trim();
            let parsed = if trimmed.is_empty() {
                Line::Blank
            } else if let Some(comment) = trimmed.strip_prefix(['#', ';']) {
                Line::Comment(comment.to_owned())
            } else if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                if name.is_empty() || name.contains(['[', ']']) {
                    return Err(UnitError::Section {
                        name: name.to_owned(),
                    });
                }
                // A section that comes again stays apart, so that the text stays the same.
                file.sections.push(Section {
                    name: name.to_owned(),
                    lines: Vec::new(),
                });
                continue;
            } else {
                let whole = continued(trimmed, &mut lines);
                let Some((key, value)) = whole.split_once('=') else {
                    return Err(UnitError::Syntax { line, text: whole });
                };
                if file.sections.is_empty() {
                    return Err(UnitError::NoSection { line });
                }
                let (key, value) = (key.trim(), value.trim());
                check(key, value)?;
                Line::Setting {
                    key: key.to_owned(),
                    value: value.to_owned(),
                }
            };
            match file.sections.last_mut() {
                Some(section) => section.lines.push(parsed),
                None => file.head.push(parsed),
            }
        }
        Ok(file)
    }
}

/// Joins what backslashes at the ends of lines tear apart; comments in between do not count.
fn continued<'a>(first: &'a str, lines: &mut impl Iterator<Item = (usize, &'a str)>) -> String {
    let mut whole = String::new();
    let mut part = first;
    while let Some(kept) = part.strip_suffix('\\') {
        whole.push_str(kept);
        whole.push(' ');
        let next = lines.find(|(_, raw)| !raw.trim_start().starts_with(['#', ';']));
        let Some((_, raw)) = next else { return whole };
        part = raw.trim();
    }
    whole.push_str(part);
    whole
}

impl Section {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a setting at the end. The value is written as it is: quote words before.
    ///
    /// # Errors
    /// A key that no setting has; a value with a line break or another control character, with space
    /// around it, or with a backslash at its end, all of which would be read as something else.
    pub fn set(&mut self, key: &str, value: impl AsRef<str>) -> Result<&mut Self, UnitError> {
        let value = value.as_ref();
        check(key, value)?;
        self.lines.push(Line::Setting {
            key: key.to_owned(),
            value: value.to_owned(),
        });
        Ok(self)
    }

    /// Adds a comment; each of its lines becomes one.
    pub fn comment(&mut self, text: &str) -> &mut Self {
        push_comment(&mut self.lines, text);
        self
    }

    /// Its lines in their order.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Its settings in their order.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| match line {
            Line::Setting { key, value } => Some((key.as_str(), value.as_str())),
            Line::Blank | Line::Comment(_) => None,
        })
    }
}

fn push_comment(lines: &mut Vec<Line>, text: &str) {
    for line in text.lines() {
        let line = line.trim_end();
        lines.push(Line::Comment(if line.is_empty() {
            String::new()
        } else {
            format!(" {line}")
        }));
    }
}

fn check(key: &str, value: &str) -> Result<(), UnitError> {
    let named = !key.is_empty()
        && key
            .chars()
            .all(|sign| sign.is_ascii_alphanumeric() || sign == '-');
    if !named {
        return Err(UnitError::Key { key: key.to_owned() });
    }
    let wrong = |reason| {
        Err(UnitError::Value {
            key: key.to_owned(),
            reason,
        })
    };
    if value.contains(|sign: char| sign.is_control() && sign != '\t') {
        return wrong("holds a control character");
    }
    if value.trim() != value {
        return wrong("has space around it, which is not kept");
    }
    if value.ends_with('\\') {
        return wrong("ends in a backslash, which continues the line");
    }
    Ok(())
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => Ok(()),
            Self::Comment(text) => write!(f, "#{text}"),
            Self::Setting { key, value } => write!(f, "{key}={value}"),
        }
    }
}

impl fmt::Display for UnitFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.head {
            writeln!(f, "{line}")?;
        }
        let mut parted = self.head.last().is_none_or(|line| *line == Line::Blank);
        for section in &self.sections {
            if !parted {
                writeln!(f)?;
            }
            writeln!(f, "[{}]", section.name)?;
            for line in &section.lines {
                writeln!(f, "{line}")?;
            }
            parted = section.lines.last() == Some(&Line::Blank);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_written_in_the_order_in_which_it_was_made() {
        let mut file = UnitFile::new();
        file.comment("made by a test\n\nof two parts");
        file.section("Unit")
            .unwrap()
            .set("Description", "A test")
            .unwrap();
        let service = file.section("Service").unwrap();
        service.set("Environment", "A=1").unwrap();
        service.comment("again").set("Environment", "B=2").unwrap();
        file.section("Unit").unwrap().set("After", "x.target").unwrap();
        assert_eq!(
            file.to_string(),
            "# made by a test\n#\n# of two parts\n\n[Unit]\nDescription=A test\nAfter=x.target\n\n\
             [Service]\nEnvironment=A=1\n# again\nEnvironment=B=2\n"
        );
        assert_eq!(
            UnitFile::parse(&file.to_string())
                .unwrap()
                .values("Service", "Environment")
                .collect::<Vec<_>>(),
            ["A=1", "B=2"]
        );
        assert_eq!(file.value("Service", "Environment"), Some("B=2"));
        assert_eq!(file.value("Service", "Nothing"), None);
    }

    #[test]
    fn what_others_write_is_read_as_systemd_reads_it() {
        let text = "; old style\n[Unit]\nDescription = spaced \n\n[Service]\nExecStart=/bin/a \\\n# not part of it\n  --b \\\n  --c\nEnvironment=\n[Unit]\nAfter=x\n";
        let file = UnitFile::parse(text).unwrap();
        assert_eq!(file.value("Unit", "Description"), Some("spaced"));
        assert_eq!(file.value("Unit", "After"), Some("x"));
        assert_eq!(file.value("Service", "ExecStart"), Some("/bin/a  --b  --c"));
        assert_eq!(file.value("Service", "Environment"), Some(""));
    }

    #[test]
    fn what_would_be_read_otherwise_is_refused() {
        let mut file = UnitFile::new();
        for name in ["", " ", "a]", "a\nb"] {
            assert!(file.section(name).is_err(), "{name:?}");
        }
        let section = file.section("Service").unwrap();
        for (key, value) in [
            ("", "x"),
            ("A B", "x"),
            ("A=", "x"),
            ("A", "x\ny"),
            ("A", " x"),
            ("A", "x\\"),
            ("A", "x\0"),
        ] {
            assert!(section.set(key, value).is_err(), "{key:?} {value:?}");
        }
        assert!(section.lines().is_empty());
        assert_eq!(UnitFile::parse("A=1\n"), Err(UnitError::NoSection { line: 1 }));
        assert!(matches!(
            UnitFile::parse("[Unit]\n\nnonsense\n"),
            Err(UnitError::Syntax { line: 3, .. })
        ));
        assert!(UnitFile::parse("[]\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|\\n|\\\\|=|\\[|\\]|#){0,80}") {
            if let Ok(file) = UnitFile::parse(&text) {
                let again = UnitFile::parse(&file.to_string()).unwrap();
                let plain = |file: &UnitFile| -> Vec<(String, String, String)> {
                    file.sections().iter().flat_map(|section| section.settings().map(|(key, value)| {
                        (section.name().to_owned(), key.to_owned(), value.to_owned())
                    })).collect()
                };
                prop_assert_eq!(plain(&file), plain(&again));
            }
        }
    }
}
