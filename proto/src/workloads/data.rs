//! What reaches into a running sandbox: commands, files, streams, previews.

use nimbus_bus::StreamId;
use nimbus_guest::protocol::{CommandSpec, Hello, Reply, Request};
use nimbus_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::Channel;
use crate::{Secret, method, sample};

/// Through what a caller reaches a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Through {
    /// Straight to a sandbox of a tenant.
    Sandbox {
        /// The tenant.
        tenant: String,
        /// The sandbox' id.
        id: String,
    },
    /// By the lease of a session, which must be open and carry the channel.
    Session {
        /// The session's id.
        id: String,
        /// The tenant, as a hint.
        tenant: Option<String>,
        /// What is used of it.
        channel: Channel,
    },
    /// To the sandbox behind a service.
    Service {
        /// The tenant.
        tenant: String,
        /// The service's name.
        name: String,
    },
    /// By a preview link's token; nobody needs to be signed in.
    Preview {
        /// The token.
        token: Secret,
    },
}

/// Runs a command and collects what it writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Where.
    pub through: Through,
    /// What; its id makes a repeat harmless.
    pub command: CommandSpec,
    /// What it reads; its input then ends.
    pub stdin: Vec<u8>,
    /// At most so many bytes of each output are kept.
    pub keep_bytes: u32,
}

/// A collected command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReply {
    /// The command's id.
    pub command: String,
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was ended for its time.
    pub timed_out: bool,
    /// The first bytes of its output.
    pub stdout: Vec<u8>,
    /// The first bytes of its error output.
    pub stderr: Vec<u8>,
    /// Whether more was written than is here.
    pub truncated: bool,
}

/// One question to the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlRequest {
    /// Where.
    pub through: Through,
    /// What.
    pub request: Request,
}

/// What a stream carries once it is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Wanted {
    /// The guest's protocol, begun with this.
    Guest(Hello),
    /// Lines of the main process' log, as newline-delimited JSON `{"ts","stream","data","encoding"?}`.
    Logs {
        /// At most so many of the last lines.
        tail: Option<u32>,
        /// Only lines from then on.
        since: Option<Timestamp>,
        /// Whether to go on with lines to come.
        follow: bool,
    },
    /// The browser's `DevTools` endpoint: HTTP and WebSocket in clear text. Only on profile `desktop`.
    Browser,
}

/// Opens a byte stream to a sandbox. The caller has subscribed to its end of `stream` before it asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The stream's id, chosen by the caller.
    pub stream: StreamId,
    /// The stream's channel word, a part of its subjects.
    pub word: String,
    /// Where.
    pub through: Through,
    /// What.
    pub wanted: Wanted,
}

/// A stream is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReply {
    /// The sandbox it leads to.
    pub sandbox: String,
    /// The generation of the target that was opened.
    pub target_generation: u64,
    /// The guest's answer to the hello, as its postcard bytes; empty for other streams.
    pub hello: Vec<u8>,
    /// When a session's lease ends it.
    pub expires_at: Option<Timestamp>,
}

/// Makes a link to a port of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewRequest {
    /// The tenant.
    pub tenant: String,
    /// The sandbox.
    pub sandbox: String,
    /// The port inside.
    pub port: u16,
    /// How long it works, in milliseconds; 15 minutes when it is left out, at most 24 hours.
    pub ttl_ms: Option<u64>,
}

/// A link's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewReply {
    /// Names sandbox, port and end, signed.
    pub token: Secret,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// Makes a ticket: a credential for one WebSocket, used once, within 60 seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketReply {
    /// The ticket.
    pub ticket: Secret,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// What a ticket stood for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeemed {
    /// An access token of the ticket's maker.
    pub access_token: Secret,
    /// The session it is good for.
    pub session: String,
}

fn through() -> Through {
    Through::Sandbox {
        tenant: "demo".into(),
        id: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".into(),
    }
}

method!(/// Runs a command and collects what it writes.
    Exec = workloads.exec, 70000 ms, SameKey, User, ExecRequest => ExecReply,
    samples ExecRequest { through: through(), command: CommandSpec::new("c1", ["true"]), stdin: vec![], keep_bytes: 1 << 20 }
        => ExecReply { command: "c1".into(), code: Some(0), signal: None, timed_out: false, stdout: b"hi\n".to_vec(), stderr: vec![], truncated: false });
method!(/// Asks the guest: commands, signals, directories.
    Control = workloads.control, 10000 ms, Never, User, ControlRequest => Reply,
    samples ControlRequest { through: through(), request: Request::Ping } => Reply::Done);
method!(/// Opens a byte stream to a sandbox; without a caller only through a preview's token.
    Open = workloads.open, 10000 ms, Never, User, OpenRequest => OpenReply,
    samples OpenRequest { stream: sample::stream(), word: "stdio".into(), through: through(), wanted: Wanted::Guest(Hello::Control) }
        => OpenReply { sandbox: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".into(), target_generation: 1, hello: vec![], expires_at: None });
method!(/// [`Open`] through a preview's token, which is the credential.
    OpenPreview = workloads.open_preview, 10000 ms, Never, Service, OpenRequest => OpenReply,
    samples OpenRequest { stream: sample::stream(), word: "port".into(), through: Through::Preview { token: Secret::new("p") }, wanted: Wanted::Guest(Hello::Connect { port: 8080 }) }
        => OpenReply { sandbox: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".into(), target_generation: 1, hello: vec![], expires_at: None });
method!(/// Makes a preview link's token.
    CreatePreview = workloads.create_preview, 3000 ms, Never, User, PreviewRequest => PreviewReply,
    samples PreviewRequest { tenant: "demo".into(), sandbox: "x-01jzzzzzzzzzzzzzzzzzzzzzzz".into(), port: 8080, ttl_ms: None }
        => PreviewReply { token: Secret::new("p"), expires_at: sample::at() });
method!(/// Makes a ticket for one WebSocket of a session.
    CreateTicket = workloads.create_ticket, 3000 ms, Never, User, super::SessionRef => TicketReply,
    samples super::session_ref() => TicketReply { ticket: Secret::new("t"), expires_at: sample::at() });
method!(/// Uses up a ticket.
    RedeemTicket = workloads.redeem_ticket, 3000 ms, Never, Service, Secret => Redeemed,
    samples Secret::new("t") => Redeemed { access_token: Secret::new("a.b.c"), session: "ses_01jzzzzzzzzzzzzzzzzzzzzzzz".into() });
