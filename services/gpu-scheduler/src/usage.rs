//! What people have used of the models, by day.

use std::time::Duration;

use nimbus_bus::Identity;
use nimbus_model::{Timestamp, UserId};
use nimbus_proto::gpu::{Usage, UsageRecord, UsageRequest};
use nimbus_store::{execute, reading, sqlx};
use time::OffsetDateTime;

use crate::error::GpuError;
use crate::plane::Plane;
use crate::queue::Viewer;
use crate::rows::{signed, unsigned};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The most records of one call.
const RECORDS: usize = 10_000;

/// The day of a time, in UTC.
fn day(at: Timestamp) -> String {
    OffsetDateTime::from_unix_timestamp(at.micros().div_euclid(1_000_000))
        .map(|at| at.date().to_string())
        .unwrap_or_default()
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    day: String,
    owner: UserId,
    model: String,
    requests: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    estimated: i64,
}

impl Plane {
    /// Adds records to the sums; one that was added before counts no more.
    pub(crate) async fn record_usage(&self, records: Vec<UsageRecord>) -> Result<(), GpuError> {
        const SEEN: &str = "INSERT INTO gpu_usage_seen (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
        const ADD: &str =
            "INSERT INTO gpu_usage (day, owner, model, requests, prompt_tokens, completion_tokens, estimated)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (day, owner, model) DO UPDATE SET requests = gpu_usage.requests + excluded.requests,
                prompt_tokens = gpu_usage.prompt_tokens + excluded.prompt_tokens,
                completion_tokens = gpu_usage.completion_tokens + excluded.completion_tokens,
                estimated = CASE WHEN excluded.estimated = 1 THEN 1 ELSE gpu_usage.estimated END";
        if records.len() > RECORDS {
            return Err(GpuError::invalid("records", format!("at most {RECORDS}")));
        }
        let now = self.clock.now();
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    // In one order, so that two that add at the same time do not wait for each other.
                    let mut records = records;
                    records.sort_by(|a, b| a.id.cmp(&b.id));
                    let mut fresh = Vec::new();
                    for record in records {
                        if execute!(tx, sqlx::query(SEEN).bind(&record.id).bind(now))? == 1 {
                            fresh.push(record);
                        }
                    }
                    fresh.sort_by_key(|record| (day(record.at), record.user, record.model.clone()));
                    for record in fresh {
                        let model: String = record.model.chars().take(256).collect();
                        execute!(
                            tx,
                            sqlx::query(ADD)
                                .bind(day(record.at))
                                .bind(record.user)
                                .bind(model)
                                .bind(i64::from(record.requests))
                                .bind(signed(record.prompt_tokens))
                                .bind(signed(record.completion_tokens))
                                .bind(i64::from(record.estimated))
                        )?;
                    }
                    Ok::<_, GpuError>(())
                })
            })
            .await
    }

    pub(crate) async fn usage(
        &self,
        identity: &Identity,
        request: UsageRequest,
    ) -> Result<Vec<Usage>, GpuError> {
        const SQL: &str =
            "SELECT day, owner, model, requests, prompt_tokens, completion_tokens, estimated FROM gpu_usage
            WHERE day >= $1 AND ($2 = 1 OR owner = $3) ORDER BY day DESC, owner, model";
        let everybody = request.everybody;
        if everybody && !Viewer::new(identity).is_admin() {
            return Err(GpuError::AdminOnly {
                what: "see what everybody used",
            });
        }
        let days = request.days.clamp(1, 366);
        let first = day(self.clock.now().before(DAY * (days - 1)));
        let rows: Vec<Row> = reading!(&self.store, |c| sqlx::query_as(SQL)
            .bind(first)
            .bind(i64::from(everybody))
            .bind(identity.user)
            .fetch_all(c)
            .await)?;
        Ok(rows
            .into_iter()
            .map(|row| Usage {
                day: row.day,
                user: row.owner,
                model: row.model,
                requests: unsigned(row.requests),
                prompt_tokens: unsigned(row.prompt_tokens),
                completion_tokens: unsigned(row.completion_tokens),
                estimated: row.estimated != 0,
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!(day(Timestamp::from_micros(0)), "1970-01-01");
        assert_eq!(day(Timestamp::from_micros(1_781_110_801_000_000)), "2026-06-10");
        assert_eq!(
            day(Timestamp::from_micros(1_781_110_801_000_000).before(DAY)),
            "2026-06-09"
        );
    }
}
