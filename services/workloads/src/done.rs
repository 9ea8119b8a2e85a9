//! What was done under a caller's key, in the same transaction as the doing.

use std::time::Duration;

use nimbus_bus::Key;
use nimbus_model::Timestamp;
use nimbus_store::{StoreError, Tx, both, execute, reading, sqlx};
use serde::Serialize;

use crate::error::WorkError;
use crate::works::Works;

/// The longest key.
const KEY: usize = 256;

/// A request with the key of its caller.
#[derive(Clone, Debug)]
pub(crate) struct Keyed {
    tenant: String,
    method: &'static str,
    key: String,
    request: String,
    /// How long it is known, where that is shorter than keys are kept.
    known_for: Option<Duration>,
}

/// What a key says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is new, and from now on taken for this outcome.
    New,
    /// It was done before, with this outcome.
    Done(String),
}

impl Keyed {
    /// The request `content` of `method` in `tenant`, if its caller has given a key.
    pub(crate) fn of<T: Serialize>(
        works: &Works,
        key: Option<&Key>,
        tenant: &str,
        method: &'static str,
        content: &T,
    ) -> Result<Option<Self>, WorkError> {
        let Some(key) = key else { return Ok(None) };
        if key.as_str().is_empty() || key.as_str().len() > KEY {
            return Err(WorkError::invalid(
                "Idempotency-Key",
                format!("it must have 1 to {KEY} characters"),
            ));
        }
        // Requests are plain data; what cannot be encoded could not have arrived.
        let bytes = zeroize::Zeroizing::new(postcard::to_stdvec(content).unwrap_or_default());
        Ok(Some(Self {
            tenant: tenant.to_owned(),
            method,
            key: key.as_str().to_owned(),
            request: works.signer.digest(&bytes),
            known_for: None,
        }))
    }

    pub(crate) fn known_for(mut self, span: Duration) -> Self {
        self.known_for = Some(span);
        self
    }

    /// Takes the key for `outcome`, or tells the outcome that it was taken for.
    pub(crate) async fn take(&self, tx: &mut Tx, outcome: &str, now: Timestamp) -> Result<Known, WorkError> {
        if let Some(span) = self.known_for {
            execute!(
                tx,
                sqlx::query(
                    "DELETE FROM workloads_done WHERE tenant = $1 AND method = $2 AND key = $3 AND at < $4"
                )
                .bind(&self.tenant)
                .bind(self.method)
                .bind(&self.key)
                .bind(now.before(span))
            )?;
        }
        let taken = execute!(
            tx,
            sqlx::query(
                "INSERT INTO workloads_done (tenant, method, key, request, outcome, at) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (tenant, method, key) DO NOTHING"
            )
            .bind(&self.tenant)
            .bind(self.method)
            .bind(&self.key)
            .bind(&self.request)
            .bind(outcome)
            .bind(now)
        )?;
        if taken == 1 {
            return Ok(Known::New);
        }
        let (request, outcome): (String, String) = both!(tx, |c| sqlx::query_as(
            "SELECT request, outcome FROM workloads_done WHERE tenant = $1 AND method = $2 AND key = $3"
        )
        .bind(&self.tenant)
        .bind(self.method)
        .bind(&self.key)
        .fetch_one(c)
        .await)?;
        if request == self.request {
            Ok(Known::Done(outcome))
        } else {
            Err(reused())
        }
    }
}

impl Works {
    /// Whether a request with this key was done before.
    pub(crate) async fn is_done(&self, keyed: &Keyed) -> Result<bool, WorkError> {
        let since = keyed
            .known_for
            .map_or(Timestamp::from_micros(0), |span| self.now().before(span));
        let found: Option<(String,)> = reading!(&self.store, |c| {
            sqlx::query_as(
            "SELECT request FROM workloads_done WHERE tenant = $1 AND method = $2 AND key = $3 AND at >= $4"
        )
        .bind(&keyed.tenant)
        .bind(keyed.method)
        .bind(&keyed.key)
        .bind(since)
        .fetch_optional(c)
        .await
        })?;
        match found {
            None => Ok(false),
            Some((request,)) if request == keyed.request => Ok(true),
            Some(_) => Err(reused()),
        }
    }
}

fn reused() -> WorkError {
    WorkError::conflict(
        "idempotency_key_reused",
        "the idempotency key was used for another request",
    )
}

/// Forgets keys from before `until`.
pub(crate) async fn forget(tx: &mut Tx, until: Timestamp) -> Result<u64, StoreError> {
    execute!(
        tx,
        sqlx::query("DELETE FROM workloads_done WHERE at < $1").bind(until)
    )
}
