//! What clap does not say of a wrong value: where it came from, and what a number should have been.

use std::any::TypeId;
use std::net::{IpAddr, SocketAddr};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::Layers;

impl Layers {
    /// Lines to print below clap's own message of a value that could not be parsed; none for other errors.
    ///
    /// `line` is the command line: what is not on it came from the environment or the file.
    #[must_use]
    pub fn explain(
        &self,
        error: &clap::Error,
        command: &Command,
        line: &[String],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Vec<String> {
        if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
            return Vec::new();
        }
        let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
            return Vec::new();
        };
        let name = shown.trim_start_matches('-');
        let long = name.split([' ', '=', '[']).next().unwrap_or_default();
        let Some(argument) = command.get_arguments().find(|arg| arg.get_long() == Some(long)) else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        if let Some(expected) = expected(argument).filter(|_| !error.to_string().contains("expected ")) {
            lines.push(format!("expected {expected}"));
        }
        let flag = format!("--{long}");
        let typed = line
            .iter()
            .any(|word| *word == flag || word.starts_with(&format!("{flag}=")));
        if !typed && let Some(origin) = self.origin(argument, long, environment) {
            lines.push(format!("the value is that of {origin}"));
        }
        lines
    }

    fn origin(
        &self,
        argument: &Arg,
        long: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Option<String> {
        let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = variable {
            if environment(&name).is_some() {
                return Some(format!("the environment variable {name}"));
            }
            let file = format!("{name}_FILE");
            if argument.is_hide_env_values_set() && environment(&file).is_some() {
                return Some(format!("the file named by {file}"));
            }
        }
        self.file()
            .filter(|file| file.sets(long))
            .map(|file| format!("{long} in {}", file.path()))
    }
}

/// What the types without a parser of ours take.
fn expected(argument: &Arg) -> Option<&'static str> {
    let parsed = argument.get_value_parser().type_id();
    let is = |one: TypeId| parsed == one;
    if is(TypeId::of::<u16>()) {
        Some("a whole number up to 65535")
    } else if [
        TypeId::of::<u8>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
    ]
    .into_iter()
    .any(is)
    {
        Some("a whole number")
    } else if is(TypeId::of::<f64>()) {
        Some("a number, such as 0.5")
    } else if is(TypeId::of::<IpAddr>()) {
        Some("an IP address, such as 127.0.0.1")
    } else if is(TypeId::of::<SocketAddr>()) {
        Some("an IP address and a port, such as 127.0.0.1:8006")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::value_parser;

    fn explained(line: &[&str], variable: Option<&str>) -> Vec<String> {
        let mut argument = Arg::new("port")
            .long("port")
            .env("NIMBUS_TEST_NEVER_SET_P")
            .value_parser(value_parser!(u16));
        if let Some(value) = variable {
            // As clap would take it from the environment.
            argument = argument.default_value(value.to_owned());
        }
        let command = Command::new("start").arg(argument);
        let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let error = command.clone().try_get_matches_from(&line).unwrap_err();
        Layers::default().explain(&error, &command, &line, |_| variable.map(str::to_owned))
    }

    #[test]
    fn a_wrong_number_says_what_was_expected_and_where_it_is() {
        assert_eq!(
            explained(&["start", "--port", "abc"], None),
            ["expected a whole number up to 65535"]
        );
        assert_eq!(
            explained(&["start"], Some("abc")),
            [
                "expected a whole number up to 65535",
                "the value is that of the environment variable NIMBUS_TEST_NEVER_SET_P"
            ]
        );
    }

    #[test]
    fn other_errors_are_left_alone() {
        assert!(explained(&["start", "--prot", "1"], None).is_empty());
    }
}
