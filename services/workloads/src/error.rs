//! What can go wrong, by what the caller can do about it.

use nimbus_bus::{Action, BusError};
use nimbus_errors::{Code, Coded, Fault};
use nimbus_proto::workloads::Lifecycle;
use nimbus_store::{SealError, StoreError};
use serde_json::{Value, json};

/// A failure of workloads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// A field of the request is wrong.
    #[error("{field}: {why}")]
    Invalid {
        /// Its path.
        field: String,
        /// What is wrong.
        why: String,
        /// More for programs.
        more: Option<(&'static str, Value)>,
    },
    /// The tenant's policy does not allow a field.
    #[error("{field} is not allowed by the policy of this tenant: {why}")]
    Sealed {
        /// Its path.
        field: String,
        /// Why.
        why: String,
    },
    /// The caller may not do it.
    #[error("the credential does not allow {}", action.as_str())]
    Denied {
        /// What.
        action: Action,
    },
    /// The caller may not do it, and no action names it.
    #[error("{what}")]
    Refused {
        /// What and why.
        what: String,
    },
    /// A token or ticket of ours that is none, or not any more.
    #[error("the {what} is not valid, or not any more")]
    BadToken {
        /// What.
        what: &'static str,
    },
    /// There is no such tenant for the caller.
    #[error("there is no tenant {tenant}")]
    NoTenant {
        /// Its id.
        tenant: String,
    },
    /// There is no such thing for the caller.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// What kind.
        kind: &'static str,
        /// Where it was looked for.
        tenant: Option<String>,
        /// Its name or id.
        name: String,
    },
    /// The name is taken.
    #[error("there is a {kind} {name} already")]
    Exists {
        /// What kind.
        kind: &'static str,
        /// Its name or id.
        name: String,
    },
    /// The state does not allow it.
    #[error("{why}")]
    Conflict {
        /// Why, for programs.
        reason: &'static str,
        /// Why.
        why: String,
        /// The state.
        lifecycle: Option<Lifecycle>,
    },
    /// The definition has changed.
    #[error("the generation is {current}, not {expected}")]
    Stale {
        /// What the caller has seen.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// A bound of the tenant.
    #[error("{dimension} of the tenant: {used} of {limit} are in use, {requested} more were asked for")]
    Quota {
        /// Which.
        dimension: &'static str,
        /// The bound.
        limit: u64,
        /// What is in use.
        used: u64,
        /// What was asked for.
        requested: u64,
    },
    /// No host can run it.
    #[error("no host can run this sandbox: {}", missing.join(", "))]
    NoBackend {
        /// What was asked for.
        backend: &'static str,
        /// What is missing.
        missing: Vec<String>,
    },
    /// It did not happen in time.
    #[error("{what} took longer than {limit_s} s")]
    Slow {
        /// What.
        what: &'static str,
        /// The limit.
        limit_s: u64,
    },
    /// Others were faster, again and again.
    #[error("{what} was changed by others each time it was tried")]
    Raced {
        /// What.
        what: String,
    },
    /// The host was asked and refused.
    #[error("{}", fault.message)]
    Host {
        /// What it said.
        fault: Fault,
    },
    /// The bus failed.
    #[error("the bus failed")]
    Bus {
        /// How.
        #[source]
        source: BusError,
    },
    /// What was kept sealed.
    #[error("a sealed value could not be used")]
    Seal {
        /// Why.
        #[source]
        source: SealError,
    },
    /// Stored JSON.
    #[error("stored {what} could not be understood")]
    Damaged {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The database failed.
    #[error("the database failed")]
    Store {
        /// How.
        #[source]
        source: StoreError,
    },
}

impl WorkError {
    pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            why: why.into(),
            more: None,
        }
    }

    pub(crate) fn conflict(reason: &'static str, why: impl Into<String>) -> Self {
        Self::Conflict {
            reason,
            why: why.into(),
            lifecycle: None,
        }
    }

    pub(crate) fn damaged(what: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Damaged { what, source }
    }

    pub(crate) fn no_sandbox(tenant: &str, id: &str) -> Self {
        Self::NotFound {
            kind: "sandbox",
            tenant: Some(tenant.to_owned()),
            name: id.to_owned(),
        }
    }

    pub(crate) fn no_service(tenant: &str, name: &str) -> Self {
        Self::NotFound {
            kind: "service",
            tenant: Some(tenant.to_owned()),
            name: name.to_owned(),
        }
    }

    pub(crate) fn no_session(id: &str) -> Self {
        Self::NotFound {
            kind: "session",
            tenant: None,
            name: id.to_owned(),
        }
    }

    pub(crate) fn in_progress(why: impl Into<String>) -> Self {
        Self::conflict("lifecycle_in_progress", why)
    }
}

impl From<StoreError> for WorkError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

impl From<SealError> for WorkError {
    fn from(source: SealError) -> Self {
        Self::Seal { source }
    }
}

impl From<BusError> for WorkError {
    fn from(source: BusError) -> Self {
        Self::Bus { source }
    }
}

impl From<Fault> for WorkError {
    fn from(fault: Fault) -> Self {
        Self::Host { fault }
    }
}

impl Coded for WorkError {
    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::OpInvalidInput,
            Self::Sealed { .. } | Self::Denied { .. } | Self::Refused { .. } => Code::AuthPermissionDenied,
            Self::BadToken { .. } => Code::AuthUnauthorized,
            Self::NoTenant { .. } => Code::SessionTenantNotFound,
            Self::NotFound { .. } => Code::OpNotFound,
            Self::Exists { .. } => Code::OpAlreadyExists,
            Self::Conflict { .. } => Code::OpConflict,
            Self::Stale { .. } => Code::OpPreconditionFailed,
            Self::Quota { .. } | Self::Slow { .. } => Code::RateResourceExhausted,
            Self::NoBackend { .. } => Code::ServiceSandboxBackendUnavailable,
            Self::Raced { .. } => Code::ServiceStorageBusy,
            Self::Host { fault } => Code::find(&fault.code).unwrap_or(Code::ServiceInternal),
            Self::Bus { source } => source.code(),
            Self::Seal { source } => source.code(),
            Self::Damaged { .. } => Code::ServiceStorageCorruption,
            Self::Store { source } => source.code(),
        }
    }

    fn detail(&self) -> Option<Value> {
        match self {
            Self::Invalid { field, more, .. } => {
                let mut detail = json!({ "field": field });
                if let (Some((name, value)), Some(map)) = (more, detail.as_object_mut()) {
                    map.insert((*name).to_owned(), value.clone());
                }
                Some(detail)
            }
            Self::Sealed { field, .. } => Some(json!({ "field": field })),
            Self::Denied { action } => Some(json!({ "action": action.as_str() })),
            Self::NoTenant { tenant } => Some(json!({ "tenantId": tenant })),
            Self::NotFound { kind, tenant, name } => {
                let key = if matches!(*kind, "sandbox" | "session") {
                    "id"
                } else {
                    "name"
                };
                let mut detail = json!({ "kind": kind, key: name });
                if let (Some(tenant), Some(map)) = (tenant, detail.as_object_mut()) {
                    map.insert("tenantId".to_owned(), json!(tenant));
                }
                Some(detail)
            }
            Self::Conflict {
                reason, lifecycle, ..
            } => {
                let mut detail = json!({ "reason": reason });
                if let (Some(lifecycle), Some(map)) = (lifecycle, detail.as_object_mut()) {
                    map.insert("lifecycleState".to_owned(), json!(<&str>::from(*lifecycle)));
                }
                Some(detail)
            }
            Self::Stale { expected, current } => {
                Some(json!({ "expectedGeneration": expected, "currentGeneration": current }))
            }
            Self::Quota {
                dimension,
                limit,
                used,
                requested,
            } => {
                Some(json!({ "dimension": dimension, "limit": limit, "used": used, "requested": requested }))
            }
            Self::NoBackend { backend, missing } => Some(json!({ "backend": backend, "missing": missing })),
            Self::Host { fault } => fault.detail_json(),
            _ => None,
        }
    }
}
