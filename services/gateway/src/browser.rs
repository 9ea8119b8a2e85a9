//! The browser of a desktop sandbox: its own protocol passed through, and a small API on top of it.
//!
//! ```text
//! client ──WebSocket──▶ gateway ──byte stream──▶ agent ──▶ guest ──▶ Chromium's DevTools port, on loopback inside
//! ```
//!
//! The port is reachable by this way alone. What would end the browser for others, or hand its
//! protocol to a page, is refused here.

mod devtools;
mod guard;
mod page;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use nimbus_bus::{AccessToken, StreamHandle};
use nimbus_errors::Fault;
use nimbus_proto::Secret;
use nimbus_proto::workloads::{Channel, Through, Wanted};
use serde::Deserialize;
use tokio_tungstenite::tungstenite;
use utoipa::IntoParams;

use crate::envelope::Answer;
use crate::routes::sessions::lease;
use crate::state::App;
use crate::terminal::{End, Upgrading, closed};
use devtools::Devtools;

/// The channel word of these streams on the bus.
const WORD: &str = "cdp";

/// The largest message of a client: a script to evaluate, a file's name, a request's body.
const MESSAGE_BYTES: usize = 16 << 20;

/// Who connects.
#[derive(Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BrowserQuery {
    /// The tenant; among all that the caller may reach when it is left out.
    pub tenant_id: Option<String>,
    /// A ticket, instead of a credential.
    #[param(value_type = Option<String>)]
    pub ticket: Option<Secret>,
}

/// Opens the channel, then the WebSocket: a refusal is an HTTP answer.
pub(crate) async fn upgrade(
    app: App,
    session: String,
    query: BrowserQuery,
    channel: Channel,
    upgrading: Upgrading,
) -> Answer<Response> {
    let token = upgrading.token(&app, query.ticket, &session).await?;
    let through = lease(session, query.tenant_id, channel);
    let devtools = connect(&app, &token, &through).await?;
    let response = upgrading
        .into_socket()
        .max_message_size(MESSAGE_BYTES)
        .on_upgrade(move |mut socket| async move {
            let talked = async {
                match channel {
                    Channel::Page => page(&mut socket, devtools).await,
                    Channel::Cdp | Channel::Stdio | Channel::Files => cdp(&mut socket, devtools).await,
                }
            };
            let end = tokio::select! {
                end = talked => end,
                () = app.stop.cancelled() => Some(End::new(1012, "the server stops")),
            };
            if let Some(End { code, reason }) = end {
                let reason = Utf8Bytes::from(reason);
                // The other side may be gone.
                let _ = socket
                    .send(Message::Close(Some(CloseFrame { code, reason })))
                    .await;
            }
        });
    Ok(response.into_response())
}

/// Connects to the browser of a sandbox.
async fn connect(app: &App, token: &AccessToken, through: &Through) -> Result<Devtools, Fault> {
    let first = app
        .open_channel(token, through.clone(), WORD, Wanted::Browser)
        .await?;
    let path = devtools::socket_path(first.stream).await?;
    let second = app
        .open_channel(token, through.clone(), WORD, Wanted::Browser)
        .await?;
    Devtools::open(second.stream, &path).await
}

/// Why the browser's side ended.
fn over(handle: &StreamHandle) -> Option<End> {
    Some(match handle.ended() {
        Some(reason) => closed(&reason),
        None => End::new(1011, "the browser ended the connection"),
    })
}

/// Passes the `DevTools` protocol both ways, unchanged but for what must not pass. None when the client left.
async fn cdp(socket: &mut WebSocket, devtools: Devtools) -> Option<End> {
    let handle = devtools.handle();
    let mut browser = devtools.into_socket();
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => match guard::check(&text) {
                    Ok(()) => {
                        let text = tungstenite::Utf8Bytes::from(text.as_str());
                        if browser.send(tungstenite::Message::Text(text)).await.is_err() {
                            return over(&handle);
                        }
                    }
                    Err(refusal) => {
                        if socket.send(Message::Text(refusal.into())).await.is_err() {
                            return None;
                        }
                    }
                },
                // Pings are answered by the library; DevTools knows no binary messages.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            },
            message = browser.next() => match message {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    if socket.send(Message::Text(Utf8Bytes::from(text.as_str()))).await.is_err() {
                        return None;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return over(&handle),
            },
        }
    }
}

/// Answers the requests of the small browser API, one after the other.
async fn page(socket: &mut WebSocket, devtools: Devtools) -> Option<End> {
    let handle = devtools.handle();
    let mut page = match page::Page::open(devtools).await {
        Ok(page) => page,
        Err(error) => {
            tracing::debug!(cause = %nimbus_errors::chain(&error), "the browser gave no page");
            return over(&handle);
        }
    };
    loop {
        let answers = tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => page.answer(&text).await,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    page.leave().await;
                    return None;
                }
            },
            noticed = page.notice() => noticed,
        };
        let Ok(answers) = answers else {
            return over(&handle);
        };
        for answer in answers {
            if socket.send(Message::Text(answer.into())).await.is_err() {
                page.leave().await;
                return None;
            }
        }
    }
}
