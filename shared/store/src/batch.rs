//! Group commit for SQLite: writes that arrive while the disk is flushed share the next flush.
//!
//! One task owns the queue. It takes what waits, opens one transaction, runs each write inside a
//! savepoint, so that one that fails is undone alone, commits once, and answers all. Without
//! concurrency a write is as fast as one done by hand: it waits for nobody.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};

use crate::{StoreError, Tx, execute};

/// Writes per transaction at most. Bounds how long other transactions and the first of the batch wait.
const BATCH: usize = 128;

/// Writes that may wait before `submit` itself waits.
const QUEUE: usize = 1024;

#[derive(Debug)]
pub(crate) struct Batch {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl Batch {
    /// Starts the task; it ends when the last sender is gone.
    pub(crate) fn start(writer: SqlitePool) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(serve(writer, jobs));
        Self { queue }
    }

    pub(crate) async fn submit<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Typed {
            work: Some(work),
            result: None,
            reply,
        };
        if self.queue.send(Box::new(job)).await.is_err() {
            return Err(StoreError::Interrupted.into());
        }
        answer
            .await
            .unwrap_or_else(|_| Err(StoreError::Interrupted.into()))
    }
}

/// A write whose types the task does not need to know.
trait Job: Send {
    /// Whether what it did is to be kept.
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, bool>;
    /// Answers: the write's own result, unless the transaction failed.
    fn finish(self: Box<Self>, committed: Result<(), Arc<StoreError>>);
}

struct Typed<T, E, F> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Typed<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, bool> {
        Box::pin(async move {
            let Some(work) = self.work.take() else {
                return false;
            };
            let result = match AssertUnwindSafe(async { work(tx).await }).catch_unwind().await {
                Ok(result) => result,
                Err(_) => Err(StoreError::Interrupted.into()),
            };
            let keep = result.is_ok();
            self.result = Some(result);
            keep
        })
    }

    fn finish(self: Box<Self>, committed: Result<(), Arc<StoreError>>) {
        let result = match (self.result, committed) {
            (Some(Ok(_)) | None, Err(error)) => Err(StoreError::Shared(error).into()),
            (Some(result), _) => result,
            (None, Ok(())) => Err(StoreError::Interrupted.into()),
        };
        // Nobody waits any more: the caller was dropped.
        let _ = self.reply.send(result);
    }
}

async fn serve(writer: SqlitePool, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let committed = run(&writer, &mut batch).await.map_err(Arc::new);
        for job in batch.drain(..) {
            job.finish(committed.clone());
        }
    }
}

async fn run(writer: &SqlitePool, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let mut tx = Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?);
    if let [job] = batch {
        return if job.run(&mut tx).await {
            tx.commit().await
        } else {
            tx.rollback().await
        };
    }
    for job in batch {
        execute!(&mut tx, sqlx::query("SAVEPOINT job"))?;
        if !job.run(&mut tx).await {
            // Not there any more when the disk is full or failed: SQLite took back all of the transaction.
            let undone = execute!(&mut tx, sqlx::query("ROLLBACK TO job"));
            undone.map_err(|_| StoreError::Interrupted)?;
        }
        execute!(&mut tx, sqlx::query("RELEASE job"))?;
    }
    tx.commit().await
}
