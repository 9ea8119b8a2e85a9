//! Tickets: a credential for one WebSocket of a session, for browsers, which cannot send headers there.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nimbus_bus::{Action, Caller};
use nimbus_model::Timestamp;
use nimbus_proto::Secret;
use nimbus_proto::workloads::{Redeemed, SessionRef, SessionState, TicketReply};
use nimbus_store::{StoreError, Tx, both, execute, sqlx};
use sha2::{Digest, Sha256};

use crate::error::WorkError;
use crate::state;
use crate::works::{Works, audit};

const LIFETIME: Duration = Duration::from_secs(60);

impl Works {
    pub(crate) async fn create_ticket(
        &self,
        caller: &Caller,
        of: &SessionRef,
    ) -> Result<TicketReply, WorkError> {
        let (row, _) = self
            .session_for(&caller.identity, Action::SessionsOpen, of)
            .await?;
        let now = self.now();
        let state = state::session(row.state, row.expires_at, now);
        if state != SessionState::Open {
            return Err(WorkError::conflict(
                "session_over",
                format!("the session is {}", <&'static str>::from(state)),
            ));
        }
        let ticket = format!("nimbus_wt_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let hash = digest(&ticket);
        let token = self
            .sealer
            .seal(caller.token.reveal().as_bytes(), &associated(&hash))?;
        let expires_at = now.after(LIFETIME).min(row.expires_at);
        let session = row.id.clone();
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(
                        tx,
                        sqlx::query("INSERT INTO workloads_ticket (hash, session, token, expires_at) VALUES ($1, $2, $3, $4)")
                            .bind(hash)
                            .bind(session)
                            .bind(token)
                            .bind(expires_at)
                    )
                })
            })
            .await?;
        audit(caller, "sessions.ticket", &row.tenant, &row.id);
        Ok(TicketReply {
            ticket: Secret::new(ticket),
            expires_at,
        })
    }

    /// Uses up a ticket: of two that try, one gets it.
    pub(crate) async fn redeem_ticket(&self, ticket: &Secret) -> Result<Redeemed, WorkError> {
        let bad = || WorkError::BadToken { what: "ticket" };
        let hash = digest(ticket.reveal());
        let wanted = hash.clone();
        let found: Option<(String, String, Timestamp)> = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    both!(tx, |c| sqlx::query_as(
                        "DELETE FROM workloads_ticket WHERE hash = $1 RETURNING session, token, expires_at"
                    )
                    .bind(wanted)
                    .fetch_optional(c)
                    .await)
                })
            })
            .await?;
        let (session, token, expires_at) = found.ok_or_else(bad)?;
        if self.now() >= expires_at {
            return Err(bad());
        }
        let token = self.sealer.open(&token, &associated(&hash))?;
        let token = std::str::from_utf8(&token).map_err(|_| bad())?;
        Ok(Redeemed {
            access_token: Secret::new(token),
            session,
        })
    }
}

fn digest(ticket: &str) -> String {
    hex::encode(Sha256::digest(ticket))
}

fn associated(hash: &str) -> String {
    format!("workloads_ticket/{hash}")
}

/// Forgets tickets that are over.
pub(crate) async fn forget(tx: &mut Tx, now: Timestamp) -> Result<u64, StoreError> {
    execute!(
        tx,
        sqlx::query("DELETE FROM workloads_ticket WHERE expires_at <= $1").bind(now)
    )
}
