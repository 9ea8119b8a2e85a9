//! What callers hand in.

use std::fmt;

use crate::vmid::Vmid;

/// How a clone is made.
#[derive(Clone, Debug)]
pub struct CloneSpec {
    /// Number of the new machine.
    pub newid: Vmid,
    /// Its name, a DNS name.
    pub name: Option<String>,
    /// Its description; copied from the source if not given.
    pub description: Option<String>,
    /// Another node to put it on, which needs shared storage.
    pub target: Option<String>,
    /// A copy that does not need its source any more. A template is cloned linked otherwise.
    pub full: bool,
}

/// Options to set and to delete, in one call.
///
/// Its debug text shows the names only: values can be passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConfigPatch {
    set: Vec<(String, String)>,
    delete: Vec<String>,
}

impl ConfigPatch {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an option. An empty value deletes the option instead: PVE does not see empty values.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        let (key, value) = (key.into(), value.to_string());
        if value.is_empty() {
            return self.delete(key);
        }
        self.set.push((key, value));
        self
    }

    /// Adds an option to the list of those to delete.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.delete.push(key.into());
        self
    }

    /// Whether there is nothing to do, which PVE refuses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.delete.is_empty()
    }

    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = self.set.clone();
        if !self.delete.is_empty() {
            pairs.push(("delete".to_owned(), self.delete.join(",")));
        }
        pairs
    }
}

impl fmt::Debug for ConfigPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.set.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ConfigPatch")
            .field("set", &names)
            .field("delete", &self.delete)
            .finish()
    }
}

/// What to do with a machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PowerOp {
    /// Switch on.
    Start,
    /// Pull the plug.
    Stop,
    /// Ask the guest to end, for up to 60 s.
    Shutdown,
    /// Ask the guest to end and switch it on again; applies pending options.
    Reboot,
}

impl PowerOp {
    /// The last part of the call's path.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Shutdown => "shutdown",
            Self::Reboot => "reboot",
        }
    }
}

impl fmt::Display for PowerOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file for PVE to fetch.
#[derive(Clone, Debug)]
pub struct DownloadSpec {
    /// Where it is.
    pub url: String,
    /// What it is to the storage: `iso`, `vztmpl` or `import`.
    pub content: String,
    /// Its name on the storage; for `import` it ends in `.qcow2`, `.raw`, `.vmdk` or `.ova`.
    pub filename: String,
    /// Algorithm and digest to check.
    pub checksum: Option<(String, String)>,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Of this guest only.
    pub vmid: Option<Vmid>,
    /// Of this worker type only.
    pub kind: Option<String>,
    /// The ones that still run as well as those that ended.
    pub all: bool,
    /// At most so many; PVE says 50 by itself.
    pub limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_keeps_order_and_hides_values() {
        let patch = ConfigPatch::new()
            .set("cores", 2)
            .set("cipassword", "s3cret")
            .delete("ide2")
            .set("tags", "");
        assert_eq!(
            patch.pairs(),
            [("cores", "2"), ("cipassword", "s3cret"), ("delete", "ide2,tags")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert!(!format!("{patch:?}").contains("s3cret"));
    }
}
