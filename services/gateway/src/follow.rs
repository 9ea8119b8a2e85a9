//! Waiting for an operation. Events wake us; the operation's row is the truth. Whoever waits may
//! leave: the work goes on without them.

use std::sync::Arc;

use nimbus_errors::{Code, Fault};
use nimbus_model::OperationId;
use nimbus_proto::machine::{GetOperation, Operation};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::limits::{OPERATION, OPERATION_POLL};
use crate::extract::Signed;
use crate::hub::News;
use crate::state::App;

/// An operation that is waited for.
pub(crate) struct Follow {
    app: App,
    signed: Signed,
    id: OperationId,
    news: News,
    deadline: Instant,
    asked: bool,
}

impl Follow {
    pub(crate) fn new(app: &App, signed: &Signed, id: OperationId) -> Self {
        let news = app.hub.watch(id);
        Self {
            app: app.clone(),
            signed: signed.clone(),
            id,
            news,
            deadline: Instant::now() + OPERATION,
            asked: false,
        }
    }

    /// The next state that is known: at once the first time, later whenever something has happened.
    pub(crate) async fn next(&mut self) -> Result<Arc<Operation>, Fault> {
        if !self.asked {
            // What happened between the order and our listening.
            self.asked = true;
            return self.ask().await;
        }
        let poll = (Instant::now() + OPERATION_POLL).min(self.deadline);
        tokio::select! {
            news = timeout_at(self.deadline, self.news.next()) => match news {
                Ok(Some(operation)) => Ok(operation),
                Ok(None) => self.ask().await,
                Err(_) => Err(self.too_long()),
            },
            () = sleep_until(poll) => {
                if Instant::now() >= self.deadline { return Err(self.too_long()) }
                self.ask().await
            }
            () = self.app.stop.cancelled() => Err(Fault::new(
                Code::ServiceUnavailable,
                format!("the server stops; the operation goes on, see /api/operations/{}", self.id),
            ).with_detail(&self.detail())),
        }
    }

    /// The operation when it has ended.
    pub(crate) async fn end(&mut self) -> Result<Arc<Operation>, Fault> {
        loop {
            let operation = self.next().await?;
            if operation.state.is_final() {
                return Ok(operation);
            }
        }
    }

    async fn ask(&self) -> Result<Arc<Operation>, Fault> {
        // Again for each question: access tokens live for minutes, operations may take longer.
        let principal = self.app.principals.find(&self.signed.credential).await?;
        self.app
            .ask_for::<GetOperation>(&principal, &self.id)
            .await
            .map(Arc::new)
    }

    fn too_long(&self) -> Fault {
        let message = format!(
            "the operation is still running after {} min; it goes on, see /api/operations/{}",
            OPERATION.as_secs() / 60,
            self.id
        );
        Fault::new(Code::ServiceTimeout, message).with_detail(&self.detail())
    }

    fn detail(&self) -> serde_json::Value {
        serde_json::json!({ "operation_id": self.id.to_string() })
    }
}

/// The fault of an operation that did not succeed.
pub(crate) fn failure(operation: &Operation) -> Fault {
    operation
        .fault
        .clone()
        .unwrap_or_else(|| Fault::new(Code::ServiceInternal, "the operation failed without saying why"))
}
