//! Files inside sandboxes.

use nimbus_guest::protocol::{Entry, EntryKind};
use nimbus_model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::at;
use crate::envelope::{Answer, ApiError};
use crate::views::At;

/// What stands in a directory.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct EntryView {
    /// Its last component.
    pub name: String,
    /// Where it is, absolute.
    pub path: String,
    /// `file`, `dir`, `symlink` or `other`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Bytes.
    pub size: u64,
    /// Permission bits, in octal.
    #[schema(examples("0644"))]
    pub mode: String,
    /// When its content changed last.
    pub mtime: At,
    /// Changes with its content.
    pub etag: String,
}

impl EntryView {
    /// An entry that stands at `path`.
    pub(crate) fn at(path: &str, entry: Entry) -> Self {
        let kind = match entry.kind {
            EntryKind::File => "file",
            EntryKind::Dir => "dir",
            EntryKind::Symlink => "symlink",
            EntryKind::Other => "other",
        };
        Self {
            path: path.to_owned(),
            kind,
            size: entry.size,
            mode: format!("{:04o}", entry.mode & 0o7777),
            mtime: at(Timestamp::from_micros(entry.mtime_ns.div_euclid(1000))),
            etag: entry.etag,
            name: entry.name,
        }
    }

    /// An entry of the directory `dir`.
    pub(crate) fn under(dir: &str, entry: Entry) -> Self {
        let path = format!("{}/{}", dir.trim_end_matches('/'), entry.name);
        Self::at(&path, entry)
    }
}

/// One page of a directory.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EntriesView {
    /// Entries, by name.
    pub entries: Vec<EntryView>,
    /// What to give as `pageToken` for the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A place inside a sandbox.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PathQuery {
    /// Absolute, as the sandbox sees it.
    pub path: String,
}

/// Which entries of a directory.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EntriesQuery {
    /// Absolute, as the sandbox sees it.
    pub path: String,
    /// At most this many: 1 to 1000, 1000 when it is left out.
    pub limit: Option<i64>,
    /// `nextPageToken` of the page before.
    pub page_token: Option<String>,
}

/// How a file is written.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WriteQuery {
    /// Absolute, as the sandbox sees it.
    pub path: String,
    /// Permission bits in octal; those of the file that is replaced, or 0644, when it is left out.
    pub mode: Option<String>,
    /// `1`: missing directories above it are made.
    pub create_parents: Option<String>,
}

/// How something is removed.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveQuery {
    /// Absolute, as the sandbox sees it.
    pub path: String,
    /// `1`: a directory goes with its content.
    pub recursive: Option<String>,
}

/// A directory to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MkdirBody {
    /// Absolute, as the sandbox sees it.
    pub path: String,
    /// Permission bits: octal text, or a number; 0755 when it is left out.
    #[schema(value_type = Option<String>, examples("0755"))]
    pub mode: Option<ModeBody>,
    /// Whether missing directories above it are made, and one that is there already is fine.
    #[serde(default)]
    pub create_parents: bool,
}

/// Permission bits.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum ModeBody {
    Number(u32),
    Text(String),
}

/// Something to be moved.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveBody {
    /// Absolute, as the sandbox sees it.
    pub from: String,
    /// Absolute, as the sandbox sees it.
    pub to: String,
    /// Whether what is there may be replaced.
    #[serde(default)]
    pub replace: bool,
}

/// Permission bits of octal text.
pub(crate) fn mode_of(text: &str) -> Answer<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| ApiError::field("mode", "mode: expected permission bits in octal, such as 0644"))
}

impl ModeBody {
    pub(crate) fn checked(self) -> Answer<u32> {
        match self {
            Self::Number(mode) => mode_of(&format!("{mode:o}")),
            Self::Text(text) => mode_of(&text),
        }
    }
}

/// `1` or `true`, `0` or `false`.
pub(crate) fn flag(text: Option<&str>, field: &str) -> Answer<bool> {
    match text {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(ApiError::field(field, format!("{field}: expected 1 or 0"))),
    }
}
