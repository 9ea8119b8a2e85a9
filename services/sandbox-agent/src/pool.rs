//! The warm pool: slots that wait, per class of containers.
//!
//! ```text
//! launch ──claim──▶ a waiting slot            its shelf is refilled in the background
//!        └─learn──▶ the class has a shelf     the shelf used longest ago gives way when memory is short
//! ```
//! A slot is claimed once and never comes back. What a claim may change afterwards are limits only;
//! a shelf of a class that differs in these alone serves, too.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nimbus_engine::ContainerId;
use nimbus_errors::chain;
use nimbus_model::Digest;
use nimbus_service::RunError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::error::AgentError;
use crate::slot::{Class, Extras, Slot, Slots};

/// What a container that waits costs: measured 3.3–4.1 MiB under Docker, plus the init and its shim.
const SLOT_BYTES: u64 = 8 << 20;
/// Refills at a time: they must not starve launches of the processors.
const MAKERS: u32 = 2;
/// After a claim refilling rests for so long, unless the shelf is empty: launches come in bursts.
const QUIET: Duration = Duration::from_millis(50);
/// How long slots that are being made may take when the agent ends.
const SETTLE: Duration = Duration::from_secs(5);
/// A shelf that cannot be filled is tried again after this, doubling up to the most.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// The pool. Clones share.
#[derive(Clone)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    slots: Slots,
    /// Slots per class that is in use.
    per_class: u32,
    /// Slots altogether.
    most: u32,
    state: Mutex<State>,
    wake: Notify,
    filled: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    shelves: HashMap<Class, Shelf>,
    /// Nothing is made while the engine is away.
    paused: bool,
    claimed_at: Option<Instant>,
}

struct Shelf {
    /// The image, as people call it.
    image: String,
    ready: VecDeque<Slot>,
    making: u32,
    wanted: u32,
    used_at: Instant,
    retry_at: Option<Instant>,
    failures: u32,
}

impl Pool {
    pub(crate) fn new(slots: Slots, per_class: u32, memory: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                slots,
                per_class,
                most: u32::try_from(memory / SLOT_BYTES).unwrap_or(u32::MAX),
                state: Mutex::default(),
                wake: Notify::new(),
                filled: watch::Sender::new(0),
            }),
        }
    }

    /// Takes a waiting slot: of this class, else of one that differs in limits alone (which the caller
    /// then has to change), with the class it has.
    pub(crate) fn claim(&self, class: &Class) -> Option<(Slot, Class)> {
        let mut state = self.lock();
        let now = Instant::now();
        state.claimed_at = Some(now);
        let exact = state
            .shelves
            .get(class)
            .is_some_and(|shelf| !shelf.ready.is_empty());
        let from = if exact {
            class.clone()
        } else {
            state
                .shelves
                .iter()
                .find(|(other, shelf)| !shelf.ready.is_empty() && class.is_near(other))
                .map(|(other, _)| other.clone())?
        };
        let shelf = state.shelves.get_mut(&from)?;
        let slot = shelf.ready.pop_front()?;
        shelf.used_at = now;
        drop(state);
        self.inner.filled.send_modify(|count| *count += 1);
        self.inner.wake.notify_one();
        Some((slot, from))
    }

    /// Notes a launch, and keeps slots of its class from now on.
    pub(crate) fn learn(&self, class: &Class, image: &str) {
        self.want(class, image, self.inner.per_class);
    }

    /// Keeps at least `count` slots of a class.
    pub(crate) fn want(&self, class: &Class, image: &str, count: u32) {
        if count == 0 {
            return;
        }
        let mut state = self.lock();
        let now = Instant::now();
        let shelf = state.shelves.entry(class.clone()).or_insert_with(|| Shelf {
            image: image.to_owned(),
            ready: VecDeque::new(),
            making: 0,
            wanted: 0,
            used_at: now,
            retry_at: None,
            failures: 0,
        });
        shelf.wanted = shelf.wanted.max(count);
        shelf.used_at = now;
        drop(state);
        self.inner.wake.notify_one();
    }

    /// The classes of an image that are in use.
    pub(crate) fn classes(&self, image: &Digest) -> Vec<Class> {
        let state = self.lock();
        let of_image = state.shelves.keys().filter(|class| class.image == *image);
        of_image.cloned().collect()
    }

    /// Waits until so many slots of a class are there, or as many as there may be.
    pub(crate) async fn filled(&self, class: &Class, count: u32) {
        let count = count.min(self.inner.most);
        let mut changed = self.inner.filled.subscribe();
        loop {
            let ready = {
                let state = self.lock();
                state.shelves.get(class).is_none_or(|shelf| {
                    shelf.failures > 0 || u32::try_from(shelf.ready.len()).unwrap_or(u32::MAX) >= count
                })
            };
            if ready || changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waiting slots by image.
    pub(crate) fn warm(&self) -> Vec<(String, u32)> {
        let mut counts: HashMap<String, u32> = HashMap::new();
        for shelf in self.lock().shelves.values() {
            let ready = u32::try_from(shelf.ready.len()).unwrap_or(u32::MAX);
            if ready > 0 {
                *counts.entry(shelf.image.clone()).or_default() += ready;
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        counts
    }

    /// Told when slots came or went.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.filled.subscribe()
    }

    /// The ids of all waiting slots.
    pub(crate) fn slot_ids(&self) -> Vec<String> {
        self.lock()
            .shelves
            .values()
            .flat_map(|shelf| shelf.ready.iter().map(|slot| slot.place.slot.clone()))
            .collect()
    }

    /// Drops the slot whose container has ended.
    pub(crate) fn died(&self, container: &ContainerId) {
        let mut found = None;
        for shelf in self.lock().shelves.values_mut() {
            if let Some(at) = shelf
                .ready
                .iter()
                .position(|slot| slot.place.container == *container)
            {
                found = shelf.ready.remove(at);
            }
        }
        if let Some(slot) = found {
            self.throw_away(slot);
            self.inner.wake.notify_one();
        }
    }

    /// The engine is away: what waited is gone, and nothing is made.
    pub(crate) fn pause(&self) {
        let mut state = self.lock();
        state.paused = true;
        let gone: Vec<Slot> = state
            .shelves
            .values_mut()
            .flat_map(|shelf| shelf.ready.drain(..))
            .collect();
        drop(state);
        for slot in gone {
            self.throw_away(slot);
        }
    }

    /// The engine is back.
    pub(crate) fn go_on(&self) {
        let mut state = self.lock();
        state.paused = false;
        for shelf in state.shelves.values_mut() {
            shelf.retry_at = None;
        }
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Makes no more slots and removes every one that waits, those that are just being made included.
    pub(crate) async fn empty(&self) {
        self.lock().paused = true;
        let mut changed = self.inner.filled.subscribe();
        let settled = async {
            while self.lock().shelves.values().any(|shelf| shelf.making > 0) {
                // The sender lives in `self`.
                let _ = changed.changed().await;
            }
        };
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            tracing::warn!("a warm container is still being made; the next agent removes it");
        }
        let gone: Vec<Slot> = {
            let mut state = self.lock();
            state.paused = true;
            state
                .shelves
                .values_mut()
                .flat_map(|shelf| shelf.ready.drain(..))
                .collect()
        };
        for slot in gone {
            self.inner
                .slots
                .discard(&slot.place.slot, Some(&slot.place.container))
                .await;
        }
    }

    fn throw_away(&self, slot: Slot) {
        let slots = self.inner.slots.clone();
        tokio::spawn(async move {
            slots.discard(&slot.place.slot, Some(&slot.place.container)).await;
        });
    }

    /// Refills; ends with the agent.
    ///
    /// # Errors
    /// None: the signature is that of a task.
    pub(crate) async fn refill(self) -> Result<(), RunError> {
        loop {
            match self.next() {
                Next::Make(class) => {
                    let pool = self.clone();
                    tokio::spawn(async move { pool.make(class).await });
                }
                Next::Drop(slot) => self.throw_away(*slot),
                Next::Wait(until) => {
                    let rest = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(until).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = self.inner.wake.notified() => {}
                        () = rest => {}
                    }
                }
            }
        }
    }

    async fn make(&self, class: Class) {
        let made = self.inner.slots.make(&class, Extras::default()).await;
        if let Some(slot) = self.put(&class, made) {
            self.inner
                .slots
                .discard(&slot.place.slot, Some(&slot.place.container))
                .await;
        }
        if let Some(shelf) = self.lock().shelves.get_mut(&class) {
            shelf.making = shelf.making.saturating_sub(1);
        }
        self.inner.filled.send_modify(|count| *count += 1);
        self.inner.wake.notify_one();
    }

    /// Puts a slot on its shelf; gives it back if it is not wanted any more.
    fn put(&self, class: &Class, made: Result<Slot, AgentError>) -> Option<Slot> {
        let mut state = self.lock();
        let paused = state.paused;
        let mut left_over = None;
        match (state.shelves.get_mut(class), made) {
            (Some(shelf), Ok(slot)) => {
                shelf.failures = 0;
                shelf.retry_at = None;
                if paused {
                    left_over = Some(slot);
                } else {
                    shelf.ready.push_back(slot);
                }
            }
            (Some(shelf), Err(error)) => {
                shelf.failures = shelf.failures.saturating_add(1);
                let pause = RETRY_FIRST
                    .saturating_mul(1 << shelf.failures.min(10))
                    .min(RETRY_MOST);
                shelf.retry_at = Some(Instant::now() + pause);
                tracing::warn!(image = %shelf.image, cause = %chain(&error), pause_ms = pause.as_millis(), "no warm container could be made");
            }
            (None, Ok(slot)) => left_over = Some(slot),
            (None, Err(_)) => {}
        }
        left_over
    }

    fn next(&self) -> Next {
        let mut state = self.lock();
        let making = state.shelves.values().map(|shelf| shelf.making).sum();
        let next = state.next(making, self.inner.most, Instant::now());
        if let Next::Make(class) = &next
            && let Some(shelf) = state.shelves.get_mut(class)
        {
            shelf.making += 1;
        }
        next
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What refilling does next.
#[derive(Debug)]
enum Next {
    Make(Class),
    /// Gives room to a shelf that was used later.
    Drop(Box<Slot>),
    /// Nothing, until a time or until something changes.
    Wait(Option<Instant>),
}

impl Shelf {
    fn count(&self) -> u32 {
        u32::try_from(self.ready.len())
            .unwrap_or(u32::MAX)
            .saturating_add(self.making)
    }
}

impl State {
    fn next(&mut self, making: u32, most: u32, now: Instant) -> Next {
        if self.paused || making >= MAKERS {
            return Next::Wait(None);
        }
        let total: u32 = self.shelves.values().map(Shelf::count).sum();
        let mut wait: Option<Instant> = None;
        let mut best: Option<(&Class, &Shelf)> = None;
        for (class, shelf) in &self.shelves {
            if shelf.count() >= shelf.wanted {
                continue;
            }
            if let Some(retry_at) = shelf.retry_at.filter(|at| *at > now) {
                wait = Some(wait.map_or(retry_at, |known| known.min(retry_at)));
                continue;
            }
            // The emptiest first, then the one that was used last.
            let better = best.is_none_or(|(_, known)| {
                (shelf.count() == 0, shelf.used_at) > (known.count() == 0, known.used_at)
            });
            if better {
                best = Some((class, shelf));
            }
        }
        let Some((class, shelf)) = best else {
            return Next::Wait(wait);
        };
        if let Some(quiet_until) = self.claimed_at.map(|at| at + QUIET)
            && quiet_until > now
            && shelf.count() > 0
        {
            return Next::Wait(Some(quiet_until));
        }
        let (class, used_at) = (class.clone(), shelf.used_at);
        if total < most {
            return Next::Make(class);
        }
        let oldest = self
            .shelves
            .iter_mut()
            .filter(|(_, shelf)| !shelf.ready.is_empty() && shelf.used_at < used_at)
            .min_by_key(|(_, shelf)| shelf.used_at);
        match oldest {
            Some((_, shelf)) => {
                // It does not take the room back by itself; the next use of its class asks anew.
                shelf.wanted = shelf.count().saturating_sub(1);
                match shelf.ready.pop_front() {
                    Some(slot) => Next::Drop(Box::new(slot)),
                    None => Next::Wait(wait),
                }
            }
            None => Next::Wait(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use nimbus_engine::Limits;

    use super::*;

    fn class(memory_bytes: u64) -> Class {
        Class {
            image: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            user: None,
            limits: Limits {
                millicpus: 1000,
                memory_bytes,
                pids: 512,
                disk_bytes: None,
            },
            desktop: false,
            read_only_root: false,
        }
    }

    fn state(shelves: &[(u64, u32, u32, u64)], now: Instant) -> State {
        let mut state = State::default();
        for (memory, making, wanted, age) in shelves {
            state.shelves.insert(
                class(*memory),
                Shelf {
                    image: "x".into(),
                    ready: VecDeque::new(),
                    making: *making,
                    wanted: *wanted,
                    used_at: now - Duration::from_secs(*age),
                    retry_at: None,
                    failures: 0,
                },
            );
        }
        state
    }

    fn made(next: Next) -> Option<u64> {
        match next {
            Next::Make(class) => Some(class.limits.memory_bytes),
            Next::Drop(_) | Next::Wait(_) => None,
        }
    }

    #[tokio::test]
    async fn an_empty_shelf_is_filled_first_then_the_one_used_last() {
        let now = Instant::now() + Duration::from_secs(3600);
        assert_eq!(
            made(state(&[(1, 1, 2, 5), (2, 0, 2, 60)], now).next(0, 100, now)),
            Some(2)
        );
        assert_eq!(
            made(state(&[(1, 1, 2, 5), (2, 1, 2, 60)], now).next(0, 100, now)),
            Some(1)
        );
        assert_eq!(made(state(&[(1, 2, 2, 5)], now).next(0, 100, now)), None);
        assert_eq!(made(state(&[(1, 0, 2, 5)], now).next(MAKERS, 100, now)), None);
    }

    #[tokio::test]
    async fn the_budget_holds_and_bursts_are_left_alone() {
        let now = Instant::now() + Duration::from_secs(3600);
        assert_eq!(
            made(state(&[(1, 1, 2, 5), (2, 1, 1, 60)], now).next(0, 2, now)),
            None
        );
        let mut busy = state(&[(1, 1, 2, 5)], now);
        busy.claimed_at = Some(now);
        assert!(matches!(busy.next(0, 100, now), Next::Wait(Some(until)) if until == now + QUIET));
        let mut empty = state(&[(1, 0, 2, 5)], now);
        empty.claimed_at = Some(now);
        assert_eq!(made(empty.next(0, 100, now)), Some(1));
    }

    #[tokio::test]
    async fn a_shelf_that_fails_rests() {
        let now = Instant::now() + Duration::from_secs(3600);
        let mut state = state(&[(1, 0, 2, 5)], now);
        let later = now + Duration::from_secs(1);
        state
            .shelves
            .values_mut()
            .for_each(|shelf| shelf.retry_at = Some(later));
        assert!(matches!(state.next(0, 100, now), Next::Wait(Some(at)) if at == later));
        assert_eq!(made(state.next(0, 100, later)), Some(1));
    }
}
