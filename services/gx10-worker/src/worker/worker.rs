//! The worker: what its parts share, and the loop that takes one job after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nimbus_gpu_wire::{Gpu, HeldJob, Phase};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::engine::{Engine, Facts};
use crate::host::{Host, free_bytes, fresh_id};
use crate::link::{LinkError, Links, Offer, Pause};
use crate::state::{Record, State, StateError};
use crate::{beat, gpu, job};

/// How often the engine is asked whether it is there.
const ENGINE_EVERY: Duration = Duration::from_secs(5);
/// What the server said unasked and was not yet looked at.
const TOLD: usize = 16;

/// Why the worker cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{0}")]
    State(StateError),
    #[error("{0}")]
    Link(LinkError),
    #[error("{0:?} cannot be a worker's name: a DNS label is wanted")]
    Name(String),
}

/// What the parts share. Clones are the same worker.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) config: Arc<Config>,
    pub(crate) engine: Engine,
    pub(crate) links: Arc<Links>,
    pub(crate) state: State,
    pub(crate) host: Arc<Host>,
    pub(crate) gpus: watch::Receiver<Vec<Gpu>>,
    /// This start of the worker.
    pub(crate) start_id: Arc<str>,
    engine_facts: watch::Receiver<Option<Facts>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    held: Mutex<BTreeMap<String, Held>>,
    /// Something that the server should know soon.
    news: Notify,
    /// A job was released.
    released: Notify,
    server_drains: watch::Sender<bool>,
    /// A sign of life was answered.
    met: watch::Sender<bool>,
    /// Why a job could not be written down.
    state_trouble: Mutex<Option<String>>,
}

struct Held {
    view: HeldJob,
    cancel: CancellationToken,
}

/// Runs until `stop`, or until `drain` and the end of the job held then.
pub(crate) async fn run(
    config: Config,
    stop: CancellationToken,
    drain: CancellationToken,
) -> Result<(), RunError> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if config.worker_id.is_empty() || config.worker_id.len() > 63 || !config.worker_id.chars().all(label) {
        return Err(RunError::Name(config.worker_id));
    }
    let state = State::open(&config.state_dir).map_err(RunError::State)?;
    let (tell, told) = mpsc::channel(TOLD);
    let links = Links::open(&config, tell).await.map_err(RunError::Link)?;
    let (gpu_news, gpus) = watch::channel(Vec::new());
    let (engine_news, engine_facts) = watch::channel(None);
    let worker = Worker {
        engine: Engine::new(&config.engine_socket),
        links: Arc::new(links),
        state,
        host: Arc::new(Host::read()),
        gpus,
        start_id: fresh_id().into(),
        engine_facts,
        shared: Arc::default(),
        config: Arc::new(config),
    };
    info!(
        worker = worker.config.worker_id,
        "{} serves {}", worker.config.worker_id, worker.config.nimbus_url
    );
    // What is in hand is told with the first sign of life, or it would count as lost.
    let records = worker.state.records().map_err(RunError::State)?;
    let records: Vec<(Record, CancellationToken)> = records
        .into_iter()
        .map(|record| {
            let cancel = worker.hold(&record);
            (record, cancel)
        })
        .collect();
    tokio::select! {
        () = stop.cancelled() => {}
        () = gpu::watch(worker.config.nvidia_smi.clone(), gpu_news) => {}
        () = watch_engine(worker.clone(), engine_news) => {}
        () = beat::beat(worker.clone()) => {}
        () = keep_listening(worker.clone(), told) => {}
        () = serve(&worker, records, drain) => {}
    }
    info!("stopping; a job that runs goes on without the worker");
    Ok(())
}

/// Without a bus nobody says anything, and that is no reason to end.
async fn keep_listening(worker: Worker, told: mpsc::Receiver<nimbus_gpu_wire::BeatReply>) {
    beat::listen(worker, told).await;
    std::future::pending().await
}

async fn watch_engine(worker: Worker, news: watch::Sender<Option<Facts>>) {
    loop {
        let facts = match worker.engine.facts().await {
            Ok(facts) => Some(facts),
            Err(error) => {
                if news.borrow().is_some() {
                    warn!("{error}");
                }
                None
            }
        };
        let changed = news.send_if_modified(|known| {
            let changed = *known != facts;
            *known = facts;
            changed
        });
        if changed {
            worker.shared.news.notify_one();
        }
        tokio::time::sleep(ENGINE_EVERY).await;
    }
}

/// One job after the other, first those that an earlier worker left.
async fn serve(worker: &Worker, left: Vec<(Record, CancellationToken)>, drain: CancellationToken) {
    for (record, cancel) in left {
        info!(
            gpu.job = record.assignment.job,
            "going on with {}", record.assignment.job
        );
        job::run(worker, record, cancel).await;
    }
    let mut pause = Pause::default();
    let mut tidy = false;
    // The server has to know first what is in hand here, or that nothing is.
    let mut met = worker.shared.met.subscribe();
    tokio::select! {
        () = drain.cancelled() => return worker.empty().await,
        _ = met.wait_for(|met| *met) => {}
    }
    loop {
        tokio::select! {
            biased;
            () = drain.cancelled() => return worker.empty().await,
            () = worker.ready() => {}
        }
        if !tidy {
            tidy = remove_strays(worker).await;
        }
        let offered = tokio::select! {
            biased;
            () = drain.cancelled() => return worker.empty().await,
            offered = worker.links.next() => offered,
        };
        match offered {
            Ok(None) => pause = Pause::default(),
            Ok(Some(offer)) => {
                pause = Pause::default();
                if let Some((record, cancel)) = accept(worker, offer).await {
                    job::run(worker, record, cancel).await;
                }
            }
            Err(error) => pause.after(&error).await,
        }
    }
}

/// Answers for a job from now on, unless it is known or cannot be written down.
async fn accept(worker: &Worker, offer: Offer) -> Option<(Record, CancellationToken)> {
    let (job, attempt) = (offer.assignment.job.clone(), offer.assignment.attempt);
    if worker.state.knows(&job, attempt) {
        info!(gpu.job = job, attempt, "{job} was delivered again");
        offer.taken().await;
        return None;
    }
    let record = Record::new(offer.assignment.clone());
    match worker.state.save(&record).await {
        Ok(()) => {
            info!(gpu.job = job, attempt, "took {job}: {}", record.assignment.image);
            worker.state_trouble(None);
            let cancel = worker.hold(&record);
            offer.taken().await;
            Some((record, cancel))
        }
        Err(error @ StateError::Id { .. }) => {
            warn!("{error}");
            offer.taken().await;
            None
        }
        Err(error) => {
            // Not acknowledged: it is delivered again, or goes to another worker.
            warn!(gpu.job = job, "{job} cannot be taken: {error}");
            worker.state_trouble(Some(error.to_string()));
            let mut pause = Pause::default();
            for _ in 0..5 {
                pause.wait().await;
            }
            worker.state_trouble(None);
            None
        }
    }
}

/// Removes containers of this worker's jobs that it has no record of: their jobs were given up when it
/// came back without them. Whether that could be done.
async fn remove_strays(worker: &Worker) -> bool {
    let found = match worker.engine.ours(&worker.config.worker_id).await {
        Ok(found) => found,
        Err(error) => {
            warn!("{error}");
            return false;
        }
    };
    let held: Vec<String> = worker.held().into_iter().map(|held| held.job).collect();
    for (name, job) in found {
        if !held.contains(&job) {
            warn!(
                gpu.job = job,
                "removing {name}, of which this worker knows nothing"
            );
            if let Err(error) = worker.engine.remove(&name).await {
                warn!("{error}");
                return false;
            }
        }
    }
    true
}

impl Worker {
    /// What the engine can do, as it was last seen.
    pub(crate) fn facts(&self) -> Facts {
        self.engine_facts.borrow().clone().unwrap_or_default()
    }

    /// What the engine can do, once it answers.
    pub(crate) async fn known_facts(&self) -> Facts {
        let mut facts = self.engine_facts.clone();
        match facts.wait_for(Option::is_some).await {
            Ok(known) => known.clone().unwrap_or_default(),
            // The sender lives as long as the worker.
            Err(_) => Facts::default(),
        }
    }

    /// Why no job can be taken now.
    pub(crate) fn trouble(&self) -> Option<String> {
        let state = self
            .shared
            .state_trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if state.is_some() {
            return state;
        }
        let Some(facts) = self.engine_facts.borrow().clone() else {
            return Some("the container engine does not answer".to_owned());
        };
        let least = self.config.min_free_bytes;
        for path in [&facts.root_dir, &self.config.state_dir] {
            if let Some(free) = free_bytes(path).filter(|free| *free < least) {
                return Some(format!(
                    "only {} MiB are free in {}; jobs are taken from {} MiB on",
                    free >> 20,
                    path.display(),
                    least >> 20
                ));
            }
        }
        None
    }

    fn state_trouble(&self, trouble: Option<String>) {
        *self
            .shared
            .state_trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Returns when a job could be taken.
    async fn ready(&self) {
        let mut facts = self.engine_facts.clone();
        let mut drains = self.shared.server_drains.subscribe();
        loop {
            // The senders live as long as the worker. What is seen is let go at once: held, it would
            // keep the sender waiting, which is in the same task.
            drop(facts.wait_for(Option::is_some).await);
            drop(drains.wait_for(|drains| !drains).await);
            match self.trouble() {
                None => return,
                Some(trouble) => {
                    warn!("no jobs: {trouble}");
                    // Space is freed without anybody telling.
                    tokio::time::sleep(ENGINE_EVERY).await;
                }
            }
        }
    }

    /// The jobs in hand, for the server.
    pub(crate) fn held(&self) -> Vec<HeldJob> {
        let held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.values().map(|held| held.view.clone()).collect()
    }

    fn hold(&self, record: &Record) -> CancellationToken {
        let cancel = CancellationToken::new();
        let phase = match record.outcome {
            Some(_) => Phase::Ending,
            None => Phase::Assigned,
        };
        let view = HeldJob {
            job: record.assignment.job.clone(),
            attempt: record.assignment.attempt,
            phase,
            started_at: None,
            note: None,
        };
        let held = Held {
            view,
            cancel: cancel.clone(),
        };
        let mut all = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(record.assignment.job.clone(), held);
        self.shared.news.notify_one();
        cancel
    }

    /// Says how far a job is; a start that is known stays known.
    pub(crate) fn tell(&self, job: &str, phase: Phase, started_at: Option<i64>, note: Option<String>) {
        let mut all = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = all.get_mut(job) else { return };
        let view = HeldJob {
            phase,
            started_at: started_at.or(held.view.started_at),
            note,
            ..held.view.clone()
        };
        if view != held.view {
            held.view = view;
            self.shared.news.notify_one();
        }
    }

    /// Nothing is left of a job.
    pub(crate) fn release(&self, job: &str) {
        self.shared
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(job);
        self.shared.news.notify_one();
        self.shared.released.notify_waiters();
    }

    /// Returns when nothing is in hand.
    async fn empty(&self) {
        loop {
            let released = self.shared.released.notified();
            if self.held().is_empty() {
                return;
            }
            released.await;
        }
    }

    /// The server wants a job no more.
    pub(crate) fn cancel(&self, job: &str) {
        let all = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = all.get(job) {
            held.cancel.cancel();
        }
    }

    /// The server has answered a sign of life.
    pub(crate) fn met(&self, drains: bool) {
        self.shared.met.send_replace(true);
        self.shared.server_drains.send_if_modified(|known| {
            let changed = *known != drains;
            *known = drains;
            changed
        });
    }

    /// Returns when there is something to tell.
    pub(crate) async fn changed(&self) {
        self.shared.news.notified().await;
    }

    /// Writes a record down. A disk that is full does not end a job: what the container says comes first,
    /// and the record is written the next time.
    pub(crate) async fn keep(&self, record: &Record) {
        if let Err(error) = self.state.save(record).await {
            warn!(gpu.job = record.assignment.job, "{error}");
        }
    }
}
