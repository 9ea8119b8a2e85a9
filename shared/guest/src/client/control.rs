//! A control connection.

use tokio::io::{ReadHalf, WriteHalf};

use super::{GuestError, GuestStream};
use crate::frame::{self, FrameReader};
use crate::protocol::{Answer, Claim, Claimed, CommandInfo, Entry, ListeningPort, Reply, Request, Stats};

/// A connection for questions and small orders, answered in order. After an error other than
/// [`GuestError::Fault`] it is of no use any more.
#[derive(Debug)]
pub struct Control<S> {
    reader: FrameReader<ReadHalf<S>>,
    writer: WriteHalf<S>,
}

impl<S: GuestStream> Control<S> {
    /// Continues on a stream on which `Opened::Control` was answered.
    pub fn new(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: FrameReader::new(reader),
            writer,
        }
    }

    /// Asks.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn ask(&mut self, request: &Request) -> Result<Reply, GuestError> {
        frame::write(&mut self.writer, request)
            .await
            .map_err(GuestError::Broken)?;
        match self.reader.next::<Answer>().await {
            Ok(Some(Ok(reply))) => Ok(reply),
            Ok(Some(Err(fault))) => Err(GuestError::Fault(fault)),
            Ok(None) => Err(GuestError::Ended),
            Err(error) => Err(GuestError::Broken(error)),
        }
    }

    async fn done(&mut self, request: &Request) -> Result<(), GuestError> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            _ => Err(GuestError::Unexpected),
        }
    }

    async fn entry(&mut self, request: &Request) -> Result<Entry, GuestError> {
        match self.ask(request).await? {
            Reply::Entry(entry) => Ok(entry),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn ping(&mut self) -> Result<(), GuestError> {
        self.done(&Request::Ping).await
    }

    /// Says who the sandbox is.
    ///
    /// # Errors
    /// [`GuestError`]; `op.conflict` if it is somebody else already.
    pub async fn claim(&mut self, claim: Claim) -> Result<Claimed, GuestError> {
        match self.ask(&Request::Claim(claim)).await? {
            Reply::Claimed(claimed) => Ok(claimed),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Every command that is known, oldest first.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn commands(&mut self) -> Result<Vec<CommandInfo>, GuestError> {
        match self.ask(&Request::Commands).await? {
            Reply::Commands(commands) => Ok(commands),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Signals a command; one that has ended is fine.
    ///
    /// # Errors
    /// [`GuestError`]; `op.not_found`.
    pub async fn signal(&mut self, command: &str, signal: i32) -> Result<(), GuestError> {
        let command = command.to_owned();
        self.done(&Request::Signal { command, signal }).await
    }

    /// Drops an ended command and its output.
    ///
    /// # Errors
    /// [`GuestError`]; `op.conflict` if it runs.
    pub async fn forget(&mut self, command: &str) -> Result<(), GuestError> {
        let command = command.to_owned();
        self.done(&Request::Forget { command }).await
    }

    /// One entry.
    ///
    /// # Errors
    /// [`GuestError`]; `op.not_found`.
    pub async fn stat(&mut self, path: &str, follow: bool) -> Result<Entry, GuestError> {
        let path = path.to_owned();
        self.entry(&Request::Stat { path, follow }).await
    }

    /// One page of a directory, by name, and whether more follows.
    ///
    /// # Errors
    /// [`GuestError`]; `op.not_found`, `op.conflict` if it is no directory.
    pub async fn list(
        &mut self,
        path: &str,
        after: Option<String>,
        limit: u32,
    ) -> Result<(Vec<Entry>, bool), GuestError> {
        let path = path.to_owned();
        match self.ask(&Request::List { path, after, limit }).await? {
            Reply::Entries { entries, more } => Ok((entries, more)),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`GuestError`]; `op.already_exists`.
    pub async fn mkdir(&mut self, path: &str, mode: Option<u32>, parents: bool) -> Result<Entry, GuestError> {
        let path = path.to_owned();
        self.entry(&Request::Mkdir { path, mode, parents }).await
    }

    /// Renames.
    ///
    /// # Errors
    /// [`GuestError`]; `op.not_found`, `op.already_exists`.
    pub async fn rename(&mut self, from: &str, to: &str, replace: bool) -> Result<Entry, GuestError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.entry(&Request::Move { from, to, replace }).await
    }

    /// Removes.
    ///
    /// # Errors
    /// [`GuestError`]; `op.not_found`, `op.conflict` if a directory is not empty.
    pub async fn remove(&mut self, path: &str, recursive: bool) -> Result<(), GuestError> {
        let path = path.to_owned();
        self.done(&Request::Remove { path, recursive }).await
    }

    /// TCP ports that processes inside listen on.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn ports(&mut self) -> Result<Vec<ListeningPort>, GuestError> {
        match self.ask(&Request::Ports).await? {
            Reply::Ports(ports) => Ok(ports),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// What the init itself uses.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn stats(&mut self) -> Result<Stats, GuestError> {
        match self.ask(&Request::Stats).await? {
            Reply::Stats(stats) => Ok(stats),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// How many processes the kernel has ended for their memory; `None` where it does not say.
    ///
    /// # Errors
    /// [`GuestError`]; an init that is older than the question ends the connection.
    pub async fn memory_kills(&mut self) -> Result<Option<u64>, GuestError> {
        match self.ask(&Request::MemoryKills).await? {
            Reply::MemoryKills(count) => Ok(count),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Kills everything and ends the sandbox.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn shutdown(&mut self) -> Result<(), GuestError> {
        self.done(&Request::Shutdown).await
    }
}
