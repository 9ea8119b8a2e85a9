//! Joining a stream with what it is to reach.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::BusStream;
use super::frame::CHUNK;
use super::reason::EndReason;
use super::shared::Shared;

/// How a splice went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spliced {
    /// Why the stream ended, if not by the end of both directions.
    pub ended: Option<EndReason>,
}

/// Moves bytes between `stream` and `other` until both directions have ended, or one of the two
/// fails; then the other one is let go of, and the far end of the stream learns the reason.
pub async fn splice<T>(mut stream: BusStream, other: T) -> Spliced
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let shared = Arc::clone(&stream.shared);
    let mut other = Other {
        inner: other,
        finished: Box::pin({
            let shared = Arc::clone(&shared);
            async move { shared.finished().await }
        }),
        reason: None,
        shared: Arc::clone(&shared),
    };
    if let Err(error) = copy_bidirectional_with_sizes(&mut stream, &mut other, CHUNK, CHUNK).await {
        // A stream that has ended keeps its own reason.
        stream.end(EndReason::new(
            "stream.target_failed",
            format!("what the stream reaches has failed: {error}"),
        ));
    }
    Spliced {
        ended: shared.ended(),
    }
}

/// `other`, whose silence does not outlive the stream: a stream that has been read to its end and
/// then ends is otherwise noticed only with the next byte to write.
struct Other<T> {
    inner: T,
    finished: BoxFuture<'static, Option<EndReason>>,
    reason: Option<Option<EndReason>>,
    shared: Arc<Shared>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Other<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reason.is_none()
            && let Poll::Ready(reason) = self.finished.as_mut().poll(cx)
        {
            self.reason = Some(reason);
        }
        if let Some(Some(reason)) = &self.reason
            && self.shared.drained()
        {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                reason.clone(),
            )));
        }
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Other<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
