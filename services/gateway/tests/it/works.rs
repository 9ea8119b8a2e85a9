//! A small `workloads` with one tenant and one sandbox, and the agent and guest behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::routing::{any, get};
use bytes::Bytes;
use nimbus_bus::stream::splice;
use nimbus_bus::{Bus, BusStream, EndReason, Incoming, Method, Serving, Side, encode};
use nimbus_errors::{Code, Fault};
use nimbus_guest::frame::{self, FrameReader};
use nimbus_guest::protocol::{
    Chunk, CommandInfo, Entry, EntryKind, ExitStatus, Finished, FromCommand, Hello, Opened, OpenedCommand,
    OpenedContent, Precondition, Range, Reply, Request, Since, Stream, ToCommand, Written,
};
use nimbus_model::UserId;
use nimbus_proto::Secret;
use nimbus_proto::workloads::{self as w, OpenReply, OpenRequest, Redeemed, Through, Wanted};
use tokio::io::{AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};

use crate::peers::{Books, Person};

/// The tenant, which is Bob's.
pub(crate) const TENANT: &str = "demo";
/// Its sandbox.
pub(crate) const SANDBOX: &str = "box-01jzzzzzzzzzzzzzzzzzzzzzzz";
/// What every command writes first: to its output, then to its error output.
pub(crate) const WRITTEN: [&[u8]; 2] = [b"hello\n", b"oops\n"];

/// What it knows; clones share it.
#[derive(Clone)]
pub(crate) struct Works {
    agent: Bus,
    bob: UserId,
    http: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    created: Vec<(Option<String>, w::CreateSandboxRequest)>,
    services: Vec<w::WriteService>,
    listed: Vec<w::ListRequest>,
    execs: Vec<w::ExecRequest>,
    hellos: Vec<Hello>,
    signals: Vec<(String, i32)>,
    files: BTreeMap<String, Bytes>,
}

impl Works {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn created(&self) -> Vec<(Option<String>, w::CreateSandboxRequest)> {
        self.lock().created.clone()
    }

    pub(crate) fn services(&self) -> Vec<w::WriteService> {
        self.lock().services.clone()
    }

    pub(crate) fn listed(&self) -> w::ListRequest {
        self.lock().listed.last().cloned().unwrap()
    }

    pub(crate) fn execs(&self) -> Vec<w::ExecRequest> {
        self.lock().execs.clone()
    }

    pub(crate) fn hellos(&self) -> Vec<Hello> {
        self.lock().hellos.clone()
    }

    pub(crate) fn signals(&self) -> Vec<(String, i32)> {
        self.lock().signals.clone()
    }

    /// Nobody but Bob has anything here.
    fn check<M: Method>(&self, call: &Incoming<M>, tenant: &str) -> Result<(), Fault> {
        if call.user()?.user == self.bob && tenant == TENANT {
            Ok(())
        } else {
            Err(Fault::new(
                Code::SessionTenantNotFound,
                format!("there is no tenant {tenant}"),
            ))
        }
    }

    fn check_through<M: Method>(&self, call: &Incoming<M>, through: &Through) -> Result<(), Fault> {
        match through {
            Through::Sandbox { tenant, id } => {
                self.check(call, tenant)?;
                if id == SANDBOX {
                    return Ok(());
                }
                Err(Fault::new(Code::OpNotFound, format!("there is no sandbox {id}")))
            }
            Through::Service { tenant, .. } => self.check(call, tenant),
            Through::Session { .. } => self.check(call, TENANT),
            Through::Preview { .. } => Err(Fault::new(Code::OpInvalidInput, "a link is for its port")),
        }
    }

    async fn open(self, request: OpenRequest) -> Result<OpenReply, Fault> {
        let stream = self
            .agent
            .stream(request.stream, &request.word, Side::Server)
            .await?;
        let hello = match request.wanted {
            Wanted::Guest(hello) => self.guest(hello, stream)?,
            Wanted::Logs { follow, .. } => {
                tokio::spawn(log(stream, follow));
                Bytes::new()
            }
            Wanted::Browser => return Err(Fault::new(Code::OpConflict, "there is no browser")),
        };
        Ok(OpenReply {
            sandbox: SANDBOX.to_owned(),
            target_generation: 1,
            hello: hello.to_vec(),
            expires_at: None,
        })
    }

    fn guest(&self, hello: Hello, stream: BusStream) -> Result<Bytes, Fault> {
        self.lock().hellos.push(hello.clone());
        let opened = match hello {
            Hello::Run { spec, .. } => {
                let opened = command(true, 0);
                let exit = spec.argv.first().is_none_or(|program| program != "expire");
                tokio::spawn(run(stream, 0, spec.stdin, exit));
                opened
            }
            Hello::Attach { since, input, .. } => {
                let from = match since {
                    Since::Offset(offset) if offset > 11 => {
                        return Err(Fault::new(Code::OpOutOfRetention, "that was dropped"));
                    }
                    Since::Offset(offset) => offset,
                    Since::Tail(0) => 11,
                    Since::Tail(_) => 0,
                };
                tokio::spawn(run(stream, from, input, true));
                command(false, from)
            }
            Hello::ReadFile { path, range } => {
                let content = self.lock().files.get(&path).cloned();
                let content = content
                    .ok_or_else(|| Fault::new(Code::OpNotFound, format!("there is no file {path}")))?;
                let (offset, part) = match range {
                    Range::All => (0, content.clone()),
                    Range::From { offset, length } => {
                        let start = usize::try_from(offset).unwrap().min(content.len());
                        let most = content.len() - start;
                        let length = length.map_or(most, |length| usize::try_from(length).unwrap().min(most));
                        (offset, content.slice(start..start + length))
                    }
                    Range::Last(last) => {
                        let start = content.len() - usize::try_from(last).unwrap().min(content.len());
                        (u64::try_from(start).unwrap(), content.slice(start..))
                    }
                };
                let opened = Opened::Content(OpenedContent {
                    entry: entry(&path, &content),
                    offset,
                    length: u64::try_from(part.len()).unwrap(),
                });
                tokio::spawn(download(stream, part));
                opened
            }
            Hello::WriteFile { path, must, .. } => {
                if must == Precondition::Absent && self.lock().files.contains_key(&path) {
                    return Err(Fault::new(Code::OpPreconditionFailed, "it is there"));
                }
                tokio::spawn(upload(self.clone(), stream, path));
                Opened::Ready
            }
            Hello::TarOut { .. } => {
                tokio::spawn(download(stream, Bytes::from_static(b"a tar archive")));
                Opened::Ready
            }
            Hello::TarIn { path } => {
                tokio::spawn(upload(self.clone(), stream, path));
                Opened::Ready
            }
            Hello::Connect { port } => {
                if port != 8080 {
                    return Err(Fault::new(Code::ServiceUnavailable, "nothing listens there"));
                }
                let http = self.http;
                tokio::spawn(async move {
                    let inside = TcpStream::connect(http).await.unwrap();
                    splice(stream, inside).await
                });
                Opened::Connected
            }
            Hello::Control | Hello::Egress => {
                return Err(Fault::new(Code::OpInvalidInput, "not for you"));
            }
        };
        Ok(encode(&opened).unwrap())
    }

    fn answer(&self, request: Request) -> Result<Reply, Fault> {
        Ok(match request {
            Request::Commands => Reply::Commands(vec![CommandInfo {
                id: "main".into(),
                pid: 2,
                exit: None,
                log_start: 0,
                log_end: 11,
                input: 0,
                attached: 1,
                started_ms: 1_781_110_801_000,
            }]),
            Request::Signal { command, signal } => {
                self.lock().signals.push((command, signal));
                Reply::Done
            }
            Request::List { path, after, limit } => {
                let inner = self.lock();
                let mut entries: Vec<_> = inner
                    .files
                    .iter()
                    .filter(|(name, _)| name.starts_with(&path))
                    .map(|(name, content)| entry(name, content))
                    .filter(|entry| after.as_ref().is_none_or(|after| entry.name > *after))
                    .collect();
                let more = entries.len() > usize::try_from(limit).unwrap();
                entries.truncate(usize::try_from(limit).unwrap());
                Reply::Entries { entries, more }
            }
            Request::Stat { path, .. } => {
                let inner = self.lock();
                let content = inner.files.get(&path);
                let content =
                    content.ok_or_else(|| Fault::new(Code::OpNotFound, format!("there is no {path}")))?;
                Reply::Entry(entry(&path, content))
            }
            Request::Mkdir { path, .. } => Reply::Entry(Entry {
                kind: EntryKind::Dir,
                ..entry(&path, &[])
            }),
            Request::Remove { path, .. } => {
                self.lock().files.remove(&path);
                Reply::Done
            }
            other => return Err(Fault::new(Code::OpInvalidInput, format!("{other:?}"))),
        })
    }
}

fn entry(path: &str, content: &[u8]) -> Entry {
    Entry {
        name: path.rsplit('/').next().unwrap().to_owned(),
        kind: EntryKind::File,
        size: u64::try_from(content.len()).unwrap(),
        mode: 0o644,
        mtime_ns: 1_781_110_801_000_000_000,
        etag: format!("e{}", content.len()),
    }
}

fn command(started: bool, from: u64) -> Opened {
    Opened::Command(OpenedCommand {
        started,
        from,
        end: if started { 0 } else { 11 },
        input: 0,
        pid: 7,
        exit: None,
    })
}

/// Writes what it writes, from `from` on; then, with input, gives it back until its end.
async fn run(stream: BusStream, from: u64, stdin: bool, exits: bool) {
    let handle = stream.handle();
    let (reader, mut writer) = split(stream);
    let mut reader = FrameReader::new(reader);
    let mut offset = 0_u64;
    for (bytes, stream) in WRITTEN.iter().zip([Stream::Stdout, Stream::Stderr]) {
        let skip = usize::try_from(from.saturating_sub(offset))
            .unwrap()
            .min(bytes.len());
        if skip < bytes.len() {
            let output = FromCommand::Output {
                stream,
                offset: offset + u64::try_from(skip).unwrap(),
                at_ms: 1,
                bytes: Bytes::from_static(&bytes[skip..]),
            };
            frame::write(&mut writer, &output).await.unwrap();
        }
        offset += u64::try_from(bytes.len()).unwrap();
    }
    if !exits {
        handle.end(EndReason::new("expired", "the session is over"));
        return;
    }
    let mut code = 3;
    let mut taken = 0;
    loop {
        if !stdin {
            break;
        }
        match reader.next::<ToCommand>().await {
            Ok(Some(ToCommand::Input { bytes, .. })) => {
                taken += u64::try_from(bytes.len()).unwrap();
                let length = u64::try_from(bytes.len()).unwrap();
                let output = FromCommand::Output {
                    stream: Stream::Stdout,
                    offset,
                    at_ms: 2,
                    bytes,
                };
                offset += length;
                frame::write(&mut writer, &output).await.unwrap();
                frame::write(&mut writer, &FromCommand::InputAccepted(taken))
                    .await
                    .unwrap();
            }
            Ok(Some(ToCommand::Resize(size))) => code = i32::from(size.cols),
            Ok(Some(ToCommand::Signal(_))) => {}
            Ok(Some(ToCommand::InputEnd { .. }) | None) => break,
            Err(_) => return,
        }
    }
    let exit = ExitStatus {
        code: Some(code),
        signal: None,
        timed_out: false,
    };
    frame::write(&mut writer, &FromCommand::Exit(exit)).await.unwrap();
    let _ = writer.shutdown().await;
}

async fn download(mut stream: BusStream, content: Bytes) {
    for piece in content.chunks(5) {
        let chunk = Chunk::Data(Bytes::copy_from_slice(piece));
        frame::write(&mut stream, &chunk).await.unwrap();
    }
    frame::write(&mut stream, &Chunk::End).await.unwrap();
    let _ = stream.shutdown().await;
}

async fn upload(works: Works, stream: BusStream, path: String) {
    let (reader, mut writer) = split(stream);
    let mut reader = FrameReader::new(reader);
    let mut all = Vec::new();
    while let Ok(Some(Chunk::Data(bytes))) = reader.next::<Chunk>().await {
        all.extend_from_slice(&bytes);
    }
    let entry = entry(&path, &all);
    let created = works.lock().files.insert(path, all.into()).is_none();
    let finished: Finished = Ok(Written { entry, created });
    frame::write(&mut writer, &finished).await.unwrap();
    let _ = writer.shutdown().await;
}

async fn log(mut stream: BusStream, follow: bool) {
    stream
        .write_all(b"{\"ts\":\"2026-06-10T17:03:21Z\",\"stream\":\"stdout\",\"data\":\"one\"}\n")
        .await
        .unwrap();
    if follow {
        stream
            .write_all(b"{\"ts\":\"2026-06-10T17:03:22Z\",\"stream\":\"stderr\",\"data\":\"two\"}\n")
            .await
            .unwrap();
    }
    let _ = stream.shutdown().await;
}

/// What listens on port 8080 of the sandbox: says what it was sent, and gives WebSocket messages back.
async fn http() -> SocketAddr {
    let echo = |socket: WebSocketUpgrade| async move {
        socket.on_upgrade(|mut socket| async move {
            while let Some(Ok(Message::Text(text))) = socket.recv().await {
                if socket.send(Message::Text(text)).await.is_err() {
                    break;
                }
            }
        })
    };
    let tell = |method: axum::http::Method, uri: axum::http::Uri, headers: HeaderMap, body: String| async move {
        let names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        let host = headers["host"].to_str().unwrap().to_owned();
        let told = serde_json::json!({
            "method": method.as_str(), "uri": uri.to_string(), "headers": names, "host": host, "body": body,
        });
        (
            [("set-cookie", "a=b"), ("content-type", "application/json")],
            told.to_string(),
        )
    };
    let router = Router::new().route("/socket", get(echo)).fallback(any(tell));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Serves what the gateway asks `workloads`.
pub(crate) async fn serve(bus: &Bus, agent: Bus, books: &Books) -> (Works, Serving) {
    let works = Works {
        agent,
        bob: books.user(Person::Bob),
        http: http().await,
        inner: Arc::default(),
    };
    macro_rules! serve {
        ($serve:expr, $($method:ident => |$w:ident, $call:ident| $body:expr;)*) => {
            $serve$(.method::<w::$method, _, _>({
                let works = works.clone();
                move |$call| {
                    let $w = works.clone();
                    async move { $body }
                }
            }))*
        };
    }
    let serving = serve!(bus.serve("workloads", "1.0.0", "Runs sandboxes"),
        CreateTenant => |_w, call| Ok(w::Tenant { id: call.request, ..w::GetTenant::sample_reply() });
        GetTenant => |w, call| w.check(&call, &call.request).map(|()| w::GetTenant::sample_reply());
        ListTenants => |w, call| {
            let own = call.user()?.user == w.bob;
            Ok(if own { w::ListTenants::sample_reply() } else { vec![] })
        };
        Offers => |_w, _call| Ok(w::Offers::sample_reply());
        ListSecrets => |w, call| w.check(&call, &call.request).map(|()| w::ListSecrets::sample_reply());
        ListVolumes => |w, call| w.check(&call, &call.request).map(|()| w::ListVolumes::sample_reply());
        DeleteSecret => |w, call| w.check(&call, &call.request.tenant);
        EnsureVolume => |w, call| w.check(&call, &call.request.tenant).map(|()| w::EnsureVolume::sample_reply());
        DeleteVolume => |w, call| w.check(&call, &call.request.tenant);
        CreateSandbox => |w, call| {
            w.check(&call, &call.request.tenant)?;
            let key = call.key.as_ref().map(|key| key.as_str().to_owned());
            let labels = call.request.labels.clone();
            w.lock().created.push((key, call.request));
            Ok(w::Sandbox { id: SANDBOX.to_owned(), labels, ..w::CreateSandbox::sample_reply() })
        };
        GetSandbox => |w, call| {
            w.check(&call, &call.request.tenant)?;
            Ok(w::Sandbox { id: call.request.name, ..w::GetSandbox::sample_reply() })
        };
        StopSandbox => |w, call| {
            w.check(&call, &call.request.tenant)?;
            Ok(w::Sandbox { id: call.request.name, ..w::GetSandbox::sample_reply() })
        };
        ExtendSandbox => |w, call| w.check(&call, &call.request.tenant).map(|()| w::GetSandbox::sample_reply());
        ListSandboxes => |w, call| {
            w.check(&call, &call.request.tenant)?;
            w.lock().listed.push(call.request);
            Ok(w::ListSandboxes::sample_reply())
        };
        DeleteSandbox => |w, call| w.check(&call, &call.request.tenant);
        CreateService => |w, call| {
            w.check(&call, &call.request.tenant)?;
            w.lock().services.push(call.request);
            Ok(w::CreateService::sample_reply())
        };
        UpdateService => |w, call| {
            w.check(&call, &call.request.tenant)?;
            w.lock().services.push(call.request);
            Ok(w::CreateService::sample_reply())
        };
        GetService => |w, call| w.check(&call, &call.request.tenant).map(|()| w::GetService::sample_reply());
        StartService => |w, call| w.check(&call, &call.request.tenant).map(|()| w::GetService::sample_reply());
        StopService => |w, call| w.check(&call, &call.request.tenant).map(|()| w::GetService::sample_reply());
        RestartService => |w, call| w.check(&call, &call.request.tenant).map(|()| w::GetService::sample_reply());
        ListServices => |w, call| w.check(&call, &call.request.tenant).map(|()| w::ListServices::sample_reply());
        DeleteService => |w, call| w.check(&call, &call.request.tenant);
        OpenSession => |w, call| w.check(&call, &call.request.tenant).map(|()| w::OpenSession::sample_reply());
        GetSession => |w, call| w.check(&call, TENANT).map(|()| w::OpenSession::sample_reply());
        CloseSession => |w, call| w.check(&call, TENANT).map(|()| w::OpenSession::sample_reply());
        ListSessions => |w, call| w.check(&call, &call.request.tenant).map(|()| w::ListSessions::sample_reply());
        Exec => |w, call| {
            w.check_through(&call, &call.request.through)?;
            w.lock().execs.push(call.request);
            Ok(w::Exec::sample_reply())
        };
        Control => |w, call| {
            w.check_through(&call, &call.request.through)?;
            w.answer(call.request.request)
        };
        Open => |w, call| {
            w.check_through(&call, &call.request.through)?;
            w.open(call.request).await
        };
        OpenPreview => |w, call| match &call.request.through {
            Through::Preview { token } if token.reveal() == "p" => w.open(call.request).await,
            _ => Err(Fault::new(Code::OpNotFound, "there is no such link")),
        };
        CreatePreview => |w, call| w.check(&call, &call.request.tenant).map(|()| w::CreatePreview::sample_reply());
        CreateTicket => |w, call| w.check(&call, TENANT).map(|()| w::CreateTicket::sample_reply());
        RedeemTicket => |_w, call| if call.request.reveal() == "t" {
            Ok(Redeemed {
                access_token: Secret::new("access-bob-nbp"),
                session: w::RedeemTicket::sample_reply().session,
            })
        } else {
            Err(Fault::new(Code::AuthUnauthorized, "the ticket was used"))
        };
    )
    .start()
    .await
    .unwrap();
    (works, serving)
}
