//! The table itself. To add a code: one line here; the page and the API follow.

use serde::Serialize;

/// How bad a failure is for the system (not for the request, which failed in any case).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody must look: a bug or damaged data.
    Fatal,
    /// The request failed.
    Error,
    /// The request was refused or delayed; nothing is wrong with the system.
    Warning,
}

impl Severity {
    /// The word in the envelope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// What a client can do about a failure, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send the same request again.
    Retry,
    /// Send the same request again, later.
    WaitAndRetry,
    /// Change the request.
    FixRequest,
    /// Sign in again or use another credential.
    Reauthenticate,
    /// Read the resource again, then decide.
    RefreshResource,
    /// The two sides run versions that do not understand each other.
    UpgradeServer,
    /// Only the operator of this installation can help.
    ContactOperator,
}

impl Action {
    /// The word in the envelope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::WaitAndRetry => "wait_and_retry",
            Self::FixRequest => "fix_request",
            Self::Reauthenticate => "reauthenticate",
            Self::RefreshResource => "refresh_resource",
            Self::UpgradeServer => "upgrade_server",
            Self::ContactOperator => "contact_operator",
        }
    }
}

/// One row of the catalogue.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Entry {
    /// Stable name, `^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$`.
    pub code: &'static str,
    /// Status of the HTTP answer.
    pub http_status: u16,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// How bad it is.
    pub severity: Severity,
    /// What it means, one sentence.
    pub meaning: &'static str,
    /// What programs can do.
    pub action: Action,
    /// What people can do, one sentence.
    pub remedy: &'static str,
}

macro_rules! catalog {
    ($($variant:ident = $code:literal, $http:literal, $retry:literal, $severity:ident, $action:ident, $meaning:literal, $remedy:literal;)*) => {
        /// A kind of failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $code, "`: ", $meaning)] $variant,)*
        }

        impl Code {
            const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The catalogue's row of this code.
            #[must_use]
            pub fn entry(self) -> Entry {
                match self {
                    $(Self::$variant => Entry {
                        code: $code, http_status: $http, retryable: $retry, severity: Severity::$severity,
                        meaning: $meaning, action: Action::$action, remedy: $remedy,
                    },)*
                }
            }

            /// Finds the code by its stable name.
            #[must_use]
            pub fn find(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

impl Code {
    /// Every code, in the order of the catalogue.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied()
    }

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.entry().code
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

catalog! {
    AuthUnauthorized = "auth.unauthorized", 401, false, Warning, Reauthenticate,
        "There is no credential, or it is not valid any more.", "Sign in, or send a valid token.";
    AuthForbidden = "auth.forbidden", 403, false, Warning, ContactOperator,
        "The credential is valid, but the origin of the request is not allowed.", "Open the portal under its own address.";
    AuthPermissionDenied = "auth.permission_denied", 403, false, Warning, ContactOperator,
        "The caller may not do this.", "Ask an administrator of this installation.";
    OpInvalidInput = "op.invalid_input", 400, false, Warning, FixRequest,
        "The body, a query parameter or a path segment is malformed.", "Correct the field named in the detail.";
    OpCancelled = "op.cancelled", 408, true, Warning, Retry,
        "The work was cancelled before it was complete.", "Send the request again.";
    OpNotFound = "op.not_found", 404, false, Warning, RefreshResource,
        "There is no such resource, or it belongs to somebody else.", "Check the id, or list the resources.";
    OpAlreadyExists = "op.already_exists", 409, false, Warning, FixRequest,
        "The name is taken.", "Choose another name.";
    OpConflict = "op.conflict", 409, false, Warning, RefreshResource,
        "The state of the resource does not allow this now.", "Read the resource again, then decide.";
    OpPreconditionFailed = "op.precondition_failed", 412, false, Warning, RefreshResource,
        "The resource has changed since it was read.", "Read the resource again, then repeat the change.";
    OpOutOfRetention = "op.out_of_retention", 409, false, Warning, RefreshResource,
        "What was asked for was dropped, because too much followed.", "Begin again from what is kept.";
    OpMethodNotAllowed = "op.method_not_allowed", 405, false, Warning, FixRequest,
        "The route exists, but not with this method.", "Use a method named in the Allow header.";
    OpPayloadTooLarge = "op.payload_too_large", 413, false, Warning, FixRequest,
        "The body is larger than the limit.", "Send a smaller body.";
    OpHeadersTooLarge = "op.headers_too_large", 431, false, Warning, FixRequest,
        "The headers are larger than the limit.", "Send fewer or shorter headers.";
    OpUnsupportedMediaType = "op.unsupported_media_type", 415, false, Warning, FixRequest,
        "The body is not of a type this route takes.", "Send application/json.";
    SessionTenantNotFound = "session.tenant_not_found", 404, false, Warning, FixRequest,
        "There is no such tenant.", "Check the tenant's id.";
    ServiceRouteNotFound = "service.route_not_found", 404, false, Warning, FixRequest,
        "There is no such route.", "See /api/docs for the routes of this server.";
    RateResourceExhausted = "rate.resource_exhausted", 429, true, Warning, WaitAndRetry,
        "A quota is used up.", "Free some of what you hold, or ask for a larger quota.";
    RateOverloaded = "rate.overloaded", 429, true, Warning, WaitAndRetry,
        "The service has more work than it can do.", "Try again in a moment.";
    RateLimited = "rate.limited", 429, true, Warning, WaitAndRetry,
        "Too many requests in a short time.", "Wait as long as the Retry-After header says.";
    ServiceStorageBusy = "service.storage_busy", 503, true, Error, WaitAndRetry,
        "The database is busy.", "Try again in a moment.";
    ServiceStorageIo = "service.storage_io", 500, true, Error, ContactOperator,
        "The database could not read or write.", "Check disk space and the database's log.";
    ServiceStorageCorruption = "service.storage_corruption", 500, false, Fatal, ContactOperator,
        "Stored data could not be understood.", "Restore a backup, and report this.";
    ServiceUnavailable = "service.unavailable", 503, true, Error, WaitAndRetry,
        "A service that is needed is not running.", "Try again in a moment; if it stays, check the services.";
    ServiceTransport = "service.transport", 503, true, Error, WaitAndRetry,
        "The connection to what was asked for failed or broke.", "Try again; a stream can be picked up at its offset.";
    ServiceNotConfigured = "service.not_configured", 503, false, Warning, ContactOperator,
        "This installation is not configured yet.", "Set what GET /api/setup/status lists as missing, then restart.";
    ServiceTimeout = "service.timeout", 504, true, Error, WaitAndRetry,
        "The work took longer than its time limit; whether it was done is not known.", "Look at the state before trying again.";
    ServiceInternal = "service.internal", 500, false, Fatal, ContactOperator,
        "Nimbus has a bug.", "Report the request id; the cause is in the server's log.";
    ServiceSandboxBackendUnavailable = "service.sandbox_backend_unavailable", 503, false, Error, FixRequest,
        "What sandboxes of this kind run on is not there.", "Install what the detail lists as missing, or ask for another backend.";
    BusSchemaMismatch = "bus.schema_mismatch", 502, false, Error, UpgradeServer,
        "Two services do not understand each other's messages.", "Run the same version of every service.";
    BusPermission = "bus.permission", 500, false, Fatal, ContactOperator,
        "A service tried to use a subject that its bus credential does not allow.", "Check the service's bus credential.";
    MachineNoEligibleNode = "machine.no_eligible_node", 409, true, Warning, WaitAndRetry,
        "No node of the cluster can take this machine now.", "Choose a smaller tier, or free capacity; the detail names each node's reason.";
    MachineTemplateMissing = "machine.template_missing", 409, false, Error, ContactOperator,
        "The operating system has no usable template on the chosen node.", "An administrator has to build the templates.";
    MachineHostnameTaken = "machine.hostname_taken", 409, false, Warning, FixRequest,
        "Another machine has this hostname.", "Choose another hostname.";
    MachineQuotaReached = "machine.quota_reached", 409, false, Warning, FixRequest,
        "The caller has as many machines as the quota allows.", "Delete a machine, or ask for a larger quota.";
    MachineBusy = "machine.busy", 409, true, Warning, WaitAndRetry,
        "Another operation on this machine is running.", "Wait until it is done.";
    MachineNotOurs = "machine.not_ours", 409, false, Error, ContactOperator,
        "The VM in the cluster does not carry this machine's marker, so Nimbus does not touch it.", "An administrator has to look at the VM in Proxmox.";
    MachineGone = "machine.gone", 409, false, Error, RefreshResource,
        "The VM does not exist in the cluster any more.", "Delete the machine, or restore the VM in Proxmox.";
    MachineKeyClaimed = "machine.key_claimed", 404, false, Warning, FixRequest,
        "The private key was already handed out, was never generated, or has expired.", "Create the machine again, or bring your own key.";
    MachineStuck = "machine.stuck", 500, false, Fatal, ContactOperator,
        "Taking back a failed operation did not succeed.", "An administrator has to look at the operation's log.";
    MachineProxmoxUnreachable = "machine.proxmox_unreachable", 503, true, Error, WaitAndRetry,
        "The Proxmox cluster does not answer.", "Check PROXMOX_HOST and the network; try again later.";
    MachineProxmoxUnauthorized = "machine.proxmox_unauthorized", 502, false, Error, ContactOperator,
        "Proxmox does not accept Nimbus' API token.", "Check PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET.";
    MachineProxmoxForbidden = "machine.proxmox_forbidden", 502, false, Error, ContactOperator,
        "Nimbus' API token lacks a privilege in Proxmox.", "Give the token the privilege named in the message, or turn off privilege separation.";
    MachineProxmoxRejected = "machine.proxmox_rejected", 502, false, Error, ContactOperator,
        "Proxmox refused a request.", "Read the message; an administrator can see more in Proxmox' log.";
    MachineProxmoxTaskFailed = "machine.proxmox_task_failed", 502, true, Error, Retry,
        "A task in Proxmox failed.", "Try again; the detail has the end of the task's log.";
    MachineProxmoxProtocol = "machine.proxmox_protocol", 502, true, Error, Retry,
        "Proxmox answered something that is not its API.", "Check that PROXMOX_HOST is a Proxmox VE server, or a proxy in between.";
    MachineProxmoxBusy = "machine.proxmox_busy", 503, true, Warning, WaitAndRetry,
        "The VM is locked in Proxmox by another task.", "Try again in a moment.";
    IppoolExhausted = "ippool.exhausted", 409, true, Warning, WaitAndRetry,
        "Every address of the pool is in use.", "Delete a machine, or enlarge the pool.";
    IppoolContested = "ippool.contested", 409, true, Warning, Retry,
        "The free addresses that were tried are in use by guests that Nimbus does not manage.", "Run an address reconcile, then try again.";
    IppoolSnapshotPartial = "ippool.snapshot_partial", 503, true, Error, WaitAndRetry,
        "Not every node could be asked which addresses it uses, so none was handed out.", "Check that all nodes answer, then try again.";
    GpuNotConfigured = "gpu.not_configured", 503, false, Warning, ContactOperator,
        "No GPU box is paired, or GPUs are turned off.", "An administrator pairs a box under Settings, GPU.";
    GpuQuotaExceeded = "gpu.quota_exceeded", 409, true, Warning, WaitAndRetry,
        "The caller has as many jobs queued and running as the quota allows.", "Wait until one has ended, or cancel one.";
    GpuJobTerminal = "gpu.job_terminal", 409, false, Warning, RefreshResource,
        "The job has ended already.", "Read the job; submit another one if it is to run again.";
    GpuWorkerLost = "gpu.worker_lost", 502, true, Error, Retry,
        "The box that ran the job was silent for two minutes, or came back without the job.", "Check the box, then submit the job again; ask for a rerun where running twice does no harm.";
    GpuImageUnavailable = "gpu.image_unavailable", 502, false, Error, FixRequest,
        "The image of the job cannot be pulled by the box.", "Check the reference, and that the box reaches its registry.";
    GpuEngineFailed = "gpu.engine_failed", 502, true, Error, ContactOperator,
        "The container engine of the box could not run the job.", "Read the job's error; check the engine and the disk of the box.";
    GpuTimeLimit = "gpu.time_limit", 504, false, Warning, FixRequest,
        "The job ran longer than its time limit and was stopped.", "Submit it with a longer limit, or make it do less.";
    GpuOutOfMemory = "gpu.out_of_memory", 507, false, Warning, FixRequest,
        "The job used more memory than its limit, or than the box has, and was stopped.", "Submit it with a larger limit, or make it use less.";
    GpuPairingInvalid = "gpu.pairing_invalid", 401, false, Warning, Reauthenticate,
        "The pairing token is not valid: it was used, replaced by a newer one, or is older than five minutes.", "Press Add GX10 again and paste the new line.";
    GpuPairingUnreachable = "gpu.pairing_unreachable", 412, false, Warning, ContactOperator,
        "Nimbus only knows an address of itself that other hosts cannot reach.", "Set the public URL of the portal, or open it under an address that the box can reach.";
    GpuWorkerUnknown = "gpu.worker_unknown", 401, false, Warning, Reauthenticate,
        "The worker's credential is not valid any more.", "Pair the box again.";
    GpuInferenceDown = "gpu.inference_down", 502, true, Error, WaitAndRetry,
        "The inference endpoint does not answer.", "Check nimbus-vllm.service on the box; loading a model takes minutes.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_well_formed_unique_and_found_by_name() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::all() {
            let name = code.as_str();
            assert!(seen.insert(name), "{name} stands twice");
            assert_eq!(Code::find(name), Some(code));
            assert!(
                name.contains('.')
                    && name
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c))
            );
            assert!((400..600).contains(&code.entry().http_status));
        }
        assert_eq!(Code::find("op.no_such_code"), None);
    }
}
