//! Connections to the init.

mod command;
mod content;
mod control;

use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

pub use command::{Attachment, Collected, CommandEvents, CommandInput};
pub use content::{Download, Upload};
pub use control::Control;

use crate::frame::{self, FrameError};
use crate::protocol::{
    CommandSpec, First, GuestFault, Hello, HelloReply, Opened, OpenedEgress, Precondition, Range, Since,
    VERSION,
};

/// A stream to the init: its socket, or whatever carries its bytes further.
pub trait GuestStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> GuestStream for S {}

/// Why something with the guest did not work.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// There is nobody at the socket: the sandbox has ended or was never started.
    #[error("the sandbox' init cannot be reached")]
    Unreachable(#[source] std::io::Error),
    /// The connection failed, or what arrives is not the protocol. What the init did is not known.
    #[error("the connection to the sandbox broke")]
    Broken(#[source] FrameError),
    /// The init ended the connection where an answer was due. What it did is not known.
    #[error("the sandbox' init ended the connection")]
    Ended,
    /// The init answered something else than was asked for.
    #[error("the sandbox' init gave an answer to another question")]
    Unexpected,
    /// The init refused.
    #[error("{0}")]
    Fault(GuestFault),
}

impl GuestError {
    /// The init's refusal, if it is one.
    #[must_use]
    pub fn fault(&self) -> Option<&GuestFault> {
        match self {
            Self::Fault(fault) => Some(fault),
            _ => None,
        }
    }
}

#[cfg(feature = "coded")]
impl nimbus_errors::Coded for GuestError {
    fn code(&self) -> nimbus_errors::Code {
        use nimbus_errors::Code;
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Ended => Code::ServiceUnavailable,
            Self::Unexpected => Code::ServiceInternal,
            Self::Fault(fault) => Code::find(&fault.code).unwrap_or(Code::ServiceInternal),
        }
    }
}

/// Says hello on a fresh stream and waits for the answer. Nothing is read beyond it.
///
/// # Errors
/// [`GuestError`].
pub async fn open<S: GuestStream>(mut stream: S, hello: Hello) -> Result<(Opened, S), GuestError> {
    let first = First {
        version: VERSION,
        hello,
    };
    frame::write(&mut stream, &first)
        .await
        .map_err(GuestError::Broken)?;
    match frame::read::<_, HelloReply>(&mut stream).await {
        Ok(Some(Ok(opened))) => Ok((opened, stream)),
        Ok(Some(Err(fault))) => Err(GuestError::Fault(fault)),
        Ok(None) => Err(GuestError::Ended),
        Err(error) => Err(GuestError::Broken(error)),
    }
}

/// The init of one sandbox, reached at its socket. Every call makes a connection of its own.
#[derive(Clone, Debug)]
pub struct Guest {
    socket: PathBuf,
}

impl Guest {
    /// The init whose socket this is.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A raw connection, on which nothing was said yet.
    ///
    /// # Errors
    /// [`GuestError::Unreachable`].
    pub async fn connect(&self) -> Result<UnixStream, GuestError> {
        UnixStream::connect(&self.socket)
            .await
            .map_err(GuestError::Unreachable)
    }

    /// Says `hello` on a connection of its own; gives what was opened and the stream after it, for those
    /// who only carry its bytes.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn open(&self, hello: Hello) -> Result<(Opened, UnixStream), GuestError> {
        open(self.connect().await?, hello).await
    }

    /// A connection for questions and small orders.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn control(&self) -> Result<Control<UnixStream>, GuestError> {
        match self.open(Hello::Control).await? {
            (Opened::Control, stream) => Ok(Control::new(stream)),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Runs a command, or attaches to it if its id is known.
    ///
    /// # Errors
    /// [`GuestError`]; the fault `op.invalid_input` if it cannot be started, `op.conflict` if the id is
    /// of another command.
    pub async fn run(
        &self,
        spec: CommandSpec,
        since: Since,
        input: bool,
    ) -> Result<Attachment<UnixStream>, GuestError> {
        self.attached(Hello::Run { spec, since, input }).await
    }

    /// Attaches to a command.
    ///
    /// # Errors
    /// [`GuestError`]; the fault `op.not_found`, or `op.out_of_retention` if what is asked for was
    /// dropped.
    pub async fn attach(
        &self,
        command: &str,
        since: Since,
        input: bool,
    ) -> Result<Attachment<UnixStream>, GuestError> {
        let command = command.to_owned();
        self.attached(Hello::Attach {
            command,
            since,
            input,
        })
        .await
    }

    async fn attached(&self, hello: Hello) -> Result<Attachment<UnixStream>, GuestError> {
        match self.open(hello).await? {
            (Opened::Command(opened), stream) => Ok(Attachment::new(stream, opened)),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// [`GuestError`]; the faults `op.not_found`, `op.conflict` if it is no regular file.
    pub async fn read_file(&self, path: &str, range: Range) -> Result<Download<UnixStream>, GuestError> {
        let path = path.to_owned();
        match self.open(Hello::ReadFile { path, range }).await? {
            (Opened::Content(content), stream) => Ok(Download::new(stream, Some(content))),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Replaces or makes a file; it is there once [`Upload::finish`] is through.
    ///
    /// # Errors
    /// [`GuestError`]; the fault `op.precondition_failed` if `must` does not hold.
    pub async fn write_file(
        &self,
        path: &str,
        mode: Option<u32>,
        create_parents: bool,
        must: Precondition,
    ) -> Result<Upload<UnixStream>, GuestError> {
        self.upload(Hello::WriteFile {
            path: path.to_owned(),
            mode,
            create_parents,
            must,
        })
        .await
    }

    /// A directory or file as a tar stream.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn tar_out(&self, path: &str) -> Result<Download<UnixStream>, GuestError> {
        let path = path.to_owned();
        match self.open(Hello::TarOut { path }).await? {
            (Opened::Ready, stream) => Ok(Download::new(stream, None)),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Unpacks a tar stream into a directory.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn tar_in(&self, path: &str) -> Result<Upload<UnixStream>, GuestError> {
        let path = path.to_owned();
        self.upload(Hello::TarIn { path }).await
    }

    async fn upload(&self, hello: Hello) -> Result<Upload<UnixStream>, GuestError> {
        match self.open(hello).await? {
            (Opened::Ready, stream) => Ok(Upload::new(stream)),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// A TCP connection to a port inside.
    ///
    /// # Errors
    /// [`GuestError`]; the fault `service.unavailable` if nothing listens there.
    pub async fn connect_port(&self, port: u16) -> Result<UnixStream, GuestError> {
        match self.open(Hello::Connect { port }).await? {
            (Opened::Connected, stream) => Ok(stream),
            _ => Err(GuestError::Unexpected),
        }
    }

    /// Waits until a process inside connects to the proxy or a forwarded address. Call it from a few
    /// tasks at once; each call is one connection.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn accept_egress(&self) -> Result<(OpenedEgress, UnixStream), GuestError> {
        match self.open(Hello::Egress).await? {
            (Opened::Egress(egress), stream) => Ok((egress, stream)),
            _ => Err(GuestError::Unexpected),
        }
    }
}
