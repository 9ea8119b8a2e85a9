//! A Proxmox VE API server without hypervisors.
//!
//! It keeps a cluster in memory: nodes with capacity, storages, templates, guests, tasks that take
//! time and write logs, locks, a guest agent that comes up a while after a boot. Answers, refusals and
//! the manners of the web server are those of Proxmox VE 9, so that clients written for the real thing
//! work on it unchanged. `nimbus dev` provisions on it, and tests order [faults](Fault) from it.
//!
//! # Durations
//!
//! At a latency scale of 1, give or take a tenth for the work of tasks:
//!
//! | What | Time |
//! | --- | --- |
//! | full clone; linked clone | 25 s; 1.5 s |
//! | create; create with an imported image | 1 s; 12 s |
//! | config; resize; template | 0.2 s; 0.5 s; 1.5 s |
//! | start; stop; shutdown; reboot | 3 s; 1 s; 4 s; 6 s |
//! | reset; suspend; resume | 0.3 s; 0.4 s; 0.2 s |
//! | destroy; download; delete a volume | 2 s; 20 s; 0.3 s |
//! | guest agent after the end of the start; address after that | 15 s; 1 s |
//! | command in a guest | 0.2 s |
//! | refusal of a credential; probe of a guest without agent | 3 s; 3 s |
//! | wait for the lock of a config file | up to 10 s |
//! | refresh of `/cluster/resources` | 10 s |
//! | from the answer of a call to the start of its worker | 0.05 s |
//!
//! # What is there
//!
//! `pve1`, `pve2`, … with 64, 32 and 16 GiB in turn, storages `local` and `local-lvm`, one template per
//! node and operating system from VMID 9000 on (named `nimbus-tmpl-<os>`, tagged `nimbus-baked-v1`,
//! `nimbus-os-<os>` and `nimbus-template`), and five guests of somebody else, two of which hold a fixed
//! address.
//!
//! ```text
//!  connection ── http ── auth ── faults ── params ── calls ── world ── work
//!                                   ▲                           ▲
//!                          control ─┴───────────────────────────┘
//! ```

#[cfg(test)]
mod anything;
mod args;
mod auth;
mod calls;
mod control;
mod error;
mod faults;
mod formats;
mod guest;
mod http;
mod options;
mod params;
mod seed;
mod server;
mod sim;
mod state;
mod task;
mod timing;
mod work;
mod world;

pub use args::{PveSimArgs, run};
pub use calls::{ServedCall, served_calls};
pub use faults::{Fault, FaultMode};
pub use guest::GuestKind;
pub use server::{RunningSim, SimBuilder, SimError, Simulator};
pub use sim::{ControlError, Exchange, ForeignGuest};
