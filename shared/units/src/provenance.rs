//! Where a generated file comes from, written into it: who wants to know whether somebody has changed
//! it since needs no other record.
//!
//! ```text
//! # Written by Nimbus. Change it by running the command below again.     notice
//! # Nimbus-Template: native-systemd-node-service/v1                      fields, covered by the hash
//! # Nimbus-Version: 0.1.0                                                not covered
//! # Nimbus-Provenance-SHA256: sha256:…                                   of the fields' values and the body
//!                                                                        the body begins here
//! [Unit]
//! ```

use serde::Serialize;
use sha2::{Digest, Sha256};
use similar::TextDiff;

/// The field that holds the hash; the header ends with it.
pub const HASH_FIELD: &str = "Nimbus-Provenance-SHA256";
/// The field that the hash leaves out: a new release that writes the same file has not changed it.
pub const VERSION_FIELD: &str = "Nimbus-Version";
const PREFIX: &str = "Nimbus-";

/// What stands on top of a generated file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    notice: Vec<String>,
    fields: Vec<(String, String)>,
    version: Option<String>,
}

/// A field that cannot stand in a comment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}: {value}` cannot stand in the header of a file")]
pub struct HeaderError {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Header {
    /// A header with words for who opens the file; each line becomes a comment.
    #[must_use]
    pub fn new(notice: &str) -> Self {
        Self {
            notice: notice.lines().map(|line| line.trim_end().to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Adds a field that the hash covers, in this order. `name` without `Nimbus-`.
    ///
    /// # Errors
    /// A name that is not letters, digits and dashes, or one of the header's own; a value with a control
    /// character or with space around it.
    pub fn field(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        let whole = format!("{PREFIX}{name}");
        let named = !name.is_empty()
            && name
                .chars()
                .all(|sign| sign.is_ascii_alphanumeric() || sign == '-');
        let own = whole == HASH_FIELD || whole == VERSION_FIELD;
        if !named || own || value.contains(char::is_control) || value.trim() != value {
            return Err(HeaderError {
                name: whole,
                value: value.to_owned(),
            });
        }
        self.fields.push((whole, value.to_owned()));
        Ok(self)
    }

    /// Names the release that writes the file; not covered by the hash.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }

    /// The hash over the fields' values and the body, joined by line feeds.
    #[must_use]
    pub fn hash(&self, body: &str) -> String {
        digest(self.fields.iter().map(|(_, value)| value.as_str()), body)
    }

    /// The whole file. The body follows after an empty line, which is part of what is hashed.
    #[must_use]
    pub fn seal(&self, body: &str) -> String {
        let body = format!("\n{body}");
        let mut text = String::with_capacity(body.len() + 512);
        for line in &self.notice {
            text.push_str(if line.is_empty() { "#" } else { "# " });
            text.push_str(line);
            text.push('\n');
        }
        let version = self
            .version
            .as_ref()
            .map(|version| (VERSION_FIELD, version.as_str()));
        let hash = self.hash(&body);
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fields.chain(version).chain([(HASH_FIELD, hash.as_str())]) {
            text.push_str("# ");
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push('\n');
        }
        text.push_str(&body);
        text
    }
}

fn digest<'a>(values: impl Iterator<Item = &'a str>, body: &str) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(value.as_bytes());
        hash.update(b"\n");
    }
    hash.update(body.as_bytes());
    format!("sha256:{}", hex::encode(hash.finalize()))
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<'a> {
    /// Its fields in their order, with their whole names; the hash is not among them.
    pub fields: Vec<(&'a str, &'a str)>,
    /// Whether the hash is that of the fields and the body.
    pub untouched: bool,
    /// What follows the header.
    pub body: &'a str,
}

impl Read<'_> {
    /// The value of a field, named without `Nimbus-`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(found, _)| found.strip_prefix(PREFIX) == Some(name))
            .map(|(_, value)| *value)
    }
}

/// Reads the header of a file; `None` for a file of somebody else.
#[must_use]
pub fn inspect(text: &str) -> Option<Read<'_>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (line, after) = rest.split_once('\n')?;
        let comment = line.strip_prefix('#')?.trim();
        rest = after;
        let Some((name, value)) = comment
            .split_once(": ")
            .filter(|(name, _)| name.starts_with(PREFIX))
        else {
            continue;
        };
        if name == HASH_FIELD {
            let covered = fields.iter().filter(|(name, _)| *name != VERSION_FIELD);
            let untouched = digest(covered.map(|(_, value)| *value), rest) == value;
            return Some(Read {
                fields,
                untouched,
                body: rest,
            });
        }
        fields.push((name, value));
    }
}

/// How a file stands to what would be written in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There is none.
    Absent,
    /// It is what would be written.
    InSync,
    /// Nimbus wrote it, and would write something else now.
    Outdated,
    /// Nimbus wrote it, and somebody has changed it since.
    Modified,
    /// Somebody else wrote it.
    Foreign,
}

impl State {
    /// In one word, as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::InSync => "in_sync",
            Self::Outdated => "outdated",
            Self::Modified => "modified",
            Self::Foreign => "foreign",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state, and what would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The state.
    pub state: State,
    /// From the file to what would be written, as a unified diff; empty where nothing would change.
    pub diff: String,
}

/// Compares a file with what would be written in its place.
///
/// Only bodies count: the command and the release that a file was written with may differ.
#[must_use]
pub fn compare(found: Option<&str>, wanted: &str) -> Drift {
    let Some(found) = found else {
        return Drift {
            state: State::Absent,
            diff: String::new(),
        };
    };
    let body = |text| inspect(text).map(|read| read.body);
    let state = match inspect(found) {
        None => State::Foreign,
        Some(read) if !read.untouched => State::Modified,
        Some(read) if Some(read.body) == body(wanted) => State::InSync,
        Some(_) => State::Outdated,
    };
    let diff = if state == State::InSync {
        String::new()
    } else {
        TextDiff::from_lines(found, wanted)
            .unified_diff()
            .header("on disk", "as Nimbus writes it")
            .to_string()
    };
    Drift { state, diff }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: &str) -> Header {
        Header::new("Written by a test.\n\nDo not edit.")
            .field("Template", "test/v1")
            .and_then(|header| header.field("Source-Command", command))
            .unwrap()
    }

    #[test]
    fn a_file_tells_where_it_comes_from() {
        let text = header("nimbus x").version("1.2.3").seal("[Unit]\n");
        let hash = header("nimbus x").hash("\n[Unit]\n");
        assert_eq!(
            text,
            format!(
                "# Written by a test.\n#\n# Do not edit.\n# Nimbus-Template: test/v1\n# Nimbus-Source-Command: nimbus x\n\
                 # Nimbus-Version: 1.2.3\n# Nimbus-Provenance-SHA256: {hash}\n\n[Unit]\n"
            )
        );
        // The rule in other words: template, command and body, joined by line feeds.
        assert_eq!(
            hash,
            format!(
                "sha256:{}",
                hex::encode(Sha256::digest(b"test/v1\nnimbus x\n\n[Unit]\n"))
            )
        );
        let read = inspect(&text).unwrap();
        assert!(read.untouched);
        assert_eq!(read.body, "\n[Unit]\n");
        assert_eq!(
            (read.field("Template"), read.field("Version"), read.field("None")),
            (Some("test/v1"), Some("1.2.3"), None)
        );
    }

    #[test]
    fn every_change_is_noticed_and_shown() {
        let wanted = header("nimbus x").version("1").seal("[Unit]\nA=1\n");
        let state = |found: &str| compare(Some(found), &wanted).state;
        assert_eq!(compare(None, &wanted).state, State::Absent);
        assert_eq!(state(&wanted), State::InSync);
        assert_eq!(
            state(&header("nimbus x").version("2").seal("[Unit]\nA=1\n")),
            State::InSync
        );
        assert_eq!(state(&header("nimbus y").seal("[Unit]\nA=1\n")), State::InSync);
        let older = header("nimbus x").seal("[Unit]\nA=0\n");
        let drift = compare(Some(&older), &wanted);
        assert_eq!(drift.state, State::Outdated);
        assert!(drift.diff.contains("-A=0\n+A=1\n"), "{}", drift.diff);
        assert_eq!(state(&wanted.replace("A=1", "A=2")), State::Modified);
        assert_eq!(state(&wanted.replace("nimbus x", "nimbus z")), State::Modified);
        assert_eq!(state(&format!("{wanted}B=1\n")), State::Modified);
        for foreign in ["", "[Unit]\n", "# Nimbus-Template: test/v1\n[Unit]\n", "#"] {
            assert_eq!(state(foreign), State::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn fields_cannot_forge_a_header() {
        for (name, value) in [
            ("Provenance-SHA256", "x"),
            ("Version", "x"),
            ("A B", "x"),
            ("", "x"),
            ("A", "x\ny"),
            ("A", " x"),
        ] {
            assert!(Header::new("").field(name, value).is_err(), "{name} {value}");
        }
    }
}
