//! A connection whose client has to say soon which protocol it speaks.
//!
//! HTTP/2 without TLS is told by the first 24 bytes (RFC 9113, section 3.4). Until they are here, or
//! something else is, no other time limit runs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) struct Prompt<S> {
    inner: S,
    /// How much of the preface has come; none when it is known what is spoken.
    seen: Option<usize>,
    limit: Pin<Box<Sleep>>,
}

impl<S> Prompt<S> {
    pub(crate) fn new(inner: S, limit: Duration) -> Self {
        Self {
            inner,
            seen: Some(0),
            limit: Box::pin(sleep(limit)),
        }
    }
}

/// How much of the preface is here after these bytes; none when it is complete or something else.
fn progress(seen: usize, bytes: &[u8]) -> Option<usize> {
    let now = seen + bytes.len();
    let is_start = PREFACE.get(seen..now).is_some_and(|expected| expected == bytes);
    (is_start && now < PREFACE.len()).then_some(now)
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, into);
        let Some(seen) = self.seen else { return read };
        match read {
            Poll::Ready(Ok(())) => {
                let bytes = into.filled().get(before..).unwrap_or_default();
                self.seen = progress(seen, bytes);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.limit.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn the_limit_runs_only_while_it_could_still_be_either() {
        assert_eq!(progress(0, b"PRI"), Some(3));
        assert_eq!(progress(3, b" * HTTP/2.0"), Some(14));
        assert_eq!(progress(0, PREFACE), None);
        assert_eq!(progress(0, b"PUT /"), None);
        assert_eq!(progress(3, b"X"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_at_the_start_ends_and_later_silence_does_not() {
        let limit = Duration::from_secs(10);
        let (_near, far) = duplex(64);
        let error = Prompt::new(far, limit).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut near, far) = duplex(64);
        let mut prompt = Prompt::new(far, limit);
        near.write_all(b"GET").await.unwrap();
        assert_eq!(prompt.read_u8().await.unwrap(), b'G');
        let mut rest = [0; 2];
        prompt.read_exact(&mut rest).await.unwrap();
        let later = tokio::time::timeout(limit * 3, prompt.read_u8()).await;
        assert!(later.is_err(), "it ended");
    }
}
