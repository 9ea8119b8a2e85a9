//! Byte streams over the bus: what a terminal, a file or a forwarded port is carried by.
//!
//! ```text
//!  opens: Side::Client                                          is opened to: Side::Server
//!  subscribes …out, asks somebody to open ──────── request ───▶ subscribes …in
//!                                         ◀─────── credit ───── 1 MiB may come
//!                     data, fin, end      ──────▶  …in
//!                                         ◀──────  …out         data, fin, end, credit
//! ```
//! The subjects are `nimbus.v1.session.<id>.<channel>.in`, towards the server, and `….out`. Both
//! directions are independent: each is ended by `fin`, and by then everything before it has arrived.
//!
//! Nothing is repeated and nothing is lost in silence. Every message has a number; a gap, a number
//! that comes twice, a lost connection to the bus on either side or [`StreamOptions::silent_after`]
//! without a sign of life break the stream, and both ends learn why. Who needs to go on after that
//! resumes by an offset of their own.
//!
//! A sender has at most [`WINDOW`] bytes under way that the other side has not read, so a slow reader
//! slows its sender down and costs no more memory than that. The client sends nothing before the
//! server's first credit, which therefore also says that the server is there.

mod frame;
mod link;
mod reason;
mod shared;
mod splice;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::frame::{CHUNK, WINDOW};
pub use self::reason::{EndReason, StreamId};
use self::shared::Shared;
pub use self::splice::{Spliced, splice};
use crate::bus::Bus;
use crate::error::BusError;

/// Which end of a stream this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that has the stream opened: it subscribes, then asks.
    Client,
    /// The end that the stream is opened to, next to what it reaches.
    Server,
}

/// How patient a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// After so long without sending anything, a sign of life is sent.
    pub alive_every: Duration,
    /// After so long without a sign of life from the other end the stream is broken.
    pub silent_after: Duration,
    /// How long a client waits for the other end to appear.
    pub open_within: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            alive_every: Duration::from_secs(5),
            silent_after: Duration::from_secs(15),
            open_within: Duration::from_secs(30),
        }
    }
}

/// One end of a two-way byte stream.
///
/// What is written goes out as soon as the other side has room for it; small writes that come
/// faster than they can be sent are sent together. [`AsyncWrite::poll_shutdown`] ends this direction
/// and completes when everything has been handed to the bus. Dropped before both directions have
/// ended, the stream ends with the reason `stream.dropped`; call [`Self::end`] to say something better.
#[derive(Debug)]
pub struct BusStream {
    shared: Arc<Shared>,
}

/// What a third party needs to end a stream, or to learn that it has ended.
#[derive(Clone, Debug)]
pub struct StreamHandle {
    shared: Arc<Shared>,
}

impl Bus {
    /// Takes one end of a byte stream. When this returns, what the other end sends after a request
    /// sent from now on over this connection is received.
    ///
    /// The channel is a word of `a-z`, `0-9` and `-`, at most 32 characters; both ends say the same.
    ///
    /// # Errors
    /// Another channel name; a bus that was closed. That the credential does not allow streams ends
    /// the stream.
    pub async fn stream(&self, id: StreamId, channel: &str, side: Side) -> Result<BusStream, BusError> {
        self.stream_with(id, channel, side, StreamOptions::default())
            .await
    }

    /// [`Self::stream`] with other patience.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn stream_with(
        &self,
        id: StreamId,
        channel: &str,
        side: Side,
        options: StreamOptions,
    ) -> Result<BusStream, BusError> {
        link::open(self, id, channel, side, options)
            .await
            .map(|shared| BusStream { shared })
    }
}

impl BusStream {
    /// Ends both directions. What was written before and has room on the way is still sent; the
    /// other end then gets `reason` instead of the end of the bytes.
    ///
    /// The first reason counts, wherever it comes from.
    pub fn end(&self, reason: EndReason) {
        self.shared.end(reason);
    }

    /// Why the stream ended, if it did in another way than by the end of both directions.
    #[must_use]
    pub fn ended(&self) -> Option<EndReason> {
        self.shared.ended()
    }

    /// A handle for those who neither read nor write.
    #[must_use]
    pub fn handle(&self) -> StreamHandle {
        StreamHandle {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl StreamHandle {
    /// As [`BusStream::end`].
    pub fn end(&self, reason: EndReason) {
        self.shared.end(reason);
    }

    /// As [`BusStream::ended`].
    #[must_use]
    pub fn ended(&self) -> Option<EndReason> {
        self.shared.ended()
    }

    /// Waits until nothing more is sent or received; gives the reason as [`Self::ended`] does.
    pub async fn finished(&self) -> Option<EndReason> {
        self.shared.finished().await
    }
}

impl AsyncRead for BusStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_read(cx, into)
    }
}

impl AsyncWrite for BusStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.poll_write(cx, bytes)
    }

    /// Nothing to do: what was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_shutdown(cx)
    }
}

impl Drop for BusStream {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}
