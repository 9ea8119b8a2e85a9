//! Tells `workloads` what was seen, as soon as there is something.
//!
//! Of each sandbox only the newest observation is worth telling; what cannot be delivered waits, and
//! the next beat carries it in any case.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use nimbus_bus::Bus;
use nimbus_model::Hostname;
use nimbus_proto::workloads::{Denial, Observation, Report, ReportRequest};
use nimbus_service::RunError;
use tokio::sync::{Mutex, mpsc};

/// Denials that wait at most; a sandbox that hammers at a closed door must not fill the memory.
const DENIALS: usize = 1000;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Something to tell.
#[derive(Debug)]
pub(crate) enum News {
    /// A sandbox changed.
    Seen(Box<Observation>),
    /// A connection was refused.
    Denied(Denial),
}

/// Takes news. Clones share.
#[derive(Clone)]
pub(crate) struct Reporter {
    send: mpsc::UnboundedSender<News>,
}

/// The other end, for the task that tells.
pub(crate) struct Inbox {
    receive: Mutex<mpsc::UnboundedReceiver<News>>,
}

impl Reporter {
    pub(crate) fn new() -> (Self, Inbox) {
        let (send, receive) = mpsc::unbounded_channel();
        (
            Self { send },
            Inbox {
                receive: Mutex::new(receive),
            },
        )
    }

    pub(crate) fn tell(&self, news: News) {
        // Without a receiver the agent is ending.
        let _ = self.send.send(news);
    }
}

#[derive(Default)]
struct Waiting {
    seen: HashMap<String, Observation>,
    denied: VecDeque<Denial>,
    dropped: u64,
}

impl Waiting {
    fn take(&mut self, news: News) {
        match news {
            News::Seen(seen) => {
                let newest = self
                    .seen
                    .get(&seen.sandbox)
                    .is_none_or(|known| known.sequence < seen.sequence);
                if newest {
                    self.seen.insert(seen.sandbox.clone(), *seen);
                }
            }
            News::Denied(denial) => {
                self.denied.push_back(denial);
                if self.denied.len() > DENIALS {
                    self.denied.pop_front();
                    self.dropped += 1;
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.denied.is_empty()
    }
}

impl Inbox {
    /// Tells everything, again until it is heard. Ends when nobody has news any more.
    ///
    /// # Errors
    /// None: the signature is that of a task.
    pub(crate) async fn run(&self, bus: Bus, host: Hostname, boot: String) -> Result<(), RunError> {
        let mut receive = self.receive.lock().await;
        let mut waiting = Waiting::default();
        let mut pause = RETRY_FIRST;
        loop {
            if waiting.is_empty() {
                let Some(news) = receive.recv().await else {
                    return Ok(());
                };
                waiting.take(news);
            }
            while let Ok(news) = receive.try_recv() {
                waiting.take(news);
            }
            let request = ReportRequest {
                host: host.to_string(),
                boot: boot.clone(),
                observations: waiting.seen.values().cloned().collect(),
                denials: waiting.denied.iter().cloned().collect(),
            };
            match bus.call::<Report>(&request).await {
                Ok(()) => {
                    waiting.seen.clear();
                    waiting.denied.clear();
                    if waiting.dropped > 0 {
                        tracing::warn!(
                            count = waiting.dropped,
                            "denied connections could not be told in time"
                        );
                        waiting.dropped = 0;
                    }
                    pause = RETRY_FIRST;
                }
                Err(fault) => {
                    tracing::debug!(cause = %fault, pause_ms = pause.as_millis(), "news could not be told yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MOST);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nimbus_bus::Method;
    use nimbus_proto::agent::Launch;

    use super::*;

    #[test]
    fn only_the_newest_observation_waits() {
        let mut waiting = Waiting::default();
        for sequence in [5, 7, 6] {
            let mut seen = Launch::sample_reply();
            seen.sequence = sequence;
            waiting.take(News::Seen(Box::new(seen)));
        }
        let kept: Vec<_> = waiting.seen.values().map(|seen| seen.sequence).collect();
        assert_eq!(kept, [7]);
    }

    #[test]
    fn denials_are_bounded_and_counted() {
        let mut waiting = Waiting::default();
        let denial = Report::sample_request().denials.remove(0);
        for _ in 0..=DENIALS {
            waiting.take(News::Denied(denial.clone()));
        }
        assert_eq!((waiting.denied.len(), waiting.dropped), (DENIALS, 1));
    }
}
