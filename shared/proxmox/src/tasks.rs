//! Tasks: asking, listing, waiting.

use reqwest::Method;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::client::Client;
use crate::error::ProxmoxError;
use crate::request::TaskFilter;
use crate::transport::Call;
use crate::types::{TaskListEntry, TaskLogLine, TaskStatus};
use crate::upid::Upid;

/// Wrong answers in a row after which waiting makes no sense.
const MAX_WRONG: u32 = 5;
/// Lines of the log that a failure carries.
const TAIL: usize = 20;
/// PVE counts `limit` from the first line, so the tail is cut off here.
const MAX_LINES: u32 = 5000;

/// How a task ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskOutcome {
    /// Without a remark.
    Ok,
    /// With warnings, which are in its log; the work is done.
    Warnings(String),
}

impl Client {
    /// How a task is doing, asked on its own node.
    pub async fn task_status(&self, upid: &Upid) -> Result<TaskStatus, ProxmoxError> {
        let template = "/nodes/{node}/tasks/{upid}/status";
        let call = Call::new(Method::GET, template, &[upid.node(), upid.as_str()]).within(self.poll_timeout);
        self.transport.send(call).await
    }

    /// The last `limit` lines of a task's log.
    pub async fn task_log(&self, upid: &Upid, limit: usize) -> Result<Vec<TaskLogLine>, ProxmoxError> {
        let template = "/nodes/{node}/tasks/{upid}/log";
        let call = Call::new(Method::GET, template, &[upid.node(), upid.as_str()]).with("limit", MAX_LINES);
        let mut lines: Vec<TaskLogLine> = self.transport.send(call.within(self.poll_timeout)).await?;
        lines.drain(..lines.len().saturating_sub(limit));
        Ok(lines)
    }

    /// Tasks of a node, the latest first.
    pub async fn tasks(&self, node: &str, filter: &TaskFilter) -> Result<Vec<TaskListEntry>, ProxmoxError> {
        let call = Call::new(Method::GET, "/nodes/{node}/tasks", &[node])
            .with_some("vmid", filter.vmid)
            .with_some("typefilter", filter.kind.as_deref())
            .with_some("source", filter.all.then_some("all"))
            .with_some("limit", filter.limit);
        self.transport.send(call).await
    }

    /// Asks a task to stop. It may still end well.
    pub async fn stop_task(&self, upid: &Upid) -> Result<(), ProxmoxError> {
        let call = Call::new(
            Method::DELETE,
            "/nodes/{node}/tasks/{upid}",
            &[upid.node(), upid.as_str()],
        );
        self.transport.send(call).await
    }

    /// Waits until a task has ended, asking at growing, jittered intervals.
    ///
    /// Broken connections, timeouts and nodes that cannot be reached are waited out until `deadline`:
    /// the task goes on meanwhile. Safe to drop and to call again.
    ///
    /// # Errors
    /// [`ProxmoxError::TaskFailed`] with the end of the log, or what its last words mean
    /// ([`ProxmoxError::AlreadyExists`], [`ProxmoxError::Locked`], …); [`ProxmoxError::TaskTimeout`]
    /// at the deadline; whatever the poll says when it can never succeed.
    pub async fn wait_task(&self, upid: &Upid, deadline: Instant) -> Result<TaskOutcome, ProxmoxError> {
        let late = || ProxmoxError::TaskTimeout { upid: upid.clone() };
        let began = Instant::now();
        let wait = self.pace.wait(upid.kind());
        let mut wrong = 0;
        loop {
            match timeout_at(deadline, self.task_status(upid))
                .await
                .map_err(|_| late())?
            {
                Ok(status) if status.status == "stopped" => {
                    let outcome = self.outcome(upid, status.exitstatus).await;
                    if outcome.is_ok() {
                        wait.ended(began.elapsed());
                    }
                    return outcome;
                }
                Ok(_) => wrong = 0,
                Err(error) if error.is_transient() => {
                    tracing::debug!(%upid, %error, "could not ask for the task");
                }
                // Garbage and inner errors of PVE pass; a refusal of the credential or the name does not.
                Err(ProxmoxError::Garbage { .. } | ProxmoxError::Rejected { status: 500.., .. })
                    if wrong < MAX_WRONG =>
                {
                    wrong += 1;
                }
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(late());
            }
            // Between half and the whole of the pause, so that waiters started together spread out.
            let share = 0.5 + rand::random::<f64>() / 2.0;
            let pause = wait.pause(began.elapsed(), self.task_poll);
            sleep_until((now + pause.mul_f64(share)).min(deadline)).await;
        }
    }

    async fn outcome(&self, upid: &Upid, exitstatus: Option<String>) -> Result<TaskOutcome, ProxmoxError> {
        let exitstatus = exitstatus.unwrap_or_else(|| "unexpected status".to_owned());
        if let Some(outcome) = good(&exitstatus) {
            return Ok(outcome);
        }
        if let Some(known) = ProxmoxError::known(&exitstatus) {
            return Err(known);
        }
        // The last words alone are often useless ("migration aborted"); without a log they must do.
        let log = match timeout(self.poll_timeout, self.task_log(upid, TAIL)).await {
            Ok(Ok(lines)) => lines.into_iter().map(|line| line.t).collect(),
            _ => Vec::new(),
        };
        Err(ProxmoxError::TaskFailed {
            upid: upid.clone(),
            exitstatus,
            log,
        })
    }
}

fn good(exitstatus: &str) -> Option<TaskOutcome> {
    match exitstatus {
        "OK" => Some(TaskOutcome::Ok),
        warnings if warnings.starts_with("WARNINGS") => Some(TaskOutcome::Warnings(warnings.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_tasks() {
        assert_eq!(good("OK"), Some(TaskOutcome::Ok));
        assert_eq!(
            good("WARNINGS: 1"),
            Some(TaskOutcome::Warnings("WARNINGS: 1".to_owned()))
        );
        for bad in ["got timeout", "", "unexpected status", "ok"] {
            assert_eq!(good(bad), None, "{bad}");
        }
    }
}
