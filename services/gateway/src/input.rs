//! Input for a command from one request: attach, give, wait until it was taken, let go.

use std::time::Duration;

use bytes::Bytes;
use nimbus_bus::AccessToken;
use nimbus_errors::{Code, Fault};
use nimbus_guest::GuestError;
use nimbus_guest::frame::{self, FrameReader};
use nimbus_guest::protocol::{FromCommand, Hello, MAX_CHUNK, Opened, Since, TerminalSize, ToCommand};
use nimbus_proto::workloads::Through;
use tokio::io::AsyncWriteExt;

use crate::channel::{failure, refusal, unexpected};
use crate::envelope::Answer;
use crate::state::App;

/// How long the other side may take to read the end of the input.
const CLOSING: Duration = Duration::from_secs(2);

/// What is to be given.
#[derive(Debug)]
pub(crate) struct Given {
    /// How much was given before, as the client counts; none for "whatever there is".
    pub(crate) offset: Option<u64>,
    pub(crate) bytes: Bytes,
    /// Whether the input ends with it.
    pub(crate) end: bool,
    pub(crate) resize: Option<TerminalSize>,
}

impl Given {
    pub(crate) fn is_nothing(&self) -> bool {
        self.bytes.is_empty() && !self.end && self.resize.is_none()
    }
}

/// Gives the input; answers with how much the command has taken in all.
pub(crate) async fn give(
    app: &App,
    token: &AccessToken,
    through: Through,
    command: String,
    given: Given,
) -> Answer<u64> {
    let hello = Hello::Attach {
        command,
        since: Since::Tail(0),
        input: true,
    };
    let (opened, channel) = app.open_guest(token, through, "stdio", hello).await?;
    let Opened::Command(opened) = opened else {
        return Err(unexpected().into());
    };
    if opened.exit.is_some() {
        return Err(Fault::new(Code::OpConflict, "the command has ended").into());
    }
    let handle = channel.stream.handle();
    let (reader, mut writer) = tokio::io::split(channel.stream);
    let mut reader = FrameReader::new(reader);
    let broken = |error| failure(GuestError::Broken(error), &handle);

    if let Some(size) = given.resize {
        frame::write(&mut writer, &ToCommand::Resize(size))
            .await
            .map_err(broken)?;
    }
    let mut offset = given.offset.unwrap_or(opened.input);
    let mut rest = given.bytes;
    while !rest.is_empty() {
        let bytes = rest.split_to(rest.len().min(MAX_CHUNK));
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        frame::write(&mut writer, &ToCommand::Input { offset, bytes })
            .await
            .map_err(broken)?;
        offset = offset.saturating_add(length);
    }
    let mut accepted = opened.input;
    while accepted < offset {
        match reader.next::<FromCommand>().await.map_err(broken)? {
            Some(FromCommand::InputAccepted(now)) => accepted = accepted.max(now),
            Some(FromCommand::Fault(fault)) => return Err(refusal(fault).into()),
            Some(FromCommand::Exit(_)) => {
                return Err(
                    Fault::new(Code::OpConflict, "the command ended before it took the input").into(),
                );
            }
            Some(FromCommand::Output { .. }) => {}
            None => return Err(failure(GuestError::Ended, &handle).into()),
        }
    }
    if given.end {
        frame::write(&mut writer, &ToCommand::InputEnd { offset })
            .await
            .map_err(broken)?;
        // It has no answer. Nothing more comes from here, so when the other side has read it all, it lets
        // go, too; how that ends is of no interest any more.
        let closing = async {
            writer.shutdown().await.ok()?;
            while let Ok(Some(_)) = reader.next::<FromCommand>().await {}
            Some(())
        };
        let _ = tokio::time::timeout(CLOSING, closing).await;
    }
    Ok(accepted)
}
