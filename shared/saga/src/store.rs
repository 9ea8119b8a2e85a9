//! Sagas in the tables of their service.

use std::sync::Arc;
use std::time::Duration;

use nimbus_model::{Clock, Timestamp};
use nimbus_store::{Engine, Store, StoreError, Tx, both, execute, reading};
use serde::Serialize;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use strum::VariantArray;

use crate::lease::Registry;
use crate::observer::Silent;
use crate::record::{Claimed, Key, Record};
use crate::schema::{ROWS, Sql};
use crate::{Event, Observer, Saga, SagaError, SagaEvent, State, What};

/// How long a lease lasts without a sign of life. A driver gives one three times as often.
const LEASE: Duration = Duration::from_secs(15);

/// The sagas of one service. Clones share the knowledge of which sagas this process drives.
#[derive(Clone)]
pub struct SagaStore {
    store: Store,
    sql: Arc<Sql>,
    pub(crate) clock: Clock,
    pub(crate) lease: Duration,
    observer: Arc<dyn Observer>,
    registry: Arc<Registry>,
}

type Row = (
    String,
    String,
    String,
    String,
    String,
    Timestamp,
    i64,
    Timestamp,
    Timestamp,
);
type EventRow = (i64, Option<String>, String, String, Timestamp);

impl SagaStore {
    /// The sagas in `<prefix>_saga` and `<prefix>_saga_event`, which [`ddl!`](crate::ddl!) made.
    #[must_use]
    pub fn new(store: Store, prefix: &str, clock: Clock) -> Self {
        Self {
            store,
            sql: Arc::new(Sql::new(prefix)),
            clock,
            lease: LEASE,
            observer: Arc::new(Silent),
            registry: Arc::default(),
        }
    }

    /// Tells `observer` every event, in the transaction that writes it.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets how long a lease lasts without a sign of life.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Where its tables are.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Creates a saga within the caller's transaction, for whoever claims it first.
    ///
    /// # Errors
    /// [`SagaError::Store`], also if the id is taken; [`SagaError::Params`].
    pub async fn create<S: Saga>(
        &self,
        tx: &mut Tx,
        id: &str,
        params: &(impl Serialize + Sync),
    ) -> Result<(), SagaError> {
        let key = Key {
            id: id.to_owned(),
            name: S::NAME.to_owned(),
            owner: String::new(),
            fence: 0,
        };
        let params = to_json(id, params)?;
        self.insert::<S>(tx, &key, &params, Timestamp::from_micros(0))
            .await
            .map(|_| ())
    }

    /// Creates a saga within the caller's transaction that this process drives as soon as that is
    /// committed: saves a claim. Drop the result if the transaction fails.
    ///
    /// # Errors
    /// As [`SagaStore::create`]; [`SagaError::Fenced`] if this process drives a saga of this id.
    pub async fn create_owned<S: Saga>(
        &self,
        tx: &mut Tx,
        id: &str,
        params: &(impl Serialize + Sync),
        owner: &str,
    ) -> Result<Claimed, SagaError> {
        let slot = self
            .registry
            .enter(id)
            .ok_or_else(|| SagaError::Fenced { id: id.to_owned() })?;
        let key = Key {
            id: id.to_owned(),
            name: S::NAME.to_owned(),
            owner: owner.to_owned(),
            fence: 1,
        };
        let params = to_json(id, params)?;
        let until = self.clock.now().after(self.lease);
        let event = self.insert::<S>(tx, &key, &params, until).await?;
        Ok(Claimed {
            key,
            params,
            fresh: true,
            until,
            events: vec![event],
            slot,
        })
    }

    /// As [`SagaStore::create_owned`] in a transaction of its own, which joins others on SQLite.
    ///
    /// # Errors
    /// As [`SagaStore::create_owned`].
    pub async fn begin_owned<S: Saga>(
        &self,
        id: &str,
        params: &(impl Serialize + Sync),
        owner: &str,
    ) -> Result<Claimed, SagaError> {
        let params = to_json(id, params)?;
        let (this, id, owner) = (self.clone(), id.to_owned(), owner.to_owned());
        self.store
            .write(move |tx| Box::pin(async move { this.create_owned::<S>(tx, &id, &params, &owner).await }))
            .await
    }

    /// The row and the note that the first step begins, which saves a commit of its own.
    async fn insert<S: Saga>(
        &self,
        tx: &mut Tx,
        key: &Key,
        params: &Value,
        until: Timestamp,
    ) -> Result<Event, SagaError> {
        let first = S::Step::VARIANTS
            .first()
            .ok_or(SagaError::NoSteps { name: S::NAME })?;
        let now = self.clock.now();
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.create));
        execute!(
            tx,
            sqlx::query(sql())
                .bind(&key.id)
                .bind(&key.name)
                .bind(params.to_string())
                .bind(&key.owner)
                .bind(until)
                .bind(key.fence)
                .bind(now)
        )?;
        let name: &'static str = (*first).into();
        let event = Event {
            seq: 1,
            step: Some(name.to_owned()),
            what: What::Started,
            data: Value::Null,
            at: now,
        };
        self.write_events(tx, key, State::Running, std::slice::from_ref(&event))
            .await?;
        Ok(event)
    }

    /// Takes the saga over if it is unfinished and nobody else's lease on it runs. The same owner may
    /// take over at once, as after a restart; but not what this very process drives already.
    ///
    /// # Errors
    /// [`SagaError::Store`]; [`SagaError::UnknownWord`] if a newer version wrote it.
    pub async fn claim(&self, id: &str, owner: &str) -> Result<Option<Claimed>, SagaError> {
        let Some(slot) = self.registry.enter(id) else {
            return Ok(None);
        };
        let now = self.clock.now();
        let until = now.after(self.lease);
        let (sql, id, owner) = (Arc::clone(&self.sql.claim), id.to_owned(), owner.to_owned());
        let (row_id, row_owner) = (id.clone(), owner.clone());
        let row: Option<(String, String, i64, i64)> = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let sql = || AssertSqlSafe(Arc::clone(&sql));
                    both!(tx, |c| {
                        sqlx::query_as(sql())
                            .bind(&row_id)
                            .bind(&row_owner)
                            .bind(until)
                            .bind(now)
                            .fetch_optional(c)
                            .await
                    })
                })
            })
            .await
            .map_err(|source: StoreError| SagaError::Store { source })?;
        let Some((name, params, fence, cancel)) = row else {
            return Ok(None);
        };
        if cancel != 0 {
            slot.cancel.cancel();
        }
        let params = from_json(&id, &params)?;
        let events = self.events(&id).await?;
        Ok(Some(Claimed {
            key: Key {
                id,
                name,
                owner,
                fence,
            },
            params,
            fresh: fence == 1,
            until,
            events,
            slot,
        }))
    }

    /// Claims up to `limit` unfinished sagas whose lease has run out (or that never had one), oldest first.
    ///
    /// # Errors
    /// [`SagaError::Store`]. A saga that cannot be read is logged and left out.
    pub async fn claim_abandoned(&self, owner: &str, limit: u32) -> Result<Vec<Claimed>, SagaError> {
        let mut claimed = Vec::new();
        for id in self.abandoned(limit).await? {
            match self.claim(&id, owner).await {
                Ok(one) => claimed.extend(one),
                Err(error @ SagaError::Store { .. }) => return Err(error),
                Err(error) => tracing::error!(saga.id = %id, %error, "cannot take over saga {id}: {error}"),
            }
        }
        Ok(claimed)
    }

    /// The ids of unfinished sagas that nobody drives, oldest first.
    ///
    /// # Errors
    /// [`SagaError::Store`].
    pub async fn abandoned(&self, limit: u32) -> Result<Vec<String>, SagaError> {
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.abandoned));
        let now = self.clock.now();
        Ok(reading!(&self.store, |c| sqlx::query_scalar(sql())
            .bind(now)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?)
    }

    /// Ends every lease if no other process can hold one, which is so on SQLite. To be called once when
    /// the service starts, before the first saga: what the last process left is then claimed at once.
    ///
    /// # Errors
    /// [`SagaError::Store`].
    pub async fn forget_leases(&self) -> Result<u64, SagaError> {
        if self.store.engine() != Engine::Sqlite {
            return Ok(0);
        }
        // Behind every write that waits, so that none of them renews a lease afterwards.
        let sql = Arc::clone(&self.sql.forget);
        let rows: Result<u64, StoreError> = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let sql = || AssertSqlSafe(Arc::clone(&sql));
                    execute!(tx, sqlx::query(sql()))
                })
            })
            .await;
        Ok(rows?)
    }

    /// Asks to take everything back. The driver, wherever it is, ends the step it is in (or interrupts
    /// it, where the saga allows that) and undoes. `false`: too late, or no such saga.
    ///
    /// # Errors
    /// [`SagaError::Store`].
    pub async fn request_cancel(&self, id: &str) -> Result<bool, SagaError> {
        let (sql, row_id) = (Arc::clone(&self.sql.cancel), id.to_owned());
        let rows: u64 = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let sql = || AssertSqlSafe(Arc::clone(&sql));
                    execute!(tx, sqlx::query(sql()).bind(&row_id))
                })
            })
            .await
            .map_err(|source: StoreError| SagaError::Store { source })?;
        if rows > 0 {
            self.registry.cancel(id);
        }
        Ok(rows > 0)
    }

    /// Lets a stuck saga try to undo again, for whoever claims it next. `false`: it is not stuck.
    ///
    /// # Errors
    /// [`SagaError::Store`].
    pub async fn reopen(&self, id: &str) -> Result<bool, SagaError> {
        let mut tx = self.store.begin().await?;
        let now = self.clock.now();
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.reopen));
        let name: Option<String> = both!(&mut tx, |c| sqlx::query_scalar(sql())
            .bind(id)
            .bind(now)
            .fetch_optional(c)
            .await)?;
        let Some(name) = name else { return Ok(false) };
        // The row is ours until the commit: nobody appends in between.
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.events));
        let rows: Vec<EventRow> = both!(&mut tx, |c| sqlx::query_as(sql()).bind(id).fetch_all(c).await)?;
        let seq = rows.last().map_or(0, |row| row.0).saturating_add(1);
        let key = Key {
            id: id.to_owned(),
            name,
            owner: String::new(),
            fence: 0,
        };
        let event = Event {
            seq,
            step: None,
            what: What::Reopened,
            data: Value::Null,
            at: now,
        };
        self.write_events(&mut tx, &key, State::Undoing, std::slice::from_ref(&event))
            .await?;
        tx.commit().await?;
        self.tell(&key, State::Undoing, std::slice::from_ref(&event));
        Ok(true)
    }

    /// The saga with everything that happened.
    ///
    /// # Errors
    /// [`SagaError::Store`]; [`SagaError::UnknownWord`] if a newer version wrote it.
    pub async fn find(&self, id: &str) -> Result<Option<Record>, SagaError> {
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.load));
        let row: Option<Row> = reading!(&self.store, |c| sqlx::query_as(sql())
            .bind(id)
            .fetch_optional(c)
            .await)?;
        let Some((id, name, params, state, owner, owner_until, cancel, created_at, updated_at)) = row else {
            return Ok(None);
        };
        let params = from_json(&id, &params)?;
        let state = word(&id, "state", &state)?;
        let events = self.events(&id).await?;
        let cancel = cancel != 0;
        Ok(Some(Record {
            id,
            name,
            params,
            state,
            owner,
            owner_until,
            cancel,
            created_at,
            updated_at,
            events,
        }))
    }

    /// Everything that happened to a saga, in order.
    ///
    /// # Errors
    /// As [`SagaStore::find`].
    pub async fn events(&self, id: &str) -> Result<Vec<Event>, SagaError> {
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.events));
        let rows: Vec<EventRow> =
            reading!(&self.store, |c| sqlx::query_as(sql()).bind(id).fetch_all(c).await)?;
        rows.into_iter()
            .map(|(seq, step, what, data, at)| {
                Ok(Event {
                    seq,
                    step,
                    what: word(id, "event", &what)?,
                    data: from_json(id, &data)?,
                    at,
                })
            })
            .collect()
    }

    /// Deletes sagas that ended well or were undone before `before`; stuck ones stay.
    ///
    /// # Errors
    /// [`SagaError::Store`].
    pub async fn prune(&self, before: Timestamp) -> Result<u64, SagaError> {
        let mut tx = self.store.begin().await?;
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.prune));
        let rows = execute!(&mut tx, sqlx::query(sql()).bind(before))?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Writes events, moves the state and renews the lease (or ends it, with the saga), if the lease
    /// is still ours. Says whether a cancel was asked for, and until when the lease now runs.
    pub(crate) async fn append(
        &self,
        key: &Key,
        state: State,
        events: &[Event],
    ) -> Result<(bool, Timestamp), SagaError> {
        let now = self.clock.now();
        let (owner, until) = if state.is_end() {
            (String::new(), Timestamp::from_micros(0))
        } else {
            (key.owner.clone(), now.after(self.lease))
        };
        let (this, row, batch) = (self.clone(), key.clone(), events.to_vec());
        let cancel = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let sql = || AssertSqlSafe(Arc::clone(&this.sql.advance));
                    let state_word: &'static str = state.into();
                    let cancel: Option<i64> = both!(tx, |c| {
                        sqlx::query_scalar(sql())
                            .bind(&row.id)
                            .bind(row.fence)
                            .bind(state_word)
                            .bind(&owner)
                            .bind(until)
                            .bind(now)
                            .fetch_optional(c)
                            .await
                    })?;
                    let Some(cancel) = cancel else {
                        return Err(SagaError::Fenced { id: row.id });
                    };
                    this.write_events(tx, &row, state, &batch).await?;
                    Ok(cancel != 0)
                })
            })
            .await?;
        self.tell(key, state, events);
        Ok((cancel, until))
    }

    async fn write_events(
        &self,
        tx: &mut Tx,
        key: &Key,
        state: State,
        events: &[Event],
    ) -> Result<(), SagaError> {
        for rows in events.chunks(ROWS) {
            let Some(sql) = self.sql.insert.get(rows.len().saturating_sub(1)) else {
                continue;
            };
            execute!(
                tx,
                rows.iter()
                    .fold(sqlx::query(AssertSqlSafe(Arc::clone(sql))), |query, event| {
                        let what: &'static str = event.what.into();
                        query
                            .bind(&key.id)
                            .bind(event.seq)
                            .bind(&event.step)
                            .bind(what)
                            .bind(event.data.to_string())
                            .bind(event.at)
                    })
            )?;
        }
        for event in self.announce(key, state, events) {
            self.observer.on_event(tx, &event).await?;
        }
        Ok(())
    }

    /// Tells the observer what is committed.
    pub(crate) fn tell(&self, key: &Key, state: State, events: &[Event]) {
        for event in self.announce(key, state, events) {
            self.observer.committed(&event);
        }
    }

    fn announce(&self, key: &Key, state: State, events: &[Event]) -> impl Iterator<Item = SagaEvent> {
        let count = events.len();
        events.iter().enumerate().map(move |(index, event)| SagaEvent {
            saga: key.id.clone(),
            name: key.name.clone(),
            state,
            last: index + 1 == count,
            event: event.clone(),
        })
    }

    /// Whether the event with this number was written under this lease: after a commit without an answer.
    pub(crate) async fn was_written(&self, key: &Key, seq: i64) -> Result<bool, SagaError> {
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.written));
        let rows: i64 = reading!(&self.store, |c| sqlx::query_scalar(sql())
            .bind(&key.id)
            .bind(key.fence)
            .bind(seq)
            .fetch_one(c)
            .await)?;
        Ok(rows > 0)
    }

    /// A sign of life. Says whether a cancel was asked for, and until when the lease now runs.
    pub(crate) async fn beat(&self, key: &Key) -> Result<(bool, Timestamp), SagaError> {
        let until = self.clock.now().after(self.lease);
        let (sql, row) = (Arc::clone(&self.sql.beat), key.clone());
        let cancel: Option<i64> = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let sql = || AssertSqlSafe(Arc::clone(&sql));
                    both!(tx, |c| sqlx::query_scalar(sql())
                        .bind(&row.id)
                        .bind(row.fence)
                        .bind(until)
                        .fetch_optional(c)
                        .await)
                })
            })
            .await
            .map_err(|source: StoreError| SagaError::Store { source })?;
        match cancel {
            Some(cancel) => Ok((cancel != 0, until)),
            None => Err(SagaError::Fenced { id: key.id.clone() }),
        }
    }

    /// Gives the lease back, so that somebody else can go on at once.
    pub(crate) async fn release(&self, key: &Key) -> Result<(), SagaError> {
        let mut tx = self.store.begin().await?;
        let sql = || AssertSqlSafe(Arc::clone(&self.sql.release));
        execute!(&mut tx, sqlx::query(sql()).bind(&key.id).bind(key.fence))?;
        Ok(tx.commit().await?)
    }
}

fn to_json(id: &str, params: &impl Serialize) -> Result<Value, SagaError> {
    serde_json::to_value(params).map_err(|source| SagaError::Params {
        id: id.to_owned(),
        source,
    })
}

fn from_json(id: &str, text: &str) -> Result<Value, SagaError> {
    serde_json::from_str(text).map_err(|source| SagaError::Params {
        id: id.to_owned(),
        source,
    })
}

fn word<T: std::str::FromStr>(id: &str, column: &'static str, text: &str) -> Result<T, SagaError> {
    text.parse().map_err(|_| SagaError::UnknownWord {
        id: id.to_owned(),
        column,
        found: text.to_owned(),
    })
}
