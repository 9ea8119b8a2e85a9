//! The only way out of a sandbox: a proxy that knows one sandbox' allow list.
//!
//! A sandbox has no network. What its processes send to the proxy address inside is handed to the
//! agent by the guest, one stream per connection, and served here: HTTP/1.1 with absolute targets
//! (RFC 9112, section 3.2.2) for `http` rules, `CONNECT` (RFC 9110, section 9.3.6) for `https` and
//! `tcp` rules, and a plain tunnel per raw `tcp` rule. Whose rules apply follows from the stream, so
//! there is no credential that could leak.
//!
//! Names are resolved here and nowhere else; the address that was checked is the one that is dialled.

mod address;
mod http;
mod policy;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use nimbus_model::Clock;
use nimbus_proto::workloads::{Denial, EgressRule, Protocol};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

use policy::{Asked, Policy, Refusal};

/// How long a name may take to resolve, and each address to connect.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Finds the addresses of a name.
#[async_trait]
pub(crate) trait Resolve: Send + Sync {
    /// The addresses of `host`, the preferred one first.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the host's operating system.
pub(crate) struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// What takes note of refused connections.
pub(crate) type Audit = Arc<dyn Fn(Denial) + Send + Sync>;

/// The proxy of one sandbox.
#[derive(Clone)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    sandbox: String,
    policy: Policy,
    resolver: Arc<dyn Resolve>,
    audit: Audit,
    clock: Clock,
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("{host} cannot be resolved")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("{host}:{port} cannot be reached")]
    Connect {
        host: String,
        port: u16,
        #[source]
        source: io::Error,
    },
}

impl Proxy {
    /// The proxy of `sandbox` with these rules. `internal` are the networks that rules with
    /// `allowInternalIps` may mean.
    pub(crate) fn new(
        sandbox: String,
        rules: Vec<EgressRule>,
        internal: Vec<IpNet>,
        resolver: Arc<dyn Resolve>,
        audit: Audit,
        clock: Clock,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                sandbox,
                policy: Policy::new(rules, internal),
                resolver,
                audit,
                clock,
            }),
        }
    }

    /// Serves one connection to the proxy address until it ends.
    pub(crate) async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        http::serve(self.clone(), stream).await;
    }

    /// Carries one connection to the address that a raw `tcp` rule has inside.
    pub(crate) async fn tunnel<S>(&self, mut stream: S, rule: &str)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some((host, port)) = self.shared.policy.raw(rule) else {
            tracing::warn!(sandbox.id = %self.shared.sandbox, rule, "a connection for a rule that does not exist");
            return;
        };
        let asked = Asked {
            protocol: Protocol::Tcp,
            host,
            port,
            method: None,
            path: None,
        };
        match self.dial(&asked).await {
            Ok(mut upstream) => {
                // Either side may just go away; both ends are gone then.
                let _ = copy_bidirectional(&mut stream, &mut upstream).await;
            }
            Err(error) => {
                tracing::debug!(sandbox.id = %self.shared.sandbox, cause = %nimbus_errors::chain(&error), "a tunnel was not opened");
            }
        }
    }

    /// Decides, resolves, decides again on the addresses, and connects to one of them.
    async fn dial(&self, asked: &Asked) -> Result<TcpStream, DialError> {
        let shared = &self.shared;
        let candidates = shared
            .policy
            .candidates(asked)
            .map_err(|refusal| self.deny(asked, refusal))?;
        let addresses = match asked.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolve(&asked.host).await?,
        };
        let allowed = candidates
            .allowed(&addresses)
            .map_err(|refusal| self.deny(asked, refusal))?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in allowed {
            match timeout(
                DIAL_LIMIT,
                TcpStream::connect(SocketAddr::new(address, asked.port)),
            )
            .await
            {
                Ok(Ok(stream)) => {
                    // Small requests and answers are the rule; a failure only costs latency.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(elapsed) => last = io::Error::new(io::ErrorKind::TimedOut, elapsed),
            }
        }
        Err(DialError::Connect {
            host: asked.host.clone(),
            port: asked.port,
            source: last,
        })
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, DialError> {
        let failed = |source| DialError::Resolve {
            host: host.to_owned(),
            source,
        };
        match timeout(DIAL_LIMIT, self.shared.resolver.resolve(host)).await {
            Ok(found) => found.map_err(failed),
            Err(elapsed) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, elapsed))),
        }
    }

    fn deny(&self, asked: &Asked, refusal: Refusal) -> DialError {
        let shared = &self.shared;
        (shared.audit)(Denial {
            sandbox: shared.sandbox.clone(),
            at: shared.clock.now(),
            protocol: <&str>::from(asked.protocol).to_owned(),
            host: asked.host.clone(),
            port: asked.port,
            method: asked.method.clone(),
            path: asked.path.clone(),
            reason: refusal.to_string(),
        });
        DialError::Refused(refusal)
    }
}

#[cfg(test)]
mod tests;
