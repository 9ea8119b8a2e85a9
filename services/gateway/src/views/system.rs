//! Health, set-up and the error catalogue.

use std::collections::BTreeMap;

use nimbus_errors::{Code, Entry};
use nimbus_proto::node::MissingSetting;
use serde::Serialize;
use utoipa::ToSchema;

use super::At;
use crate::envelope::Remediation;

/// Whether the server lives, and whether it reaches the cluster. Not enveloped.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct HealthView {
    /// Always true: the server answers.
    pub ok: bool,
    /// `ok`, or `setup` while settings are missing.
    pub status: &'static str,
    /// The server's clock.
    pub timestamp: At,
    /// The server's version.
    pub version: &'static str,
    /// Whether Proxmox answers.
    pub proxmox_ok: bool,
    /// Version of Proxmox VE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxmox_version: Option<String>,
    /// Why Proxmox does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxmox_error: Option<String>,
}

/// Whether requests can be served. Not enveloped.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReadyView {
    /// Whether everything below answers.
    pub ready: bool,
    /// The bus and each service.
    pub services: BTreeMap<&'static str, bool>,
}

/// What the first-run page needs to know.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SetupView {
    /// Whether machines can be made.
    pub configured: bool,
    /// Whether the first user is still to register.
    pub needs_admin_setup: bool,
    /// Settings without which no machine can be made.
    pub missing: Vec<MissingView>,
}

/// A setting that is missing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MissingView {
    /// Name of the environment variable.
    #[schema(examples("PROXMOX_HOST"))]
    pub setting: String,
    /// What it has to be.
    pub expected: String,
}

impl From<MissingSetting> for MissingView {
    fn from(missing: MissingSetting) -> Self {
        Self {
            setting: missing.setting,
            expected: missing.expected,
        }
    }
}

/// Ways to sign in.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct ProvidersView {
    /// With a GitHub account.
    pub github: bool,
    /// With a Google account.
    pub google: bool,
    /// With a password.
    pub password: bool,
    /// Whether passwords are to go.
    pub passwordless_goal: bool,
}

/// The error catalogue.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CatalogueView {
    /// Every code.
    pub errors: Vec<CodeView>,
}

/// One row of the error catalogue.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CodeView {
    /// Stable name.
    pub code: &'static str,
    /// Status of the answer.
    pub http: u16,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// `warning`, `error` or `fatal`.
    pub severity: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What can be done.
    pub remediation: Remediation,
}

impl From<Entry> for CodeView {
    fn from(entry: Entry) -> Self {
        Self {
            code: entry.code,
            http: entry.http_status,
            retryable: entry.retryable,
            severity: entry.severity.as_str(),
            meaning: entry.meaning,
            remediation: Remediation {
                action: entry.action.as_str().to_owned(),
                message: entry.remedy.to_owned(),
            },
        }
    }
}

impl CatalogueView {
    pub(crate) fn whole() -> Self {
        Self {
            errors: Code::all().map(|code| code.entry().into()).collect(),
        }
    }
}
