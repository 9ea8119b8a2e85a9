//! Sagas: work in persisted steps, each of which can be taken back.
//!
//! "Do these steps now, or take them back", across crashes and replicas. What happened is an
//! append-only list of [`Event`]s in the service's own tables; [`plan`] says from it alone what comes
//! next; [`drive`] does that, notes it, and asks again. So a process that dies loses nothing but time:
//! whoever claims the saga next plans from the same list.
//!
//! ```text
//! create ─▶ running ──all steps done──▶ done
//!              │ a step failed, or cancelled
//!              ▼
//!           undoing ──every started step undone──▶ undone
//!              │ an undo failed too often     ▲
//!              ▼                              │ reopen (operator)
//!            stuck ───────────────────────────┘
//! ```
//!
//! Rules for steps, as everything may happen twice:
//! - `act` may run again after a crash, a lost lease or a retry: make outside effects idempotent.
//! - One outside effect per step; ids and names are chosen in an *earlier* step, because the failing
//!   step has no output that its undo could read.
//! - `undo` runs for every step that was started, the failed one included; undoing nothing succeeds.
//!
//! A replica owns a saga by a lease in its row. Every append checks the row's fence, which each claim
//! increments, so a replica that lost its lease cannot write any more.

mod drive;
mod error;
mod event;
mod history;
mod lease;
mod observer;
mod plan;
mod record;
mod schema;
mod step;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use drive::{Outcome, drive};
pub use error::SagaError;
pub use event::{Event, Outputs, State, What};
pub use history::{History, StepState, StepView};
pub use observer::{Observer, SagaEvent};
pub use plan::{End, Next, plan};
pub use record::{Claimed, Record};
pub use schema::ddl;
pub use step::{OrNotFound, Policy, Saga, Step, StepError, UndoError};
pub use store::SagaStore;
