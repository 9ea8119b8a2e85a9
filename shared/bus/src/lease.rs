//! Leases: who does what only one may do at a time.
//!
//! A lease is an entry of the key-value bucket `leases` that the server removes when its time is up.
//! It is taken by creating the entry and renewed by replacing exactly the one that was written last,
//! so of two that try, one is told so. The holder counts its time from *before* it asked, the server
//! from after: the holder always stops first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::bus::Bus;
use crate::error::BusError;
use crate::exchange::{Question, Repeat};
use crate::header;
use crate::jetstream::{LEASES, LEASES_STREAM, STORAGE_LIMIT, Stored, WRONG_LAST_SEQUENCE};

/// The server counts in whole seconds.
const SHORTEST: Duration = Duration::from_secs(1);

/// A lease that is held, until it is lost, released or dropped and run out.
#[derive(Debug)]
pub struct Lease {
    bus: Bus,
    name: String,
    holder: String,
    ttl: Duration,
    held: Arc<Mutex<Held>>,
    lost: CancellationToken,
}

#[derive(Debug)]
struct Held {
    revision: u64,
    until: Instant,
}

/// What stands in the entry, for people and for recognising our own.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    holder: String,
    client: String,
}

/// The entry as it was found.
struct Found {
    revision: u64,
    /// `None`: it was released.
    holder: Option<String>,
}

impl Bus {
    /// Takes the lease `name` for `ttl` if nobody has it. The name begins with this client's own
    /// name and a dot; the shortest time is one second.
    ///
    /// # Errors
    /// A bus that stays away, or a credential without the right.
    pub async fn lease(&self, name: &str, ttl: Duration) -> Result<Option<Lease>, BusError> {
        self.ensure_leases().await?;
        let ttl = Duration::from_secs(ttl.max(SHORTEST).as_secs());
        let holder = uuid::Uuid::new_v4().simple().to_string();
        let mut expected = 0;
        // A second try where the first found a released entry, a third where that ran out meanwhile.
        for _ in 0..3 {
            let asked = Instant::now();
            let written = self
                .write_lease(name, &holder, ttl, expected, STORAGE_LIMIT)
                .await;
            let revision = match written {
                Ok(revision) => revision,
                Err(BusError::Storage {
                    code: WRONG_LAST_SEQUENCE,
                    ..
                }) => match self.find_lease(name).await? {
                    None => {
                        expected = 0;
                        continue;
                    }
                    Some(Found {
                        revision,
                        holder: None,
                    }) => {
                        expected = revision;
                        continue;
                    }
                    // Ours: the answer to an earlier try was lost.
                    Some(Found {
                        revision,
                        holder: Some(found),
                    }) if found == holder => revision,
                    Some(_) => return Ok(None),
                },
                Err(error) => return Err(error),
            };
            debug!(lease = name, revision, "took the lease {name}");
            let held = Arc::new(Mutex::new(Held {
                revision,
                until: asked + ttl,
            }));
            let lost = CancellationToken::new();
            tokio::spawn(watch(name.to_owned(), Arc::clone(&held), lost.clone()));
            return Ok(Some(Lease {
                bus: self.clone(),
                name: name.to_owned(),
                holder,
                ttl,
                held,
                lost,
            }));
        }
        Ok(None)
    }

    async fn write_lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        expected: u64,
        limit: Duration,
    ) -> Result<u64, BusError> {
        let subject = subject(name);
        let entry = Entry {
            holder: holder.to_owned(),
            client: self.name().to_owned(),
        };
        let body = serde_json::to_vec(&entry).map_err(|source| BusError::Encode {
            subject: subject.clone(),
            source: Box::new(source),
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(header::EXPECTED_SUBJECT_SEQUENCE, expected.to_string());
        headers.insert(header::TTL, ttl.as_secs().to_string());
        Ok(self
            .stored::<Stored>(&subject, headers, Bytes::from(body), limit)
            .await?
            .sequence)
    }

    async fn find_lease(&self, name: &str) -> Result<Option<Found>, BusError> {
        let subject = format!("$JS.API.DIRECT.GET.{LEASES_STREAM}.{}", subject(name));
        let question = Question {
            subject: subject.as_str().into(),
            headers: HeaderMap::new(),
            payload: Bytes::new(),
            repeat: Repeat::Harmless,
            limit: STORAGE_LIMIT,
        };
        let message = self.ask(&question).await?;
        if message.status.is_some() {
            return Ok(None);
        }
        let headers = message.headers.as_ref();
        let revision = header::text(headers, header::SEQUENCE)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| BusError::Decode {
                subject: subject.clone(),
                source: "the entry has no sequence".into(),
            })?;
        let gone = header::text(headers, header::KV_OPERATION)
            .or_else(|| header::text(headers, header::MARKER_REASON));
        let holder = match gone {
            Some(_) => None,
            None => serde_json::from_slice::<Entry>(&message.payload)
                .ok()
                .map(|entry| entry.holder),
        };
        Ok(Some(Found { revision, holder }))
    }
}

impl Lease {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number that grows with every taking and renewal, in this or another process: what carries
    /// a smaller one comes from a holder that has lost the lease.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).revision
    }

    /// Cancelled when the lease is no longer ours: its time is up, or it was taken over.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives it a full time to live from now.
    ///
    /// # Errors
    /// A lease that is lost, or a bus that does not answer while there is time; then try again.
    pub async fn renew(&self) -> Result<(), BusError> {
        let (revision, until) = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            (held.revision, held.until)
        };
        let asked = Instant::now();
        let limit = until.saturating_duration_since(asked).min(self.ttl / 3);
        if limit.is_zero() || self.lost.is_cancelled() {
            self.lost.cancel();
            return Err(self.gone());
        }
        let revision = match self
            .bus
            .write_lease(&self.name, &self.holder, self.ttl, revision, limit)
            .await
        {
            Ok(revision) => revision,
            Err(BusError::Storage {
                code: WRONG_LAST_SEQUENCE,
                ..
            }) => match self.bus.find_lease(&self.name).await? {
                // The answer to an earlier renewal was lost.
                Some(Found {
                    revision,
                    holder: Some(holder),
                }) if holder == self.holder => revision,
                _ => {
                    self.lost.cancel();
                    return Err(self.gone());
                }
            },
            Err(error) => return Err(error),
        };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Held {
            revision,
            until: asked + self.ttl,
        };
        Ok(())
    }

    /// Gives it back, so that the next one need not wait for its end.
    pub async fn release(self) {
        self.lost.cancel();
        let revision = self.fence();
        let mut headers = HeaderMap::new();
        headers.insert(header::KV_OPERATION, "DEL");
        headers.insert(header::EXPECTED_SUBJECT_SEQUENCE, revision.to_string());
        headers.insert(header::TTL, self.ttl.as_secs().to_string());
        let released = self
            .bus
            .stored::<Stored>(
                &subject(&self.name),
                headers,
                Bytes::new(),
                self.ttl.min(STORAGE_LIMIT),
            )
            .await;
        if let Err(error) = released {
            info!(
                lease = self.name,
                "the lease {} runs out instead of being given back: {error}", self.name
            );
        }
    }

    fn gone(&self) -> BusError {
        BusError::Storage {
            subject: subject(&self.name),
            code: WRONG_LAST_SEQUENCE,
            description: "the lease is held no more".to_owned(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

/// The name of the client that holds the lease of this entry; `None` when it was released.
pub(crate) fn holder_client(entry: &async_nats::Message) -> Option<String> {
    let headers = entry.headers.as_ref();
    let gone =
        header::text(headers, header::KV_OPERATION).or_else(|| header::text(headers, header::MARKER_REASON));
    if entry.status.is_some() || gone.is_some() {
        return None;
    }
    let entry: Entry = serde_json::from_slice(&entry.payload).ok()?;
    Some(entry.client)
}

/// The entry's subject.
pub(crate) fn subject(name: &str) -> String {
    format!("$KV.{LEASES}.{name}")
}

/// Declares the lease lost when its time is up.
async fn watch(name: String, held: Arc<Mutex<Held>>, lost: CancellationToken) {
    loop {
        let until = held.lock().unwrap_or_else(PoisonError::into_inner).until;
        tokio::select! {
            () = lost.cancelled() => return,
            () = tokio::time::sleep_until(until) => {}
        }
        if held.lock().unwrap_or_else(PoisonError::into_inner).until <= Instant::now() {
            info!(lease = name, "the lease {name} has run out");
            lost.cancel();
            return;
        }
    }
}
