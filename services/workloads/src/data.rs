//! What reaches into running sandboxes: who may, and where it goes.
//!
//! Decided from memory, so that a command costs no read: the record of the sandbox, and of the
//! session or service it is reached through.

use std::sync::Arc;

use nimbus_bus::{Action, Caller, Identity, On};
use nimbus_errors::{Code, Fault};
use nimbus_guest::protocol::{Hello, Reply, Request};
use nimbus_model::Timestamp;
use nimbus_proto::agent::{self, AgentControl, AgentExec, AgentOpen, Lease};
use nimbus_proto::workloads::{
    Channel, ControlRequest, ExecReply, ExecRequest, OpenReply, OpenRequest, SessionRef, SessionState,
    Through, Wanted,
};

use crate::error::WorkError;
use crate::sandboxes::record::Record;
use crate::sessions;
use crate::sessions::open::ready;
use crate::sessions::row::SessionRow;
use crate::state;
use crate::works::{Works, audit};

/// The longest a collected command may run.
const EXEC_MS: u64 = 60_000;
/// The most that is kept of each output of one.
const EXEC_BYTES: u32 = 1 << 20;

/// What a sandbox is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Commands,
    Files,
    Ports,
    Browser,
    Logs,
}

impl Use {
    /// Whether a session carries it by `channel`.
    fn is_of(self, channel: Channel) -> bool {
        match self {
            Self::Commands | Self::Logs => channel == Channel::Stdio,
            Self::Files => channel == Channel::Files,
            Self::Browser => matches!(channel, Channel::Cdp | Channel::Page),
            Self::Ports => false,
        }
    }
}

/// A sandbox that may be reached.
struct Reached {
    record: Arc<Record>,
    lease: Option<Lease>,
    generation: u64,
    expires_at: Option<Timestamp>,
}

impl Works {
    pub(crate) async fn exec(&self, caller: &Caller, request: ExecRequest) -> Result<ExecReply, WorkError> {
        let reached = self
            .reach(&caller.identity, &request.through, Use::Commands)
            .await?;
        let mut command = request.command;
        command.timeout_ms = Some(command.timeout_ms.unwrap_or(EXEC_MS).clamp(1, EXEC_MS));
        audit(
            caller,
            "sandboxes.exec",
            reached.record.tenant(),
            reached.record.id(),
        );
        let order = AgentExec {
            sandbox: reached.record.id().to_owned(),
            lease: reached.lease,
            command,
            stdin: request.stdin,
            keep_bytes: request.keep_bytes.min(EXEC_BYTES),
        };
        self.bus
            .call::<agent::Exec>(&order)
            .at(&reached.record.host)
            .on_behalf_of(caller)
            .await
            .map_err(|fault| unreachable(&reached.record, fault))
    }

    pub(crate) async fn control(&self, caller: &Caller, request: ControlRequest) -> Result<Reply, WorkError> {
        let (purpose, writes) = match &request.request {
            Request::Ping | Request::Commands | Request::Stats | Request::MemoryKills => {
                (Use::Commands, None)
            }
            Request::Signal { .. } => (Use::Commands, Some("sandboxes.signal")),
            Request::Forget { .. } => (Use::Commands, Some("sandboxes.forget")),
            Request::Stat { .. } | Request::List { .. } => (Use::Files, None),
            Request::Mkdir { .. } => (Use::Files, Some("files.mkdir")),
            Request::Move { .. } => (Use::Files, Some("files.move")),
            Request::Remove { .. } => (Use::Files, Some("files.remove")),
            Request::Ports => (Use::Ports, None),
            Request::Claim(_) | Request::Shutdown => return Err(agents_own()),
        };
        let reached = self.reach(&caller.identity, &request.through, purpose).await?;
        if let Some(action) = writes {
            audit(caller, action, reached.record.tenant(), reached.record.id());
        }
        let order = AgentControl {
            sandbox: reached.record.id().to_owned(),
            request: request.request,
        };
        self.bus
            .call::<agent::Control>(&order)
            .at(&reached.record.host)
            .on_behalf_of(caller)
            .await
            .map_err(|fault| unreachable(&reached.record, fault))
    }

    pub(crate) async fn open(&self, caller: &Caller, request: OpenRequest) -> Result<OpenReply, WorkError> {
        let (purpose, action) = match &request.wanted {
            Wanted::Guest(Hello::Run { .. }) => (Use::Commands, "sandboxes.run"),
            Wanted::Guest(Hello::Attach { .. }) => (Use::Commands, "sandboxes.attach"),
            Wanted::Guest(Hello::ReadFile { .. }) => (Use::Files, "files.read"),
            Wanted::Guest(Hello::WriteFile { .. }) => (Use::Files, "files.write"),
            Wanted::Guest(Hello::TarOut { .. }) => (Use::Files, "files.archive"),
            Wanted::Guest(Hello::TarIn { .. }) => (Use::Files, "files.unpack"),
            Wanted::Guest(Hello::Connect { .. }) => (Use::Ports, "sandboxes.connect"),
            Wanted::Guest(Hello::Control | Hello::Egress) => return Err(agents_own()),
            Wanted::Logs { .. } => (Use::Logs, "sandboxes.logs"),
            Wanted::Browser => (Use::Browser, "sandboxes.browser"),
        };
        let reached = self.reach(&caller.identity, &request.through, purpose).await?;
        audit(caller, action, reached.record.tenant(), reached.record.id());
        self.open_at(reached, request, Some(caller)).await
    }

    /// A stream to a port through a preview link, which is the credential.
    pub(crate) async fn open_preview(&self, request: OpenRequest) -> Result<OpenReply, WorkError> {
        let Through::Preview { token } = &request.through else {
            return Err(WorkError::invalid(
                "through",
                "only a preview link needs no caller",
            ));
        };
        let preview = self.read_preview(token)?;
        match &request.wanted {
            Wanted::Guest(Hello::Connect { port }) if *port == preview.port => {}
            _ => {
                return Err(WorkError::Refused {
                    what: format!("the link is for port {} only", preview.port),
                });
            }
        }
        let record = self
            .find_sandbox(&preview.sandbox)
            .await?
            .ok_or(WorkError::BadToken { what: "link" })?;
        ready(&record, record.id())?;
        self.answers(&record)?;
        let reached = Reached {
            record,
            lease: None,
            generation: 1,
            expires_at: Some(preview.expires_at),
        };
        self.open_at(reached, request, None).await
    }

    async fn open_at(
        &self,
        reached: Reached,
        request: OpenRequest,
        caller: Option<&Caller>,
    ) -> Result<OpenReply, WorkError> {
        let order = AgentOpen {
            stream: request.stream,
            word: request.word,
            sandbox: reached.record.id().to_owned(),
            lease: reached.lease,
            wanted: request.wanted,
        };
        let mut call = self.bus.call::<agent::Open>(&order).at(&reached.record.host);
        if let Some(caller) = caller {
            call = call.on_behalf_of(caller);
        }
        let mut reply = call.await.map_err(|fault| unreachable(&reached.record, fault))?;
        reply.target_generation = reached.generation;
        reply.expires_at = reached.expires_at;
        Ok(reply)
    }

    /// Refuses at once where waiting would be all that happens.
    fn answers(&self, record: &Record) -> Result<(), WorkError> {
        if self.is_away(&record.host) {
            let fault = Fault::new(Code::ServiceUnavailable, "the host is silent");
            return Err(unreachable(record, fault));
        }
        Ok(())
    }

    async fn reach(
        &self,
        identity: &Identity,
        through: &Through,
        purpose: Use,
    ) -> Result<Reached, WorkError> {
        let reached = match through {
            Through::Sandbox { tenant, id } => {
                let tenant = self.tenant(identity, tenant).await?;
                let action = match purpose {
                    Use::Logs => Action::SandboxesGet,
                    _ => Action::SandboxesExec,
                };
                Reached {
                    record: self.sandbox_for(identity, action, &tenant, id).await?,
                    lease: None,
                    generation: 1,
                    expires_at: None,
                }
            }
            Through::Service { tenant, name } => self.reach_service(identity, tenant, name, purpose).await?,
            Through::Session { id, tenant, channel } => {
                let of = SessionRef {
                    tenant: tenant.clone(),
                    id: id.clone(),
                };
                self.reach_session(identity, &of, *channel, purpose).await?
            }
            Through::Preview { .. } => {
                return Err(WorkError::invalid(
                    "through",
                    "a preview link is for its own port only",
                ));
            }
        };
        if purpose != Use::Logs {
            ready(&reached.record, reached.record.id())?;
        }
        self.answers(&reached.record)?;
        Ok(reached)
    }

    async fn reach_service(
        &self,
        identity: &Identity,
        tenant: &str,
        name: &str,
        purpose: Use,
    ) -> Result<Reached, WorkError> {
        let tenant = self.tenant(identity, tenant).await?;
        let action = match purpose {
            Use::Logs => Action::ServicesInspect,
            _ => Action::SandboxesExec,
        };
        crate::works::allow(identity, action, &tenant, On::service(name))?;
        let row = self
            .kept_service(&tenant.id, name)
            .await?
            .ok_or_else(|| WorkError::no_service(&tenant.id, name))?;
        let record = match &row.sandbox {
            Some(id) => self.find_sandbox(id).await?,
            None => None,
        };
        let record = record
            .ok_or_else(|| WorkError::conflict("not_ready", format!("the service {name} does not run")))?;
        Ok(Reached {
            record,
            lease: None,
            generation: row.generation,
            expires_at: None,
        })
    }

    async fn reach_session(
        &self,
        identity: &Identity,
        of: &SessionRef,
        channel: Channel,
        purpose: Use,
    ) -> Result<Reached, WorkError> {
        let (row, tenant) = self.session_for(identity, Action::SessionsOpen, of).await?;
        let word: &'static str = channel.into();
        if !identity.allows(
            Action::SessionsOpen,
            tenant.tenancy(),
            sessions::on(&row).through(word),
        ) {
            return Err(WorkError::Denied {
                action: Action::SessionsOpen,
            });
        }
        let state = state::session(row.state, row.expires_at, self.now());
        if state != SessionState::Open {
            return Err(WorkError::conflict(
                "session_over",
                format!("the session is {}", <&'static str>::from(state)),
            ));
        }
        if !row.body.channels.contains(&channel) {
            return Err(WorkError::invalid(
                "channel",
                format!("the session was not opened with {word}"),
            ));
        }
        if !purpose.is_of(channel) {
            return Err(WorkError::invalid(
                "channel",
                format!("{word} does not carry this"),
            ));
        }
        self.unchanged(&row).await?;
        let record = self
            .find_sandbox(&row.sandbox)
            .await?
            .ok_or_else(|| WorkError::no_sandbox(&row.tenant, &row.sandbox))?;
        Ok(Reached {
            record,
            lease: Some(Lease {
                session: row.id.clone(),
                expires_at: row.expires_at,
            }),
            generation: row.generation(),
            expires_at: Some(row.expires_at),
        })
    }

    /// Whether the service of a session has the definition that it was opened on.
    async fn unchanged(&self, session: &SessionRow) -> Result<(), WorkError> {
        let Some(name) = session.service() else {
            return Ok(());
        };
        let now = self.kept_service(&session.tenant, name).await?;
        if now.is_some_and(|row| row.generation == session.generation()) {
            Ok(())
        } else {
            Err(WorkError::conflict(
                "target_changed",
                format!("the service {name} has another definition now; open a new session"),
            ))
        }
    }
}

/// The refusal of what only agents say to a guest.
fn agents_own() -> WorkError {
    WorkError::Refused {
        what: "only the host's agent may say this to a sandbox".to_owned(),
    }
}

/// A fault of the way to a host, in words that say so.
fn unreachable(record: &Record, fault: Fault) -> WorkError {
    if fault.is(Code::ServiceUnavailable) {
        let fault = Fault::new(
            Code::ServiceUnavailable,
            format!("the host of {} does not answer now; try again", record.id()),
        )
        .with_detail(&serde_json::json!({ "host": record.host.as_str() }));
        return WorkError::Host { fault };
    }
    WorkError::Host { fault }
}
