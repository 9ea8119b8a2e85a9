//! The connection of one service or client.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, ReconnectToServer, Server, ServerAddr, ServerInfo, Subject};
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use camino::Utf8PathBuf;
use futures::StreamExt;
use nimbus_model::{Clock, Hostname};
use secrecy::ExposeSecret;

use crate::call::Call;
use crate::caller::Verify;
use crate::credential::Credential;
use crate::error::BusError;
use crate::exchange::{Question, exchange};
use crate::link::Link;
use crate::method::Method;
use crate::serve::{AGENT, Serve};

/// How long a first connection is tried before it fails: a server that starts beside us may be later.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest pause between attempts to get a lost connection back.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// A server that is silent for three of these is taken for dead, and the next one is tried. That is how
/// long a server whose packets vanish holds up those connected to it: nothing else tells them.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long one server may take to let us in before the next one is tried.
const CONNECTION_LIMIT: Duration = Duration::from_secs(3);
/// How long a message to ourselves may take.
const PROOF_LIMIT: Duration = Duration::from_secs(5);

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// One server or several, separated by commas: `nats://127.0.0.1:4222`, `tls://bus.example:4222`.
    pub url: String,
    /// The service or client; with a credential, the name it was minted for, because the inbox hangs on it.
    pub name: String,
    /// What proves the name; none for a server without accounts.
    pub credential: Option<Credential>,
    /// PEM file with the authority of the server's certificate; given, TLS is required.
    pub ca_file: Option<Utf8PathBuf>,
    /// The clock that deadlines are told by.
    pub clock: Clock,
}

/// A connection to the bus. Clones share it.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
    pub(crate) verifier: Option<Arc<dyn Verify>>,
}

pub(crate) struct Inner {
    pub client: Client,
    pub link: Arc<Link>,
    pub clock: Clock,
    pub name: String,
    /// Streams and consumers that this process has already made sure of.
    pub ensured: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

impl Bus {
    /// Connects, trying for ten seconds, and makes sure that answers reach us.
    ///
    /// Afterwards a lost connection is made again for as long as the process lives.
    ///
    /// # Errors
    /// An address or name that cannot be; no server; a credential that the server does not take, or
    /// that does not allow this name's inbox.
    pub async fn connect(options: ConnectOptions) -> Result<Self, BusError> {
        let ConnectOptions {
            url,
            name,
            credential,
            ca_file,
            clock,
        } = options;
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            return Err(BusError::Invalid {
                text: name,
                wanted: "a name on the bus: letters, digits, '-' and '_'",
            });
        }
        let servers = url
            .split(',')
            .map(|one| one.trim().parse::<ServerAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| BusError::Invalid {
                text: redacted(&url),
                wanted: "the address of a NATS server, such as nats://127.0.0.1:4222",
            })?;
        let link = Arc::new(Link::new(&name));
        let options = client_options(&name, credential.as_ref(), ca_file, &link)?;
        let connect = || async { options.clone().connect(servers.as_slice()).await };
        let client = connect
            .retry(
                ExponentialBuilder::default()
                    .with_jitter()
                    .with_min_delay(Duration::from_millis(20))
                    .with_max_delay(Duration::from_secs(1))
                    .with_total_delay(Some(CONNECT_LIMIT))
                    .without_max_times(),
            )
            .when(|error| {
                !matches!(
                    error.kind(),
                    async_nats::ConnectErrorKind::AuthorizationViolation
                        | async_nats::ConnectErrorKind::Authentication
                        | async_nats::ConnectErrorKind::Tls
                )
            })
            .await
            .map_err(|source| BusError::Connect {
                name: name.clone(),
                source: Box::new(source),
            })?;
        let bus = Self {
            inner: Arc::new(Inner {
                client,
                link,
                clock,
                name,
                ensured: Mutex::default(),
            }),
            verifier: None,
        };
        bus.prove_live().await?;
        Ok(bus)
    }

    /// The same connection with something that tells who a request is made for.
    #[must_use]
    pub fn with_verifier(&self, verifier: Arc<dyn Verify>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            verifier: Some(verifier),
        }
    }

    /// Calls a method. Await what this returns.
    ///
    /// ```no_run
    /// # use nimbus_bus::{Bus, Key, Method};
    /// # use nimbus_errors::Fault;
    /// async fn ask<M: Method>(bus: &Bus, request: &M::Request) -> Result<M::Reply, Fault> {
    ///     bus.call::<M>(request).key(Key::of("vm_1")).await
    /// }
    /// ```
    pub fn call<M: Method>(&self, request: &M::Request) -> Call<M> {
        Call::new(self.clone(), request)
    }

    /// Begins to describe a service; its methods go live with [`Serve::start`].
    ///
    /// `version` is a semantic version, `description` one sentence; both show in discovery.
    pub fn serve(&self, name: &'static str, version: &'static str, description: &'static str) -> Serve {
        Serve::new(self.clone(), name, version, description, None)
    }

    /// Begins to describe the agent of `host`, which answers methods of [`Place::Host`](crate::Place).
    ///
    /// In discovery every agent is called `agent`; the subjects of its methods tell the host.
    pub fn serve_host(&self, host: &Hostname, version: &'static str, description: &'static str) -> Serve {
        Serve::new(self.clone(), AGENT, version, description, Some(host.clone()))
    }

    /// The name this connection was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The clock that deadlines are told by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Whether the connection is up now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.link.now().connected
    }

    /// How many messages were dropped because this process did not keep up.
    #[must_use]
    pub fn slow_consumers(&self) -> u64 {
        self.inner.link.slow_consumers()
    }

    /// The client underneath, for subjects that have no type here: raw byte channels, logs.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Closes the connection after what was sent is out and what came in is handled.
    pub async fn close(&self) {
        // Fails only when it is closed already.
        let _ = self.inner.client.flush().await;
        let _ = self.inner.client.drain().await;
    }

    pub(crate) async fn ask(&self, question: &Question) -> Result<Message, BusError> {
        exchange(&self.inner.client, &self.inner.link, &self.inner.name, question).await
    }

    /// Sends without waiting for anything.
    pub(crate) async fn send(
        &self,
        subject: Subject,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), BusError> {
        let size = payload.len();
        #[expect(clippy::disallowed_methods, reason = "this is the place the rule points to")]
        let sent = match headers {
            Some(headers) => {
                self.inner
                    .client
                    .publish_with_headers(subject.clone(), headers, payload)
                    .await
            }
            None => self.inner.client.publish(subject.clone(), payload).await,
        };
        sent.map_err(|error| match error.kind() {
            async_nats::PublishErrorKind::MaxPayloadExceeded => BusError::TooLarge {
                subject: subject.to_string(),
                size,
                limit: self.inner.client.max_payload(),
            },
            async_nats::PublishErrorKind::InvalidSubject => BusError::Invalid {
                text: subject.to_string(),
                wanted: "a subject",
            },
            async_nats::PublishErrorKind::Send => BusError::Closed,
        })
    }

    /// Waits for a message to ourselves: when it is here, the server has taken every subscription
    /// made before it. The client's own flush only empties the client's buffer.
    pub(crate) async fn prove_live(&self) -> Result<(), BusError> {
        let inbox = self.inner.client.new_inbox();
        let seen = self.inner.link.now().refusals;
        let mut state = self.inner.link.watch();
        let mut subscription = self
            .inner
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|_| BusError::Closed)?;
        let refused = || self.inner.link.refused_since(seen, &inbox);
        let proof = async {
            // Twice: refusals reach us over another path, and the second round trip lets them be first.
            for _ in 0..2 {
                self.send(inbox.as_str().into(), None, Bytes::new()).await?;
                loop {
                    tokio::select! {
                        message = subscription.next() => match message {
                            Some(_) => break,
                            None => return Err(BusError::Closed),
                        },
                        changed = state.changed() => {
                            changed.map_err(|_| BusError::Closed)?;
                            if refused() {
                                return Err(BusError::Permission { name: self.inner.name.clone(), subject: inbox.clone() });
                            }
                        }
                    }
                }
            }
            Ok(())
        };
        match tokio::time::timeout(PROOF_LIMIT, proof).await {
            Ok(outcome) => outcome,
            Err(_) => Err(BusError::Timeout {
                subject: inbox,
                limit_ms: PROOF_LIMIT.as_millis(),
            }),
        }
    }
}

fn client_options(
    name: &str,
    credential: Option<&Credential>,
    ca_file: Option<Utf8PathBuf>,
    link: &Arc<Link>,
) -> Result<async_nats::ConnectOptions, BusError> {
    let mut options = async_nats::ConnectOptions::new();
    if let Some(credential) = credential {
        let key =
            nkeys::KeyPair::from_seed(credential.seed.expose_secret()).map_err(|_| BusError::Identity {
                what: "the user seed",
                place: format!("the credential of {name}"),
            })?;
        let key = Arc::new(key);
        options = async_nats::ConnectOptions::with_jwt(credential.jwt.clone(), move |nonce| {
            let key = Arc::clone(&key);
            async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
        });
    }
    if let Some(ca_file) = ca_file {
        options = options
            .add_root_certificates(ca_file.into_std_path_buf())
            .require_tls(true);
    }
    let link = Arc::clone(link);
    Ok(options
        .name(name)
        .custom_inbox_prefix(inbox_prefix(name))
        .request_timeout(None)
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECTION_LIMIT)
        .reconnect_to_server_callback(|servers, lost| std::future::ready(elsewhere(&servers, &lost)))
        .reconnect_delay_callback(|attempts| {
            let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
            RECONNECT_PAUSE.min(Duration::from_millis(2_u64.saturating_pow(exponent)))
        })
        .event_callback(move |event| {
            link.on(&event);
            std::future::ready(())
        }))
}

/// Where to go from a server that was lost: to another first. The lost one may be silent still, and
/// then it costs the whole time of an attempt to find out again.
fn elsewhere(servers: &[Server], lost: &ServerInfo) -> Option<ReconnectToServer> {
    if lost.host.is_empty() {
        // The first connection: the client's own order.
        return None;
    }
    // Of those that are as good as each other any, so that not all of us go to the same one.
    let order = RandomState::new();
    let best = servers.iter().min_by_key(|one| {
        let was_lost = one.addr.host() == lost.host && one.addr.port() == lost.port;
        (
            one.failed_attempts,
            was_lost,
            order.hash_one(one.addr.as_url_str()),
        )
    })?;
    Some(ReconnectToServer {
        addr: best.addr.clone(),
        delay: None,
    })
}

/// What the subjects of answers to `name` begin with: its own, so that nobody reads another's answers.
pub(crate) fn inbox_prefix(name: &str) -> String {
    format!("_INBOX_{name}")
}

/// The address without a password that may stand in it.
fn redacted(url: &str) -> String {
    url.split(',')
        .map(|one| match (one.split_once("://"), one.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
            (None, Some((_, host))) => format!("***@{host}"),
            (_, None) => one.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_does_not_reach_an_error() {
        assert_eq!(
            redacted("nats://me:secret@host:4222,tls://other:1"),
            "nats://***@host:4222,tls://other:1"
        );
    }

    #[test]
    fn a_lost_server_is_tried_after_the_others() {
        let server = |name: &str, failed_attempts| Server {
            addr: format!("tls://{name}:4222").parse().unwrap(),
            failed_attempts,
            did_connect: true,
            is_discovered: false,
            last_error: None,
        };
        let lost = ServerInfo {
            host: "nats-2".to_owned(),
            port: 4222,
            ..ServerInfo::default()
        };
        let next = |servers: &[Server]| elsewhere(servers, &lost).map(|to| to.addr.host().to_owned());
        for _ in 0..20 {
            let first = next(&[server("nats", 0), server("nats-2", 0), server("nats-3", 0)]);
            assert!(matches!(first.as_deref(), Some("nats" | "nats-3")), "{first:?}");
        }
        let second = next(&[server("nats", 1), server("nats-2", 0), server("nats-3", 0)]);
        assert_eq!(second.as_deref(), Some("nats-3"));
        let third = next(&[server("nats", 1), server("nats-2", 0), server("nats-3", 1)]);
        assert_eq!(third.as_deref(), Some("nats-2"));
        assert_eq!(next(&[server("nats-2", 3)]).as_deref(), Some("nats-2"));
        assert!(elsewhere(&[server("nats", 0)], &ServerInfo::default()).is_none());
    }
}
