//! Carries a job's log from the engine to the server, byte for byte.
//!
//! The engine keeps the log on its disk from the first byte on until the container is removed, and the
//! server says with each answer how much it has. So there is no position to be remembered here and no
//! copy: after any interruption the log is read again from its beginning, and what the server has already
//! is passed over.

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use nimbus_gpu_wire::{ChunkAck, MAX_CHUNK};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tracing::{debug, warn};

use crate::engine::{EngineError, Last};
use crate::link::{Kind, Pause};
use crate::worker::Worker;

/// Reading a log takes the engine a second for each 10 to 50 MiB.
const FLOOD: u64 = 256 << 20;

/// A container's log ends a moment before the container does; after this it is opened again.
const END_FOLLOWS: Duration = Duration::from_secs(2);

/// Bytes that are read ahead of the server's answer.
const AHEAD: usize = 4 * MAX_CHUNK;

/// Returns when `ended` and everything was sent: how many bytes the job has printed.
pub(crate) async fn pump(worker: Worker, job: String, name: String, mut ended: watch::Receiver<bool>) -> u64 {
    let (worker, job, name) = (&worker, job.as_str(), name.as_str());
    let mut window = Window::default();
    let mut printed = 0;
    let mut pause = Pause::default();
    loop {
        // Asked first: what is read of a container that has ended is all there will be.
        let complete = *ended.borrow();
        match pass(worker, job, name, &mut window, !complete).await {
            Pass::End { bytes, last } => {
                debug!(
                    gpu.job = job,
                    complete, "the log of {name} was read: {bytes} bytes"
                );
                printed = printed.max(bytes);
                if complete {
                    return bytes.max(window.sent);
                }
                // It ends of itself only with the container. An end that nobody saw is looked for again.
                // The channel closes with the end, too.
                drop(tokio::time::timeout(END_FOLLOWS, ended.wait_for(|over| *over)).await);
                // Following may end before the log does (Docker 20.10, one time in ten): then it is read
                // once more. Of a flood, what was counted is enough.
                if *ended.borrow()
                    && (window.capped && bytes > FLOOD
                        || worker
                            .engine
                            .last_of_log(name)
                            .await
                            .is_ok_and(|there| there == last))
                {
                    return bytes.max(window.sent);
                }
                pause = Pause::default();
            }
            Pass::Gone => return printed,
            Pass::Broken => pause.wait().await,
        }
    }
}

enum Pass {
    /// Read to its end.
    End {
        /// The length of the log.
        bytes: u64,
        last: Last,
    },
    /// The engine or the server went away, or the server has less than before: begin again.
    Broken,
    /// There is no such container.
    Gone,
}

/// Reads the log once, from its beginning, and on while a piece is on its way to the server.
async fn pass(worker: &Worker, job: &str, name: &str, window: &mut Window, follow: bool) -> Pass {
    let mut entries = match worker.engine.log(name, follow).await {
        Ok(entries) => std::pin::pin!(entries),
        Err(EngineError::Missing { .. }) => return Pass::Gone,
        Err(_) => return Pass::Broken,
    };
    window.rewind();
    let mut last = Last::default();
    let mut open = true;
    let mut flush_at: Option<Instant> = None;
    let mut on_its_way: Option<BoxFuture<'_, (Bytes, ChunkAck)>> = None;
    loop {
        let due = !open
            || window.waiting.len() >= worker.config.log_flush_bytes
            || flush_at.is_some_and(|at| at <= Instant::now());
        if due && on_its_way.is_none() {
            flush_at = None;
            match window.chunk() {
                Some(chunk) => on_its_way = Some(send(worker, job, window.sent, chunk).boxed()),
                None if open => {}
                None => {
                    let bytes = window.read;
                    return Pass::End { bytes, last };
                }
            }
        }
        let idle = on_its_way.is_none();
        let answer = async {
            match &mut on_its_way {
                Some(sent) => sent.await,
                None => std::future::pending().await,
            }
        };
        let flush = async {
            match flush_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            (chunk, ack) = answer => {
                on_its_way = None;
                if !window.acknowledge(&chunk, ack) {
                    return Pass::Broken;
                }
            }
            entry = entries.next(), if open && window.waiting.len() < AHEAD => match entry {
                Some(Ok(entry)) => {
                    window.push(&entry.text);
                    last.note(entry);
                    if flush_at.is_none() && !window.waiting.is_empty() {
                        flush_at = Some(Instant::now() + worker.config.log_flush_delay);
                    }
                }
                Some(Err(EngineError::Missing { .. })) => return Pass::Gone,
                Some(Err(_)) => return Pass::Broken,
                None => open = false,
            },
            () = flush, if idle => {}
        }
    }
}

/// Sends a piece until it is answered. One that the server does not want is answered like a full log.
async fn send(worker: &Worker, job: &str, offset: u64, chunk: Bytes) -> (Bytes, ChunkAck) {
    let answered = worker
        .links
        .insist_chunk(Kind::Log, job, offset, chunk.clone())
        .await;
    let ack = answered.unwrap_or_else(|error| {
        warn!(gpu.job = job, "the log is not kept: {error}");
        ChunkAck {
            end: offset,
            capped: true,
        }
    });
    (chunk, ack)
}

/// What was read of a log and is not yet with the server.
#[derive(Debug, Default)]
struct Window {
    /// Bytes that the server has, as far as is known.
    sent: u64,
    /// The bytes after those, as far as they were read.
    waiting: BytesMut,
    /// Bytes read since the log's beginning.
    read: u64,
    /// The server keeps no more.
    capped: bool,
}

impl Window {
    /// The log is read from its beginning.
    fn rewind(&mut self) {
        self.waiting.clear();
        self.read = 0;
    }

    /// More of the log: kept from where the server's end is.
    fn push(&mut self, bytes: &[u8]) {
        let start = self.read;
        self.read += as_u64(bytes.len());
        if self.capped {
            return;
        }
        let wanted = self.sent + as_u64(self.waiting.len());
        let known = usize::try_from(wanted.saturating_sub(start)).unwrap_or(usize::MAX);
        if let Some(new) = bytes.get(known..) {
            self.waiting.extend_from_slice(new);
        }
    }

    /// What is to be sent next, at `sent`.
    fn chunk(&self) -> Option<Bytes> {
        let first = self.waiting.get(..self.waiting.len().min(MAX_CHUNK))?;
        (!first.is_empty()).then(|| Bytes::copy_from_slice(first))
    }

    /// The server's answer to a chunk. False if it has less than it had: the log must be read again.
    fn acknowledge(&mut self, chunk: &Bytes, ack: ChunkAck) -> bool {
        self.capped |= ack.capped;
        if self.capped {
            self.sent = self.sent.max(ack.end);
            self.waiting.clear();
            return true;
        }
        let before = self.sent;
        self.sent = ack.end;
        if ack.end < before || (ack.end == before && !chunk.is_empty()) {
            return false;
        }
        // More than was sent now: it had that from an earlier worker.
        let taken = usize::try_from(ack.end - before).unwrap_or(usize::MAX);
        let gone = taken.min(self.waiting.len());
        drop(self.waiting.split_to(gone));
        true
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server as the contract describes it.
    #[derive(Default)]
    struct Server {
        kept: Vec<u8>,
        cap: usize,
    }

    impl Server {
        fn take(&mut self, offset: u64, bytes: &[u8]) -> ChunkAck {
            let offset = usize::try_from(offset).unwrap();
            if offset <= self.kept.len() {
                let known = self.kept.len() - offset;
                self.kept
                    .extend_from_slice(bytes.get(known..).unwrap_or_default());
                self.kept.truncate(self.cap);
            }
            ChunkAck {
                end: as_u64(self.kept.len()),
                capped: self.kept.len() >= self.cap,
            }
        }
    }

    fn flush(window: &mut Window, server: &mut Server) -> bool {
        while let Some(chunk) = window.chunk() {
            let ack = server.take(window.sent, &chunk);
            if !window.acknowledge(&chunk, ack) {
                return false;
            }
        }
        true
    }

    proptest! {
        /// However the log is cut into frames, and wherever the worker dies, the server has each byte once.
        #[test]
        fn no_byte_is_lost_or_doubled(
            log in prop::collection::vec(any::<u8>(), 0..3000),
            cap in 1usize..4000,
            lives in prop::collection::vec((1usize..400, 0usize..3000, any::<bool>()), 1..6),
        ) {
            let mut server = Server { cap, ..Server::default() };
            for (frame, until, answered) in lives {
                let mut window = Window::default();
                window.rewind();
                for bytes in log[..until.min(log.len())].chunks(frame) {
                    window.push(bytes);
                    if window.waiting.len() > 100 {
                        prop_assert!(flush(&mut window, &mut server));
                    }
                }
                // Sent, but the answer did not arrive before the end.
                if answered && let Some(chunk) = window.chunk() {
                    server.take(window.sent, &chunk);
                }
            }
            let mut window = Window::default();
            window.rewind();
            for bytes in log.chunks(7) {
                window.push(bytes);
            }
            prop_assert!(flush(&mut window, &mut server));
            prop_assert_eq!(window.read, as_u64(log.len()));
            prop_assert_eq!(&server.kept, &log[..log.len().min(cap)]);
        }
    }

    #[test]
    fn a_server_that_has_less_than_before_gets_it_again() {
        let mut server = Server {
            cap: 1000,
            ..Server::default()
        };
        let mut window = Window::default();
        window.push(b"hello ");
        assert!(flush(&mut window, &mut server));
        // Restored from yesterday's copy.
        server.kept.truncate(2);
        window.push(b"world");
        assert!(!flush(&mut window, &mut server));
        window.rewind();
        window.push(b"hello world");
        assert!(flush(&mut window, &mut server));
        assert_eq!(server.kept, b"hello world");
    }
}
