//! Faults to order, for tests and demonstrations.

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum FaultMode {
    /// The call is refused.
    Fail {
        /// HTTP status; 500 if not given.
        #[serde(default = "default_status")]
        status: u16,
        /// The sentence, in body and reason phrase.
        #[serde(default)]
        message: String,
    },
    /// The call succeeds, its task ends with this sentence and leaves nothing. `WARNINGS: n` does the work.
    TaskFail {
        /// How the task ends.
        exitstatus: String,
    },
    /// No answer ever comes.
    Hang,
    /// The answer is not what PVE answers.
    Garbage,
    /// The connection is closed without an answer.
    Reset,
    /// The answer comes later.
    Delay {
        /// Milliseconds, not scaled.
        ms: u64,
    },
    /// The guest that this call starts never runs its agent.
    AgentNever,
}

fn default_status() -> u16 {
    500
}

fn once() -> u32 {
    1
}

fn any() -> String {
    "*".to_owned()
}

/// An order for a fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Method; any if not given, or if the path begins with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Template of the call (`POST /nodes/{node}/qemu/{vmid}/clone`, method optional) or a path with `*`
    /// for anything, for instance `/nodes/pve1/*`.
    #[serde(default = "any")]
    pub path: String,
    /// What goes wrong.
    #[serde(flatten)]
    pub mode: FaultMode,
    /// For how many calls; 0 is for ever.
    #[serde(default = "once")]
    pub count: u32,
    /// After how many calls that go well.
    #[serde(default)]
    pub skip: u32,
    /// Whether the call is carried out all the same, so that only its answer is lost.
    #[serde(default)]
    pub after: bool,
}

impl Fault {
    /// A fault for the next call of this template or pattern.
    #[must_use]
    pub fn once(path: impl Into<String>, mode: FaultMode) -> Self {
        Self {
            method: None,
            path: path.into(),
            mode,
            count: 1,
            skip: 0,
            after: false,
        }
    }

    fn hits(&self, method: &str, template: &str, path: &str) -> bool {
        let (own, pattern) = match self.path.split_once(' ') {
            Some((own, pattern)) => (Some(own), pattern),
            None => (self.method.as_deref(), self.path.as_str()),
        };
        own.is_none_or(|own| own == "*" || own.eq_ignore_ascii_case(method))
            && (pattern == template || glob(pattern, path) || glob(pattern, template))
    }
}

/// Whether `text` is `pattern`, where `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    active: Vec<(u64, Fault)>,
    next: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) -> u64 {
        self.next += 1;
        self.active.push((self.next, fault));
        self.next
    }

    pub(crate) fn clear(&mut self) {
        self.active.clear();
    }

    pub(crate) fn list(&self) -> serde_json::Value {
        self.active
            .iter()
            .map(|(id, fault)| {
                let mut row = serde_json::to_value(fault).unwrap_or_default();
                if let Some(row) = row.as_object_mut() {
                    row.insert("id".to_owned(), (*id).into());
                }
                row
            })
            .collect()
    }

    /// The fault of this call, if any; the first order that fits and still has calls left.
    pub(crate) fn take(&mut self, method: &str, template: &str, path: &str) -> Option<Fault> {
        let index = self.active.iter_mut().position(|(_, fault)| {
            let hits = fault.hits(method, template, path);
            let waits = hits && fault.skip > 0;
            if waits {
                fault.skip -= 1;
            }
            hits && !waits
        })?;
        let (_, fault) = self.active.get_mut(index)?;
        let found = fault.clone();
        if fault.count == 1 {
            self.active.remove(index);
        } else if fault.count > 1 {
            fault.count -= 1;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(glob("*", "/a/b") && glob("/nodes/*/qemu", "/nodes/pve1/qemu") && glob("/a*", "/a"));
        assert!(!glob("/nodes/*/qemu", "/nodes/pve1/qemu/100") && !glob("/a", "/a/b") && !glob("", "/a"));
    }

    #[test]
    fn skip_and_count() {
        let mut faults = Faults::default();
        let mut fault = Fault::once("POST /nodes/{node}/qemu/{vmid}/clone", FaultMode::Reset);
        (fault.skip, fault.count) = (1, 2);
        faults.add(fault);
        let mut call = || {
            faults
                .take(
                    "POST",
                    "/nodes/{node}/qemu/{vmid}/clone",
                    "/nodes/pve1/qemu/9000/clone",
                )
                .is_some()
        };
        assert_eq!([call(), call(), call(), call()], [false, true, true, false]);
        assert!(faults.take("GET", "/version", "/version").is_none());
    }

    #[test]
    fn orders_as_json() {
        let fault: Fault = serde_json::from_str(
            r#"{"method":"GET","path":"/version","mode":"fail","status":503,"message":"x"}"#,
        )
        .unwrap();
        assert_eq!(
            fault.mode,
            FaultMode::Fail {
                status: 503,
                message: "x".to_owned()
            }
        );
        assert!(fault.hits("GET", "/version", "/version") && !fault.hits("POST", "/version", "/version"));
        assert!(serde_json::from_str::<Fault>(r#"{"mode":"explode"}"#).is_err());
    }
}
