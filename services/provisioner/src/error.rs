//! What can go wrong with machines, by what the caller can do about it.

use nimbus_errors::{Code, Coded, Fault};
use nimbus_model::{MachineId, OperationId, Os, Tier};
use nimbus_proto::node::Refusal;
use nimbus_proxmox::ProxmoxError;
use nimbus_store::StoreError;

/// A failure of the provisioner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("validation error: {field} - {message}")]
    Invalid { field: &'static str, message: String },
    #[error("the hostname {hostname} is taken")]
    HostnameTaken { hostname: String },
    #[error("you have {limit} machines, which is as many as you may have")]
    QuotaReached { limit: u32 },
    #[error("only administrators may order tier {tier}")]
    TierRefused { tier: Tier },
    #[error("vm with id {0} not found")]
    NotFound(MachineId),
    #[error("operation with id {0} not found")]
    OperationNotFound(OperationId),
    #[error("another operation ({operation}) is running on this machine")]
    Busy { operation: OperationId },
    #[error("the machine is {status}, so it cannot be {action}")]
    WrongState { status: String, action: &'static str },
    #[error("this idempotency key was used for another request")]
    KeyReused,
    #[error(
        "there is no private key to hand out: it was never generated, was handed out already, or has expired"
    )]
    KeyClaimed,
    #[error("no eligible node for tier={tier} os_template={os}{}", Rejections(.rejected))]
    NoEligibleNode {
        tier: Tier,
        os: Os,
        rejected: Vec<(String, Vec<Refusal>)>,
    },
    #[error("node {node} has no usable template of {os}: {reason}")]
    TemplateMissing { node: String, os: Os, reason: String },
    #[error("VM {vmid} on {node} does not carry this machine's marker")]
    NotOurs { vmid: u32, node: String },
    #[error("VM {vmid} does not exist in the cluster any more")]
    Gone { vmid: u32 },
    #[error("other guests took each of the {} addresses that were tried", .tried.len())]
    Contested { tried: Vec<std::net::Ipv4Addr> },
    #[error("no free VM number was found in {tries} tries")]
    NoVmid { tries: u32 },
    #[error("the cluster listed no guest at all, which is taken for a failure of the listing")]
    EmptySnapshot,
    #[error("this installation is not configured yet: {missing} missing")]
    NotConfigured { missing: String },
    #[error("{doing}")]
    Proxmox {
        doing: String,
        #[source]
        source: ProxmoxError,
    },
    #[error("could not use the machines' tables")]
    Store(#[source] StoreError),
    #[error("stored data of {what} cannot be read: {reason}")]
    Damaged { what: &'static str, reason: String },
    #[error(transparent)]
    Fault(Fault),
}

struct Rejections<'a>(&'a [(String, Vec<Refusal>)]);

impl std::fmt::Display for Rejections<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (node, reasons)) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            write!(f, "{node}={}", words.join(","))?;
        }
        Ok(())
    }
}

impl MachineError {
    /// Adds what was being done to an error of Proxmox.
    pub(crate) fn proxmox(doing: impl Into<String>) -> impl FnOnce(ProxmoxError) -> Self {
        move |source| Self::Proxmox {
            doing: doing.into(),
            source,
        }
    }

    /// Whether doing the same again can succeed without anybody changing anything.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // Every step can be repeated, so an answer that cannot be read is asked for again.
            Self::Proxmox {
                source: ProxmoxError::Garbage { .. },
                ..
            } => true,
            Self::Proxmox {
                source: ProxmoxError::TaskFailed { exitstatus, .. },
                ..
            } => storage_busy(exitstatus),
            Self::Proxmox { source, .. } => source.is_transient(),
            Self::Store(error) => error.is_transient(),
            Self::Fault(fault) => {
                fault.is(Code::ServiceUnavailable)
                    || fault.is(Code::ServiceTimeout)
                    || fault.is(Code::ServiceStorageBusy)
                    || fault.is(Code::RateOverloaded)
                    // Of a look at the cluster that several shared.
                    || fault.is(Code::MachineProxmoxUnreachable)
                    || fault.is(Code::MachineProxmoxBusy)
                    || fault.is(Code::MachineProxmoxProtocol)
                    // A node that did not answer for a moment, and addresses that the books have learned
                    // by now are in use.
                    || fault.is(Code::IppoolSnapshotPartial)
                    || fault.is(Code::IppoolContested)
            }
            _ => false,
        }
    }
}

/// Whether a task ended because others had the storage's lock for too long, as many clones at once do.
fn storage_busy(exitstatus: &str) -> bool {
    ["got lock request timeout", "got lock timeout"]
        .iter()
        .any(|words| exitstatus.contains(words))
}

impl From<StoreError> for MachineError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Coded for MachineError {
    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::OpInvalidInput,
            Self::HostnameTaken { .. } => Code::MachineHostnameTaken,
            Self::QuotaReached { .. } => Code::MachineQuotaReached,
            Self::TierRefused { .. } => Code::OpInvalidInput,
            Self::NotFound(_) | Self::OperationNotFound(_) => Code::OpNotFound,
            Self::Busy { .. } => Code::MachineBusy,
            Self::WrongState { .. } | Self::KeyReused => Code::OpConflict,
            Self::KeyClaimed => Code::MachineKeyClaimed,
            Self::NoEligibleNode { .. } => Code::MachineNoEligibleNode,
            Self::TemplateMissing { .. } => Code::MachineTemplateMissing,
            Self::NotOurs { .. } => Code::MachineNotOurs,
            Self::Gone { .. } => Code::MachineGone,
            Self::Contested { .. } => Code::IppoolContested,
            Self::NoVmid { .. } => Code::OpConflict,
            Self::EmptySnapshot => Code::MachineProxmoxProtocol,
            Self::NotConfigured { .. } => Code::ServiceNotConfigured,
            Self::Proxmox { source, .. } => source.code(),
            Self::Store(error) => error.code(),
            Self::Damaged { .. } => Code::ServiceStorageCorruption,
            Self::Fault(fault) => Code::find(&fault.code).unwrap_or(Code::ServiceInternal),
        }
    }

    fn detail(&self) -> Option<serde_json::Value> {
        use serde_json::json;
        match self {
            Self::Invalid { field, .. } => Some(json!({ "field": field })),
            Self::HostnameTaken { hostname } => Some(json!({ "field": "hostname", "hostname": hostname })),
            Self::TierRefused { tier } => Some(json!({ "field": "tier", "tier": tier })),
            Self::QuotaReached { limit } => Some(json!({ "limit": limit })),
            Self::Busy { operation } => Some(json!({ "operation": operation })),
            Self::WrongState { status, .. } => Some(json!({ "lifecycleState": status })),
            Self::NoEligibleNode { rejected, .. } => Some(json!({
                "nodes": rejected.iter().map(|(node, reasons)| json!({ "node": node, "reasons": reasons })).collect::<Vec<_>>()
            })),
            Self::Contested { tried } => Some(json!({ "tried": tried })),
            Self::NotOurs { vmid, node } => Some(json!({ "vmid": vmid, "node": node })),
            Self::Proxmox { source, doing } => {
                let mut detail = source.detail().unwrap_or_else(|| json!({}));
                if let Some(object) = detail.as_object_mut() {
                    object.insert("doing".into(), json!(doing));
                }
                Some(detail)
            }
            Self::Fault(fault) => fault.detail_json(),
            _ => None,
        }
    }
}

/// The fault of a machine error, with Proxmox' own words: they are what the reader can act on.
pub(crate) fn fault(error: MachineError) -> Fault {
    match error {
        MachineError::Fault(fault) => fault,
        MachineError::Proxmox {
            ref doing,
            ref source,
        } => {
            let mut fault = Fault::of(&error);
            fault.message = format!("{doing}: {}", nimbus_errors::chain(source));
            fault
        }
        other => Fault::of(&other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_tried_again_and_nothing_else() {
        let proxmox = |source| MachineError::proxmox("testing")(source);
        let ended = |exitstatus: &str| {
            proxmox(ProxmoxError::TaskFailed {
                upid: "UPID:pve1:0000C0DE:0000BEEF:68000000:qmclone:100:root@pam:"
                    .parse()
                    .unwrap(),
                exitstatus: exitstatus.to_owned(),
                log: vec![],
            })
        };
        let garbage = ProxmoxError::Garbage {
            call: "GET /nodes".into(),
            what: "a page of a proxy".into(),
        };
        let fault = |code| MachineError::Fault(Fault::new(code, "said"));
        for (error, again) in [
            (proxmox(garbage), true),
            (
                ended("clone failed: cfs-lock 'storage-lvm' error: got lock request timeout"),
                true,
            ),
            (ended("clone failed: no space left on device"), false),
            (ended("VM quit/powerdown failed - got timeout"), false),
            (proxmox(ProxmoxError::Unauthorized), false),
            (
                proxmox(ProxmoxError::Timeout {
                    call: "GET /nodes".into(),
                }),
                true,
            ),
            (fault(Code::IppoolSnapshotPartial), true),
            (fault(Code::IppoolExhausted), false),
            (fault(Code::MachineProxmoxUnreachable), true),
            (MachineError::Gone { vmid: 100 }, false),
        ] {
            assert_eq!(error.is_transient(), again, "{error:?}");
        }
    }
}
