//! A unit while it is written: every directive is looked up, every value written as it will be read.

use nimbus_units::{Header, Syntax, UnitFile, quote};

use super::directive::{self, Kind, Section, Version};
use super::{ExportError, Plan};
use crate::notice::{Notice, Origin};

/// Where a directive comes from.
#[derive(Clone, Debug)]
pub(super) struct From {
    pub(super) at: Origin,
    pub(super) key: String,
}

/// A unit that is being written.
pub(super) struct Writer<'a> {
    target: Option<Version>,
    notices: &'a mut Vec<Notice>,
    /// In the order of the table's sections.
    lines: Vec<(Section, &'static str, String)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(target: Option<Version>, notices: &'a mut Vec<Notice>) -> Self {
        Self {
            target,
            notices,
            lines: Vec::new(),
        }
    }

    /// Whether the Podman that is meant has this directive.
    pub(super) fn knows(&self, section: Section, key: &str) -> bool {
        directive::find(section, key)
            .is_some_and(|row| self.target.is_none_or(|target| target.has(row.since)))
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// Something is lost.
    pub(super) fn warn(&mut self, from: &From, what: impl Into<String>, advice: impl Into<String>) {
        self.notices
            .push(Notice::warning(&from.at, &from.key, what, advice));
    }

    /// Writes one value.
    pub(super) fn put(
        &mut self,
        section: Section,
        key: &'static str,
        value: &str,
        from: &From,
    ) -> Result<(), ExportError> {
        self.put_words(section, key, &[value], from)
    }

    /// Writes several words of one value.
    pub(super) fn put_words(
        &mut self,
        section: Section,
        key: &'static str,
        words: &[&str],
        from: &From,
    ) -> Result<(), ExportError> {
        let wrong = |why: &str| ExportError::Value {
            at: from.at.clone(),
            key: from.key.clone(),
            directive: key,
            why: why.to_owned(),
        };
        let row = directive::find(section, key).ok_or_else(|| wrong("is not in the table of directives"))?;
        if let Some(target) = self.target
            && !target.has(row.since)
        {
            self.warn(
                from,
                format!("is not exported: {key}= is known since Podman {}", row.since),
                format!("use Podman {} instead of {target}, or do without", row.since),
            );
            return Ok(());
        }
        let value = match row.kind {
            Kind::Words => {
                let words: Result<Vec<String>, _> =
                    words.iter().map(|word| quote(word, Syntax::Command)).collect();
                words.map_err(|error| wrong(&error.to_string()))?.join(" ")
            }
            Kind::Line => {
                let line = words.join(" ");
                // What podlet and people write by hand gets this wrong: the line ends up in ExecStart=.
                line.replace('%', "%%").replace('$', "$$")
            }
            Kind::Manager => words.join(" ").replace('%', "%%"),
            Kind::Exact => words.join(" "),
        };
        if value.is_empty() {
            return Err(wrong("would be empty, which means something else"));
        }
        if value.chars().any(char::is_control) {
            return Err(wrong("holds a line break or another control character"));
        }
        if value.trim() != value || value.ends_with('\\') {
            return Err(wrong("begins or ends in a way that is not kept"));
        }
        self.lines.push((section, key, value));
        Ok(())
    }

    /// The whole file.
    pub(super) fn seal(self, header: &Header) -> Result<String, ExportError> {
        let mut file = UnitFile::new();
        let broken = |error: nimbus_units::UnitError| ExportError::Unit(error.to_string());
        let order = [
            Section::Unit,
            Section::Container,
            Section::Pod,
            Section::Kube,
            Section::Volume,
            Section::Network,
            Section::Service,
            Section::Install,
        ];
        for wanted in order {
            for (section, key, value) in &self.lines {
                if *section == wanted {
                    let section = file.section(section.name()).map_err(broken)?;
                    section.set(key, value).map_err(broken)?;
                }
            }
        }
        Ok(header.seal(&file.to_string()))
    }
}

/// What stands on top of a file.
pub(super) fn header(plan: &Plan<'_>, kind: &str, service: &str) -> Result<Header, ExportError> {
    let target = plan
        .options
        .podman
        .map_or_else(|| "unspecified".to_owned(), |version| version.to_string());
    Header::new(
        "Written by `nimbus compose export quadlet`.\nChange the Compose file and export again instead of editing this one.",
    )
    .field("Template", &format!("compose-quadlet-{kind}/v1"))
    .and_then(|header| header.field("Source-Compose", &plan.sources()))
    .and_then(|header| header.field("Project", &plan.project.name))
    .and_then(|header| header.field("Service", service))
    .and_then(|header| header.field("Mode", plan.options.mode.name()))
    .and_then(|header| header.field("Podman-Version", &target))
    .map_err(|error| ExportError::Unit(error.to_string()))
}
