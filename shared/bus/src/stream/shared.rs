//! What the user's end of a stream and the task that moves its messages share.
//!
//! The user puts bytes into the outbox and takes them from the inbox; the task asks [`Shared::next`]
//! what to send. Everything is decided under one short lock, and nothing waits inside it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Side;
use super::frame::{self, CHUNK, Frame, WINDOW};
use super::reason::EndReason;

/// Bytes that may wait to be sent before a writer has to wait, too.
const OUTBOX: usize = 4 * CHUNK;
/// Room of a chunk that is begun for a small write; it grows with what is added.
const SMALL: usize = 512;

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the task.
    pub work: Notify,
    /// Fires when the task is over.
    pub over: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// Received and not read: what is left of each chunk, and what all of it cost.
    inbox: VecDeque<(Bytes, u64)>,
    /// Cost of everything received, of everything read, and what the other end may send in all.
    received: u64,
    taken: u64,
    announced: u64,
    fin_in: bool,
    reader: Option<Waker>,

    /// Written and not sent, each with room for its head.
    outbox: VecDeque<BytesMut>,
    outbox_bytes: usize,
    /// What we may send in all, and have sent.
    allowed: u64,
    used: u64,
    fin_wanted: bool,
    fin_sent: bool,
    writer: Option<Waker>,

    ended: Option<EndReason>,
    /// Whether the other end has yet to be told.
    tell: bool,
    abandoned: bool,
    /// The number of the next message out.
    number: u64,
}

/// What the task does next.
#[derive(Debug)]
pub(crate) enum Step {
    Send(Bytes),
    Wait,
    Over,
}

impl Shared {
    pub(crate) fn new(side: Side) -> Self {
        // The server knows that the client listens, so it may begin; the client hears from the
        // server first. What the client grants at the beginning is therefore known and not sent.
        let (allowed, announced) = match side {
            Side::Client => (0, WINDOW),
            Side::Server => (WINDOW, 0),
        };
        Self {
            state: Mutex::new(State {
                inbox: VecDeque::new(),
                received: 0,
                taken: 0,
                announced,
                fin_in: false,
                reader: None,
                outbox: VecDeque::new(),
                outbox_bytes: 0,
                allowed,
                used: 0,
                fin_wanted: false,
                fin_sent: false,
                writer: None,
                ended: None,
                tell: false,
                abandoned: false,
                number: 0,
            }),
            work: Notify::new(),
            over: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ended(&self) -> Option<EndReason> {
        self.lock().ended.clone()
    }

    pub(crate) async fn finished(&self) -> Option<EndReason> {
        self.over.cancelled().await;
        self.ended()
    }

    /// Whether the reader has everything that will ever come.
    pub(crate) fn drained(&self) -> bool {
        let state = self.lock();
        state.fin_in && state.inbox.is_empty()
    }

    /// Ends the stream from here; the other end is told.
    pub(crate) fn end(&self, reason: EndReason) {
        self.finish(reason, true);
    }

    /// Notes that the other end has ended it.
    pub(crate) fn ended_there(&self, reason: EndReason) {
        self.finish(reason, false);
    }

    fn finish(&self, reason: EndReason, tell: bool) {
        let mut state = self.lock();
        if state.ended.is_none() && !state.complete() {
            state.ended = Some(reason);
            state.tell = tell;
            state.wake();
        }
        drop(state);
        self.work.notify_one();
    }

    /// The user's end is gone.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.inbox.clear();
        drop(state);
        self.finish(EndReason::dropped(), true);
    }

    /// What to send now. Whatever this gives must be sent, in this order.
    pub(crate) fn next(&self) -> Step {
        let mut state = self.lock();
        if state.ended.is_some() {
            // What was written before the end goes first, as far as there is room for it.
            if state.tell
                && let Some(chunk) = state.take_chunk()
            {
                return Step::Send(chunk);
            }
            state.outbox.clear();
            return match state.ended.clone() {
                Some(reason) if state.tell => {
                    state.tell = false;
                    Step::Send(state.numbered(&Frame::End(reason)))
                }
                _ => Step::Over,
            };
        }
        if state.complete() {
            return Step::Over;
        }
        let grant = state.taken.saturating_add(WINDOW);
        if !state.fin_in && grant.saturating_sub(state.announced) >= WINDOW / 4 {
            state.announced = grant;
            return Step::Send(state.numbered(&Frame::Credit(grant)));
        }
        if let Some(chunk) = state.take_chunk() {
            if state.outbox_bytes < OUTBOX {
                state.wake_writer();
            }
            return Step::Send(chunk);
        }
        // Not before the other end is known to be there.
        if state.fin_wanted && !state.fin_sent && state.outbox.is_empty() && state.allowed > 0 {
            state.fin_sent = true;
            state.wake_writer();
            return Step::Send(state.numbered(&Frame::Fin));
        }
        Step::Wait
    }

    /// A sign of life.
    pub(crate) fn alive(&self) -> Bytes {
        self.lock().numbered(&Frame::Alive)
    }

    /// Takes one message of the other end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn take(&self, frame: Frame) -> Result<(), EndReason> {
        let mut state = self.lock();
        match frame {
            Frame::Data(_) | Frame::Fin if state.fin_in => {
                return Err(EndReason::broken("the other end went on after its end"));
            }
            Frame::Data(bytes) => {
                let cost = frame::cost(bytes.len());
                state.received = state.received.saturating_add(cost);
                if state.received > state.taken.saturating_add(WINDOW) {
                    return Err(EndReason::broken("the other end sent more than it may"));
                }
                if state.abandoned || bytes.is_empty() {
                    state.taken = state.taken.saturating_add(cost);
                } else {
                    state.inbox.push_back((bytes, cost));
                }
                state.wake_reader();
            }
            Frame::Credit(allowed) => state.allowed = state.allowed.max(allowed),
            Frame::Fin => {
                state.fin_in = true;
                state.wake_reader();
            }
            Frame::End(reason) => {
                drop(state);
                self.ended_there(reason);
            }
            Frame::Alive => {}
        }
        Ok(())
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        let mut read = false;
        while into.remaining() > 0 {
            let Some((chunk, cost)) = state.inbox.front_mut() else {
                break;
            };
            let now = chunk.len().min(into.remaining());
            into.put_slice(&chunk.split_to(now));
            read = true;
            if chunk.is_empty() {
                let cost = *cost;
                state.inbox.pop_front();
                state.taken = state.taken.saturating_add(cost);
            }
        }
        if read || into.remaining() == 0 {
            let due = state.taken.saturating_add(WINDOW).saturating_sub(state.announced) >= WINDOW / 4;
            drop(state);
            if due {
                self.work.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        if state.fin_in {
            return Poll::Ready(Ok(()));
        }
        if let Some(reason) = &state.ended {
            return Poll::Ready(Err(aborted(reason)));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if let Some(reason) = &state.ended {
            return Poll::Ready(Err(aborted(reason)));
        }
        if state.fin_wanted {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "this end of the stream was shut down",
            )));
        }
        if state.outbox_bytes >= OUTBOX {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut left = bytes.get(..bytes.len().min(OUTBOX)).unwrap_or_default();
        let written = left.len();
        while !left.is_empty() {
            let room = state
                .outbox
                .back()
                .map_or(0, |last| CHUNK.saturating_sub(frame::content(last)));
            if room == 0 {
                state
                    .outbox
                    .push_back(frame::chunk(left.len().clamp(SMALL, CHUNK)));
                continue;
            }
            let (now, rest) = left.split_at_checked(room).unwrap_or((left, &[]));
            if let Some(last) = state.outbox.back_mut() {
                last.put_slice(now);
            }
            left = rest;
        }
        state.outbox_bytes += written;
        drop(state);
        self.work.notify_one();
        Poll::Ready(Ok(written))
    }

    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.fin_sent {
            return Poll::Ready(Ok(()));
        }
        if let Some(reason) = &state.ended {
            return Poll::Ready(Err(aborted(reason)));
        }
        state.fin_wanted = true;
        state.writer = Some(cx.waker().clone());
        drop(state);
        self.work.notify_one();
        Poll::Pending
    }
}

impl State {
    /// Both directions have come to their end.
    fn complete(&self) -> bool {
        self.fin_in && self.fin_sent
    }

    fn take_chunk(&mut self) -> Option<Bytes> {
        let bytes = frame::content(self.outbox.front()?);
        let used = self.used.saturating_add(frame::cost(bytes));
        if used > self.allowed {
            return None;
        }
        let chunk = self.outbox.pop_front()?;
        self.used = used;
        self.outbox_bytes = self.outbox_bytes.saturating_sub(bytes);
        let number = self.count();
        Some(frame::seal(chunk, number))
    }

    fn numbered(&mut self, frame: &Frame) -> Bytes {
        let number = self.count();
        frame.encode(number)
    }

    fn count(&mut self) -> u64 {
        let number = self.number;
        self.number = number.wrapping_add(1);
        number
    }

    fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

/// The reason as the error of a read or write; the reason itself is its source.
fn aborted(reason: &EndReason) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(step: Step) -> Option<Frame> {
        match step {
            Step::Send(bytes) => Frame::decode(bytes).map(|(_, frame)| frame),
            Step::Wait | Step::Over => None,
        }
    }

    fn write(shared: &Shared, bytes: &[u8]) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        shared.poll_write(&mut cx, bytes).is_ready()
    }

    #[test]
    fn a_client_sends_nothing_before_the_first_credit() {
        let client = Shared::new(Side::Client);
        assert!(write(&client, b"early"));
        assert!(matches!(client.next(), Step::Wait));
        client.take(Frame::Credit(WINDOW)).unwrap();
        assert_eq!(
            sent(client.next()),
            Some(Frame::Data(Bytes::from_static(b"early")))
        );
    }

    #[test]
    fn a_server_first_says_that_it_is_there() {
        let server = Shared::new(Side::Server);
        assert!(write(&server, b"hi"));
        assert_eq!(sent(server.next()), Some(Frame::Credit(WINDOW)));
        assert_eq!(sent(server.next()), Some(Frame::Data(Bytes::from_static(b"hi"))));
    }

    #[test]
    fn small_writes_that_wait_go_out_together_and_large_ones_in_chunks() {
        let server = Shared::new(Side::Server);
        let _ = server.next();
        assert!(write(&server, b"a") && write(&server, b"b"));
        assert!(write(&server, &[7; CHUNK]));
        let Some(Frame::Data(first)) = sent(server.next()) else {
            panic!("no data");
        };
        assert_eq!((first.len(), &first[..2]), (CHUNK, &b"ab"[..]));
        assert_eq!(
            sent(server.next()),
            Some(Frame::Data(Bytes::from_static(&[7; 2])))
        );
    }

    #[test]
    fn a_sender_stops_at_the_window_and_a_receiver_refuses_more() {
        let (server, client) = (Shared::new(Side::Server), Shared::new(Side::Client));
        let _ = server.next();
        let mut bytes = 0;
        loop {
            let _ = write(&server, &[0; CHUNK]);
            let Some(Frame::Data(chunk)) = sent(server.next()) else {
                break;
            };
            bytes += u64::try_from(chunk.len()).unwrap();
            client.take(Frame::Data(chunk)).unwrap();
        }
        assert!(bytes < WINDOW && bytes > WINDOW - 2 * 64 * 1024, "{bytes}");
        let more = Frame::Data(Bytes::from(vec![0; CHUNK]));
        assert!(client.take(more).unwrap_err().is_broken());
    }

    #[test]
    fn the_first_reason_counts_and_none_comes_after_both_ends() {
        let shared = Shared::new(Side::Server);
        shared.end(EndReason::new("expired", "it is over"));
        shared.ended_there(EndReason::dropped());
        assert_eq!(shared.ended().unwrap().code, "expired");

        let done = Shared::new(Side::Server);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(done.poll_shutdown(&mut cx).is_pending());
        assert_eq!(sent(done.next()), Some(Frame::Credit(WINDOW)));
        assert_eq!(sent(done.next()), Some(Frame::Fin));
        done.take(Frame::Fin).unwrap();
        done.abandon();
        assert!(done.ended().is_none() && matches!(done.next(), Step::Over));
    }
}
