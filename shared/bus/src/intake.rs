//! Taking messages until told to stop, and then those that are here already.

use async_nats::{Message, Subscriber};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

/// A subscription whose end is asked for by a token.
pub(crate) struct Intake {
    subscription: Subscriber,
    stop: CancellationToken,
    draining: bool,
}

impl Intake {
    pub(crate) fn new(subscription: Subscriber, stop: CancellationToken) -> Self {
        Self {
            subscription,
            stop,
            draining: false,
        }
    }

    /// The next message; `None` when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                message = self.subscription.next() => return message,
                () = self.stop.cancelled(), if !self.draining => {
                    self.draining = true;
                    // What is already here is still served; an error means that nothing more can come.
                    self.subscription.drain().await.ok()?;
                }
            }
        }
    }
}
