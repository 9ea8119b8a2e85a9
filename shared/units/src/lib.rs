//! Unit files of the service manager: what they say, how words are quoted in them, and where they come from.
//!
//! - [`UnitFile`]: sections and settings in their order, from text and to text
//! - [`quote()`], [`exec_line()`], [`unquote()`], [`literal()`]: values that mean what they say and no more
//! - [`Header`], [`inspect`], [`compare`]: who wrote a file, and whether somebody has changed it since
//!
//! Nothing here touches a disk or asks a service manager. Syntax: systemd.syntax(7), systemd.service(5).

mod error;
mod provenance;
mod quote;
mod unit;

pub use error::{QuoteError, UnitError};
pub use provenance::{Drift, HASH_FIELD, Header, HeaderError, Read, State, VERSION_FIELD, compare, inspect};
pub use quote::{Syntax, exec_line, literal, quote, unquote};
pub use unit::{Line, Section, UnitFile};
