//! What hosts tell, and what they are told to do.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nimbus_model::{Hostname, Timestamp};
use nimbus_proto::event::{EgressDenied, HostChanged};
use nimbus_proto::workloads::{BeatReply, BeatRequest, Observation, ReportRequest};

use crate::error::WorkError;
use crate::hosts::row;
use crate::sandboxes::record::{self, Record};
use crate::works::Works;

/// How long after its end a sandbox may still be listed as active before its host is reminded.
const OVERDUE: Duration = Duration::from_secs(5);
/// News of one host that are written at the same time, so that they share a flush.
const TOGETHER: usize = 64;

impl Works {
    /// A sign of life: writes it down, takes the news, and says what has to change.
    pub(crate) async fn beat(&self, beat: BeatRequest) -> Result<BeatReply, WorkError> {
        let host = host_of(&beat.host)?;
        let (works, now) = (self.clone(), self.now());
        let written = beat.clone();
        let row = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let (before, after) = row::see(tx, &written, now).await?;
                    let same = before.is_some_and(|before| {
                        before.facts == after.facts && before.boot == after.boot && !before.lost
                    });
                    if !same {
                        works.tell(tx, &HostChanged { host: after.shown() }).await?;
                    }
                    Ok::<_, WorkError>((after, same))
                })
            })
            .await?;
        let (row, same) = row;
        if !same {
            self.outbox.nudge();
        }
        self.hosts.put(row);

        self.observe_all(&host, &beat.boot, &beat.sandboxes).await?;
        let records = record::of_host(&self.store, host.as_str()).await?;
        let unlisted: Vec<String> = {
            let wanted: std::collections::HashSet<&str> = records.iter().map(Record::id).collect();
            beat.sandboxes
                .iter()
                .map(|seen| &seen.sandbox)
                .filter(|id| !wanted.contains(id.as_str()))
                .cloned()
                .collect()
        };
        let known: HashMap<String, bool> = record::known(&self.store, host.as_str(), &unlisted)
            .await?
            .into_iter()
            .collect();
        Ok(orders(&records, &known, &beat.sandboxes, self.now()))
    }

    /// News of sandboxes, and connections that were refused.
    pub(crate) async fn report(&self, report: ReportRequest) -> Result<(), WorkError> {
        let host = host_of(&report.host)?;
        self.observe_all(&host, &report.boot, &report.observations)
            .await?;
        let mut denials = Vec::new();
        for denial in report.denials {
            // One that is not known, or not here, cannot be told of in a tenant's name.
            if let Some(record) = self.find_sandbox(&denial.sandbox).await?
                && record.host == host
            {
                tracing::info!(
                    target: "audit",
                    action = "egress.denied",
                    tenant = record.tenant(),
                    on = %denial.sandbox,
                    protocol = %denial.protocol,
                    host = %denial.host,
                    port = denial.port,
                    reason = %denial.reason,
                    "refused a connection of {} to {}:{}",
                    denial.sandbox,
                    denial.host,
                    denial.port
                );
                denials.push(EgressDenied {
                    tenant: record.tenant().to_owned(),
                    denial,
                });
            }
        }
        if !denials.is_empty() {
            let works = self.clone();
            self.store
                .write(move |tx| {
                    Box::pin(async move {
                        for denial in &denials {
                            works.tell(tx, denial).await?;
                        }
                        Ok::<_, WorkError>(())
                    })
                })
                .await?;
            self.outbox.nudge();
        }
        Ok(())
    }

    async fn observe_all(&self, host: &Hostname, boot: &str, seen: &[Observation]) -> Result<(), WorkError> {
        for some in seen.chunks(TOGETHER) {
            let mut under_way: FuturesUnordered<_> = FuturesUnordered::new();
            for one in some {
                under_way.push(self.observe(host, Some(boot), one));
            }
            while let Some(outcome) = under_way.next().await {
                outcome?;
            }
        }
        Ok(())
    }
}

fn host_of(name: &str) -> Result<Hostname, WorkError> {
    name.parse()
        .map_err(|error: nimbus_model::HostnameError| WorkError::invalid("host", error.to_string()))
}

/// What a host has to change: `records` are what it shall run, `known` whether what it lists besides
/// still counts. Pure.
fn orders(
    records: &[Record],
    known: &HashMap<String, bool>,
    listed: &[Observation],
    now: Timestamp,
) -> BeatReply {
    let mut reply = BeatReply::default();
    let seen: HashMap<&str, &Observation> = listed.iter().map(|one| (one.sandbox.as_str(), one)).collect();
    for record in records {
        match seen.get(record.id()) {
            // One whose launch is under way may arrive there any moment.
            None => {
                if record.launched {
                    reply.expected.push(record.id().to_owned());
                }
            }
            Some(one) if one.lifecycle.is_final() => {}
            Some(_) => {
                let overdue = record
                    .shown
                    .status
                    .expires_at
                    .is_some_and(|at| now > at.after(OVERDUE));
                if let Some(reason) = &record.stop_reason {
                    reply.stop.push((record.id().to_owned(), reason.clone()));
                } else if overdue {
                    reply.stop.push((record.id().to_owned(), "TtlExpired".to_owned()));
                }
            }
        }
    }
    let mine: std::collections::HashSet<&str> = records.iter().map(Record::id).collect();
    for one in listed.iter().filter(|one| !mine.contains(one.sandbox.as_str())) {
        match known.get(&one.sandbox) {
            // Its record is kept, and its logs with it.
            Some(_) if one.lifecycle.is_final() => {}
            // It counts, but was placed after the records were read.
            Some(true) => {}
            Some(false) | None => reply.remove.push(one.sandbox.clone()),
        }
    }
    reply
}

#[cfg(test)]
mod tests {
    use nimbus_bus::Method;
    use nimbus_proto::workloads::{GetSandbox, Lifecycle, Report};

    use super::*;
    use crate::state::Seen;

    fn record(id: &str) -> Record {
        let mut shown = GetSandbox::sample_reply();
        shown.id = id.to_owned();
        shown.status.expires_at = None;
        Record {
            shown,
            made_by: None,
            host: "host-a".parse().unwrap(),
            charged: true,
            stop_reason: None,
            launched: true,
            launch_until: Timestamp::from_micros(0),
            seen: Seen {
                boot: None,
                sequence: 0,
                at: Timestamp::from_micros(0),
            },
            ended_at: None,
            version: 1,
        }
    }

    fn listed(id: &str, lifecycle: Lifecycle) -> Observation {
        Observation {
            sandbox: id.to_owned(),
            lifecycle,
            ..Report::sample_request().observations[0].clone()
        }
    }

    #[test]
    fn a_host_is_told_what_differs() {
        let mut launching = record("launching");
        launching.launched = false;
        let mut stopping = record("stopping");
        stopping.stop_reason = Some("StoppedByRequest".into());
        let mut late = record("late");
        late.shown.status.expires_at = Some(Timestamp::from_micros(0));
        let records = [record("lost"), record("fine"), launching, stopping, late];
        let known = HashMap::from([("ended".to_owned(), false), ("zombie".to_owned(), false)]);
        let list = [
            listed("fine", Lifecycle::Ready),
            listed("stopping", Lifecycle::Ready),
            listed("late", Lifecycle::Ready),
            listed("ended", Lifecycle::Stopped),
            listed("zombie", Lifecycle::Ready),
            listed("stranger", Lifecycle::Stopped),
        ];
        let reply = orders(&records, &known, &list, Timestamp::from_micros(60_000_000));
        assert_eq!(reply.expected, ["lost"]);
        assert_eq!(
            reply.stop,
            [
                ("stopping".to_owned(), "StoppedByRequest".to_owned()),
                ("late".to_owned(), "TtlExpired".to_owned())
            ]
        );
        assert_eq!(reply.remove, ["zombie", "stranger"]);
    }
}
