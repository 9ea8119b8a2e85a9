//! The terminal that a command sits at: raw mode, size, keys.

use std::io::{IsTerminal, Read};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use crate::problem::{Outcome, Problem};

/// Most bytes that are taken from stdin at once.
const CHUNK: usize = 16 * 1024;

/// Whether stdin and stdout are both a terminal.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Columns and rows, if there is a terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout())
        .or_else(|_| tcgetwinsize(std::io::stdin()))
        .ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Passes every key on as it is, until it is dropped.
pub(crate) struct Raw {
    before: Option<Termios>,
}

impl Raw {
    /// Takes the terminal of stdin; without one nothing changes.
    pub(crate) fn enter() -> Outcome<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self { before: None });
        }
        let failed =
            |error: rustix::io::Errno| Problem::failed("could not set up the terminal").because(&error);
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nobody is left to tell.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// What comes in on stdin; the channel ends where it does.
///
/// A thread of its own reads: it waits for input that may never come, and nobody waits for it in turn.
pub(crate) fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0_u8; CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let chunk = buffer.get(..length).unwrap_or_default().to_vec();
                    if sender.blocking_send(chunk).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}
