//! Preview links: a signed word that leads to one port of one sandbox until it ends.

use std::time::Duration;

use nimbus_bus::{Action, Caller};
use nimbus_guest::protocol::PROXY_PORT;
use nimbus_model::Timestamp;
use nimbus_proto::Secret;
use nimbus_proto::workloads::{PreviewReply, PreviewRequest};

use crate::error::WorkError;
use crate::works::{Works, audit};

const LIFETIME: Duration = Duration::from_secs(15 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// What this form of the content is called; a word of another use does not pass for a link.
const FORM: &str = "preview/1";

/// What a link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preview {
    pub(crate) sandbox: String,
    pub(crate) port: u16,
    pub(crate) expires_at: Timestamp,
}

impl Works {
    pub(crate) async fn create_preview(
        &self,
        caller: &Caller,
        request: &PreviewRequest,
    ) -> Result<PreviewReply, WorkError> {
        let tenant = self.tenant(&caller.identity, &request.tenant).await?;
        let record = self
            .sandbox_for(&caller.identity, Action::SandboxesExec, &tenant, &request.sandbox)
            .await?;
        if request.port == 0 || request.port == PROXY_PORT {
            return Err(WorkError::invalid(
                "port",
                format!("it must be within 1 and 65535 and not {PROXY_PORT}, the way out"),
            ));
        }
        let ttl = match request.ttl_ms {
            None => LIFETIME,
            Some(0) => return Err(WorkError::invalid("ttlMs", "it must be at least 1")),
            Some(ms) => Duration::from_millis(ms).min(LONGEST),
        };
        if !record.charged {
            return Err(WorkError::Conflict {
                reason: "not_running",
                why: format!("{} has ended", request.sandbox),
                lifecycle: Some(record.shown.status.lifecycle),
            });
        }
        let expires_at = self.now().after(ttl);
        let content = (FORM, record.id(), request.port, expires_at.micros());
        // A tuple of plain values always encodes.
        let content = postcard::to_stdvec(&content).unwrap_or_default();
        audit(caller, "sandboxes.preview", &request.tenant, &request.sandbox);
        Ok(PreviewReply {
            token: Secret::new(self.signer.sign(&content)),
            expires_at,
        })
    }

    /// What a link leads to, if it was made here and its time is not over.
    pub(crate) fn read_preview(&self, token: &Secret) -> Result<Preview, WorkError> {
        let bad = || WorkError::BadToken { what: "link" };
        let content = self.signer.open_signed(token.reveal()).ok_or_else(bad)?;
        let (form, sandbox, port, until): (String, String, u16, i64) =
            postcard::from_bytes(&content).map_err(|_| bad())?;
        let expires_at = Timestamp::from_micros(until);
        if form != FORM || self.now() >= expires_at {
            return Err(bad());
        }
        Ok(Preview {
            sandbox,
            port,
            expires_at,
        })
    }
}
