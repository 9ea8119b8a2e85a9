//! What can go wrong with a call, told apart by what a caller can do.

use std::collections::BTreeMap;

use nimbus_errors::{Code, Coded};

use crate::upid::Upid;

/// Why a call to PVE failed.
#[derive(Debug, thiserror::Error)]
pub enum ProxmoxError {
    /// A part of the configuration cannot be used.
    #[error("cannot use the proxmox {what}: {reason}")]
    Config {
        /// Which part.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The guest is not there (any more).
    #[error("not found: {message}")]
    NotFound {
        /// PVE's own words.
        message: String,
    },
    /// The VMID is taken: take the next one.
    #[error("already exists: {message}")]
    AlreadyExists {
        /// PVE's own words.
        message: String,
    },
    /// Another job works on the guest: repeat the call later.
    #[error("locked: {message}")]
    Locked {
        /// PVE's own words.
        message: String,
    },
    /// The guest is off and the call needs it on, or has nothing to do.
    #[error("not running: {message}")]
    NotRunning {
        /// PVE's own words.
        message: String,
    },
    /// The guest is on and should have been started.
    #[error("already running: {message}")]
    AlreadyRunning {
        /// PVE's own words.
        message: String,
    },
    /// The guest agent does not answer (yet).
    #[error("guest agent not ready: {message}")]
    AgentNotReady {
        /// PVE's own words.
        message: String,
    },
    /// The token is not accepted.
    #[error("proxmox does not accept the token")]
    Unauthorized,
    /// The token lacks a privilege.
    #[error("proxmox refused permission: {message}")]
    Forbidden {
        /// PVE's own words, with path and privilege.
        message: String,
    },
    /// The cluster has no quorum: it can be read but not changed.
    #[error("the cluster has no quorum: {message}")]
    Unquorate {
        /// PVE's own words.
        message: String,
    },
    /// PVE refused the request.
    #[error("proxmox refused the request with status {status}: {message}{}", Fields(.errors))]
    Rejected {
        /// Status of the answer.
        status: u16,
        /// PVE's own words.
        message: String,
        /// One text for each bad parameter.
        errors: BTreeMap<String, String>,
    },
    /// A task ended badly.
    #[error("task {upid} failed: {exitstatus}")]
    TaskFailed {
        /// Which task.
        upid: Upid,
        /// How it ended.
        exitstatus: String,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// A task still ran, or could not be asked, when its time was up. It may go on.
    #[error("task {upid} did not end in time")]
    TaskTimeout {
        /// Which task.
        upid: Upid,
    },
    /// The node that answers could not pass the request on (statuses 595 to 599). The other node may
    /// have done the work all the same.
    #[error("proxmox could not reach the node, status {status}: {message}")]
    NodeUnreachable {
        /// Status of the answer.
        status: u16,
        /// PVE's own words.
        message: String,
    },
    /// No connection, or it broke.
    #[error("could not reach proxmox")]
    Unreachable {
        /// What the connection said.
        #[source]
        source: reqwest::Error,
    },
    /// The certificate is not the one expected, or nobody we trust signed it.
    #[error("the certificate of proxmox is not trusted")]
    Untrusted {
        /// What is wrong with it.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time. The work may go on.
    #[error("proxmox did not answer {call} in time")]
    Timeout {
        /// Method and path.
        call: String,
    },
    /// The answer is not what PVE answers.
    #[error("proxmox answered {call} with something else than expected: {what}")]
    Garbage {
        /// Method and path.
        call: String,
        /// What was wrong with it.
        what: String,
    },
}

struct Fields<'a>(&'a BTreeMap<String, String>);

impl std::fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .try_for_each(|(field, text)| write!(f, "; {field}: {}", text.trim()))
    }
}

impl ProxmoxError {
    /// Whether the same call can succeed later without anybody doing anything.
    ///
    /// A call that changes the cluster may have been carried out all the same after
    /// [`Self::Timeout`], [`Self::Unreachable`] and [`Self::NodeUnreachable`]: look before repeating.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Locked { .. }
            | Self::AgentNotReady { .. }
            | Self::Unquorate { .. }
            | Self::NodeUnreachable { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. } => true,
            Self::Rejected { message, .. } => nothing_started(message),
            _ => false,
        }
    }

    /// Whether PVE says that it did not even start: the one failure of a change that is safe to repeat.
    pub(crate) fn nothing_started(&self) -> bool {
        matches!(self, Self::Rejected { message, .. } if nothing_started(message))
    }

    /// Reads an answer with an error status.
    pub(crate) fn from_answer(status: u16, message: &str, errors: BTreeMap<String, String>) -> Self {
        let message = message.trim().to_owned();
        match status {
            401 => return Self::Unauthorized,
            403 => return Self::Forbidden { message },
            595..=599 => return Self::NodeUnreachable { status, message },
            _ => {}
        }
        let known = std::iter::once(message.as_str())
            .chain(errors.values().map(String::as_str))
            .find_map(Self::known);
        known.unwrap_or(Self::Rejected {
            status,
            message,
            errors,
        })
    }

    /// Recognises the sentences that mean the same whether they come as an answer or end a task.
    pub(crate) fn known(text: &str) -> Option<Self> {
        let has = |part: &str| text.contains(part);
        let message = || text.trim().to_owned();
        if has("is locked (") || (has("can't lock file") && has("got timeout")) {
            Some(Self::Locked { message: message() })
        } else if has("config file already exists")
            || (has("VM ") && has(" already exists"))
            || (has("atomic file '/etc/pve/") && has("File exists"))
        {
            Some(Self::AlreadyExists { message: message() })
        } else if (has("Configuration file '") && has("' does not exist"))
            || has("unable to find configuration file for")
        {
            Some(Self::NotFound { message: message() })
        } else if has("no quorum") {
            Some(Self::Unquorate { message: message() })
        } else if has("guest agent is not running")
            || has("No QEMU guest agent configured")
            || has("qmp command 'guest-")
        {
            Some(Self::AgentNotReady { message: message() })
        } else if has("VM ") && has("already running") {
            Some(Self::AlreadyRunning { message: message() })
        } else if has("VM ") && (has(" not running") || has("already stopped")) {
            Some(Self::NotRunning { message: message() })
        } else {
            None
        }
    }
}

fn nothing_started(message: &str) -> bool {
    message.contains("got no worker upid")
}

impl Coded for ProxmoxError {
    /// The end of a failed task's log, or a text for each bad parameter.
    fn detail(&self) -> Option<serde_json::Value> {
        match self {
            Self::TaskFailed {
                upid,
                exitstatus,
                log,
            } => Some(serde_json::json!({ "upid": upid.as_str(), "exitstatus": exitstatus, "log": log })),
            Self::Rejected { errors, .. } if !errors.is_empty() => {
                Some(serde_json::json!({ "errors": errors }))
            }
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Unauthorized => Code::MachineProxmoxUnauthorized,
            Self::Forbidden { .. } => Code::MachineProxmoxForbidden,
            Self::Locked { .. } | Self::Unquorate { .. } | Self::AgentNotReady { .. } => {
                Code::MachineProxmoxBusy
            }
            Self::NodeUnreachable { .. }
            | Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Timeout { .. } => Code::MachineProxmoxUnreachable,
            Self::TaskFailed { .. } | Self::TaskTimeout { .. } => Code::MachineProxmoxTaskFailed,
            Self::Garbage { .. } => Code::MachineProxmoxProtocol,
            Self::Config { .. }
            | Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::NotRunning { .. }
            | Self::AlreadyRunning { .. }
            | Self::Rejected { .. } => Code::MachineProxmoxRejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, message: &str) -> ProxmoxError {
        ProxmoxError::from_answer(status, message, BTreeMap::new())
    }

    #[test]
    fn sentences_of_status_500() {
        use ProxmoxError as E;
        for (text, want) in [
            (
                "Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist\n",
                "NotFound",
            ),
            (
                "unable to find configuration file for VM 100 on node 'pve1'",
                "NotFound",
            ),
            (
                "unable to create VM 100: config file already exists",
                "AlreadyExists",
            ),
            (
                "unable to create VM 100 - VM 100 already exists on node 'pve2'",
                "AlreadyExists",
            ),
            (
                "close (rename) atomic file '/etc/pve/nodes/pve1/qemu-server/100.conf' failed: File exists",
                "AlreadyExists",
            ),
            ("VM is locked (clone)", "Locked"),
            (
                "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout",
                "Locked",
            ),
            ("cluster not ready - no quorum?", "Unquorate"),
            ("QEMU guest agent is not running", "AgentNotReady"),
            ("No QEMU guest agent configured", "AgentNotReady"),
            ("VM 100 already running", "AlreadyRunning"),
            ("VM 100 not running", "NotRunning"),
            ("VM 100 is not running", "NotRunning"),
            ("shrinking disks is not supported", "Rejected"),
            ("storage 'x' does not exist", "Rejected"),
            ("VM 100 is running - destroy failed", "Rejected"),
        ] {
            let got = match of(500, text) {
                E::NotFound { .. } => "NotFound",
                E::AlreadyExists { .. } => "AlreadyExists",
                E::Locked { .. } => "Locked",
                E::Unquorate { .. } => "Unquorate",
                E::AgentNotReady { .. } => "AgentNotReady",
                E::AlreadyRunning { .. } => "AlreadyRunning",
                E::NotRunning { .. } => "NotRunning",
                E::Rejected { .. } => "Rejected",
                other => panic!("{text}: {other:?}"),
            };
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn a_status_says_more_than_a_sentence() {
        assert!(matches!(of(401, ""), ProxmoxError::Unauthorized));
        assert!(matches!(
            of(403, "Permission check failed (/vms/100, VM.Clone)"),
            ProxmoxError::Forbidden { .. }
        ));
        assert!(matches!(
            of(596, "Connection timed out"),
            ProxmoxError::NodeUnreachable { status: 596, .. }
        ));
        assert!(of(596, "Connection timed out").is_transient());
        assert!(of(500, "got no worker upid - start worker failed").is_transient());
        assert!(!of(500, "no options specified").is_transient());
    }

    #[test]
    fn a_bad_parameter_is_named() {
        let errors = BTreeMap::from([("vmid".to_owned(), "VM 100 already exists\n".to_owned())]);
        let error = ProxmoxError::from_answer(400, "Parameter verification failed.\n", errors);
        assert!(matches!(error, ProxmoxError::AlreadyExists { .. }));
        let errors = BTreeMap::from([(
            "cores".to_owned(),
            "type check ('integer') failed - got 'x'".to_owned(),
        )]);
        let error = ProxmoxError::from_answer(400, "Parameter verification failed.\n", errors);
        assert_eq!(
            error.to_string(),
            "proxmox refused the request with status 400: Parameter verification failed.; \
             cores: type check ('integer') failed - got 'x'"
        );
    }
}
