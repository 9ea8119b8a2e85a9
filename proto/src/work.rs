//! Durable work queues.

use std::time::Duration;

use nimbus_bus::Work;
use nimbus_model::OperationId;

/// "Look at this operation": wakes one replica of the provisioner; the operation's row is the truth.
#[derive(Clone, Copy, Debug)]
pub struct Operate;

impl Work for Operate {
    const QUEUE: &'static str = "operate";
    const ACK_WAIT: Duration = Duration::from_secs(15);
    type Item = OperationId;
}
