//! Commands whose output is collected, and single questions to the guest.

use std::time::Duration;

use bytes::Bytes;
use nimbus_guest::protocol::{Reply, Request, Since};
use nimbus_proto::agent::{AgentControl, AgentExec};
use nimbus_proto::workloads::ExecReply;
use tokio::time::timeout;

use crate::agent::Agent;
use crate::error::AgentError;
use crate::streams::{check_command, check_lease};

/// At most so much of each output is kept.
const KEEP_MOST: u32 = 1 << 20;
/// A question is answered at once, or not at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(7);

/// Runs a command once, however often it is asked for, and collects what it writes.
///
/// # Errors
/// [`AgentError::NotRunning`], the guest's faults.
pub(crate) async fn exec(agent: &Agent, request: AgentExec) -> Result<ExecReply, AgentError> {
    let AgentExec {
        sandbox,
        lease,
        mut command,
        stdin,
        keep_bytes,
    } = request;
    let sandbox = agent.registry.get(&sandbox)?;
    check_lease(agent, &sandbox, lease.as_ref())?;
    check_command(&command.id)?;
    let running = sandbox.running()?;
    let _used = sandbox.activity.enter();
    let has_input = !stdin.is_empty();
    command.stdin |= has_input;
    let id = command.id.clone();
    let attached = running.guest.run(command, Since::Offset(0), has_input).await?;
    // An earlier call gave its input; giving it again from where it was taken is the guest's to sort out.
    let taken = usize::try_from(attached.opened().input).unwrap_or(usize::MAX);
    let input = has_input.then(|| Bytes::from(stdin).split_off_from(taken));
    let keep = usize::try_from(keep_bytes.min(KEEP_MOST)).unwrap_or_default();
    let collected = attached.collect(input, keep).await?;
    Ok(ExecReply {
        command: id,
        code: collected.exit.code,
        signal: collected.exit.signal,
        timed_out: collected.exit.timed_out,
        stdout: collected.stdout,
        stderr: collected.stderr,
        truncated: collected.truncated,
    })
}

/// What is left from an offset on.
trait SplitOffFrom {
    fn split_off_from(self, offset: usize) -> Self;
}

impl SplitOffFrom for Bytes {
    fn split_off_from(mut self, offset: usize) -> Self {
        self.split_off(offset.min(self.len()))
    }
}

/// Asks the guest.
///
/// # Errors
/// [`AgentError::NotRunning`]; [`AgentError::Invalid`] for what is the agent's alone; the guest's faults.
pub(crate) async fn control(agent: &Agent, request: AgentControl) -> Result<Reply, AgentError> {
    let sandbox = agent.registry.get(&request.sandbox)?;
    match &request.request {
        Request::Claim(_) | Request::Shutdown => {
            return Err(AgentError::Invalid(
                "this question is the agent's alone".to_owned(),
            ));
        }
        Request::Forget { command } => check_command(command)?,
        _ => {}
    }
    let running = sandbox.running()?;
    let _used = sandbox.activity.enter();
    let asked = async {
        let mut control = running.guest.control().await?;
        Ok(control.ask(&request.request).await?)
    };
    timeout(ANSWER_LIMIT, asked)
        .await
        .unwrap_or(Err(AgentError::SlowStart {
            limit_s: ANSWER_LIMIT.as_secs(),
        }))
}
