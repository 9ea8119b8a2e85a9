//! Settings, from four places: a flag wins over the environment, the environment over the file named
//! by `--config` or `NIMBUS_CONFIG`, the file over the default.
//!
//! A service keeps its settings in one `clap::Args` struct and takes its value parsers from here. The
//! binary puts the structs together, hands the command to [`Layers::apply`], and clap does the rest:
//! a value of the file becomes the argument's default, so it loses to flags and environment by
//! clap's own rules and is checked by the same parser.
//!
//! An empty value is not an unset one: it is refused, save for the settings of [`EMPTY_HAS_A_MEANING`].

mod explain;
mod layers;
mod parse;
mod reference;
mod show;

pub use layers::{ConfigError, EMPTY_HAS_A_MEANING, FileLayer, Layers};
pub use parse::{Csv, Expected, address, bytes, count, csv, flag, ratio, seconds_or_text, secret, text};
pub use reference::{Section, reference};
pub use show::{Origin, Setting, settings};
