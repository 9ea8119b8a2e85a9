//! What reaches into sandboxes: streams and questions, on behalf of whoever sent the request.
//!
//! `workloads` decides who may; here is only how. A stream is subscribed to before it is asked for,
//! so nothing that the sandbox sends is missed.

use nimbus_bus::{AccessToken, BusStream, Side, StreamHandle, StreamId};
use nimbus_errors::{Code, Fault};
use nimbus_guest::frame;
use nimbus_guest::protocol::{GuestFault, Hello, Opened, Reply, Request};
use nimbus_guest::{Attachment, GuestError};
use nimbus_proto::Secret;
use nimbus_proto::workloads::{
    Control, ControlRequest, Open, OpenPreview, OpenReply, OpenRequest, Through, Wanted,
};

use crate::state::{App, timed};

/// An open stream to a sandbox.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Its bytes.
    pub(crate) stream: BusStream,
    /// What was said when it was opened.
    pub(crate) reply: OpenReply,
}

/// An attachment to a command, and what else is known about its stream.
pub(crate) struct Attached {
    pub(crate) attachment: Attachment<BusStream>,
    pub(crate) handle: StreamHandle,
    pub(crate) reply: OpenReply,
}

impl App {
    /// Opens a stream. `word` names it in subjects: `stdio`, `files`, `port`, `logs`, `cdp`.
    pub(crate) async fn open_channel(
        &self,
        token: &AccessToken,
        through: Through,
        word: &'static str,
        wanted: Wanted,
    ) -> Result<Channel, Fault> {
        let (stream, request) = self.prepare(through, word, wanted).await?;
        let call = self.bus.call::<Open>(&request).with_token(token);
        let reply = timed(&self.metrics, call).await?;
        Ok(Channel { stream, reply })
    }

    /// Opens a port of a sandbox by a preview link.
    pub(crate) async fn open_preview(&self, token: Secret, port: u16) -> Result<Channel, Fault> {
        let wanted = Wanted::Guest(Hello::Connect { port });
        let (stream, request) = self.prepare(Through::Preview { token }, "port", wanted).await?;
        let reply = timed(&self.metrics, self.bus.call::<OpenPreview>(&request)).await?;
        Ok(Channel { stream, reply })
    }

    async fn prepare(
        &self,
        through: Through,
        word: &'static str,
        wanted: Wanted,
    ) -> Result<(BusStream, OpenRequest), Fault> {
        let id = StreamId::fresh();
        let stream = self.bus.stream(id, word, Side::Client).await?;
        let request = OpenRequest {
            stream: id,
            word: word.to_owned(),
            through,
            wanted,
        };
        Ok((stream, request))
    }

    /// Opens a stream in the guest's protocol; gives what the guest said to the hello, too.
    pub(crate) async fn open_guest(
        &self,
        token: &AccessToken,
        through: Through,
        word: &'static str,
        hello: Hello,
    ) -> Result<(Opened, Channel), Fault> {
        let channel = self
            .open_channel(token, through, word, Wanted::Guest(hello))
            .await?;
        let opened = frame::decode::<Opened>(&channel.reply.hello).map_err(|_| {
            Fault::new(
                Code::BusSchemaMismatch,
                "the sandbox' answer is of another version",
            )
        })?;
        Ok((opened, channel))
    }

    /// Runs a command or attaches to one.
    pub(crate) async fn attach(
        &self,
        token: &AccessToken,
        through: Through,
        hello: Hello,
    ) -> Result<Attached, Fault> {
        let (opened, channel) = self.open_guest(token, through, "stdio", hello).await?;
        let Opened::Command(opened) = opened else {
            return Err(unexpected());
        };
        Ok(Attached {
            handle: channel.stream.handle(),
            attachment: Attachment::new(channel.stream, opened),
            reply: channel.reply,
        })
    }

    /// Asks the guest one question.
    pub(crate) async fn control(
        &self,
        token: &AccessToken,
        through: Through,
        request: Request,
    ) -> Result<Reply, Fault> {
        let request = ControlRequest { through, request };
        timed(
            &self.metrics,
            self.bus.call::<Control>(&request).with_token(token),
        )
        .await
    }
}

/// An answer to another question.
pub(crate) fn unexpected() -> Fault {
    Fault::new(
        Code::ServiceInternal,
        "the sandbox gave an answer to another question",
    )
}

/// The guest's refusal as ours.
pub(crate) fn refusal(fault: GuestFault) -> Fault {
    let code = Code::find(&fault.code).unwrap_or(Code::ServiceInternal);
    let detail = serde_json::to_value(&fault.detail).unwrap_or_default();
    let ours = Fault::new(code, fault.message);
    if fault.detail.is_empty() {
        ours
    } else {
        ours.with_detail(&detail)
    }
}

/// Why reading or writing a stream failed; the reason that its end came with says it best.
pub(crate) fn failure(error: GuestError, handle: &StreamHandle) -> Fault {
    match error {
        GuestError::Fault(fault) => refusal(fault),
        GuestError::Unexpected => unexpected(),
        GuestError::Unreachable(_) | GuestError::Broken(_) | GuestError::Ended => {
            let reason = handle.ended();
            let message = reason.map_or_else(
                || "the sandbox ended the stream".to_owned(),
                |reason| reason.message,
            );
            Fault::new(Code::ServiceUnavailable, message)
        }
    }
}
