//! What commands print: data to stdout, the rest to stderr.

use std::io::{IsTerminal, Write};

use comfy_table::Table;
use serde::Serialize;

use crate::problem::{Outcome, Problem};

/// The form of the data on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people; may change between releases.
    #[default]
    Table,
    /// For programs; keeps its shape.
    Json,
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Problem::failed("could not write the result as JSON").because(&error))?;
    line(&text)
}

/// Prints one line of data. A reader that has gone away, such as `head`, is not an error.
pub(crate) fn line(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Problem::failed("could not write to stdout").because(&error))
        }
        _ => Ok(()),
    }
}

/// Says something that is not data.
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// Prints rows under a heading; `nothing` goes to stderr when there are none.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>, nothing: &str) -> Outcome {
    if rows.is_empty() {
        say(nothing);
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(heading);
    table.add_rows(rows);
    line(&flush(table))
}

/// Prints facts about one thing, a name and a value each.
pub(crate) fn facts(rows: &[(&str, String)]) -> Outcome {
    let mut table = Table::new();
    for (name, value) in rows {
        table.add_row([*name, value.as_str()]);
    }
    line(&flush(table))
}

/// Columns without lines around them, flush left.
fn flush(mut table: Table) -> String {
    table.load_style(comfy_table::presets::NOTHING);
    for column in 0..table.column_count() {
        if let Some(column) = table.column_mut(column) {
            column.set_padding((0, 2));
        }
    }
    table.trim_fmt()
}

/// What stands in a table where there is nothing.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// A moment as a table shows it: to the minute, in UTC.
pub(crate) fn moment(rfc3339: &str) -> String {
    rfc3339
        .get(..16)
        .map_or_else(|| rfc3339.to_owned(), |text| text.replace('T', " "))
}

/// A span as people read it.
pub(crate) fn span(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100),
        _ => format!(
            "{} min {} s",
            milliseconds / 60_000,
            milliseconds % 60_000 / 1_000
        ),
    }
}

/// Whether somebody sits at the terminal who can answer a question.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks before something is destroyed. `yes` is the flag that answers beforehand.
pub(crate) fn confirm(what: &str, yes: bool) -> Outcome {
    if yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(Problem::refused(format!("not confirmed: {what}"))
            .why("there is no terminal to ask on")
            .next("add --yes to do it without asking"));
    }
    let answer = dialoguer::Confirm::new()
        .with_prompt(format!("{what}. Go on?"))
        .default(false)
        .interact()
        .map_err(|error| Problem::failed("could not ask").because(&error))?;
    if answer {
        Ok(())
    } else {
        Err(Problem::refused("nothing was changed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_moments() {
        assert_eq!(span(12), "12 ms");
        assert_eq!(span(1_250), "1.2 s");
        assert_eq!(span(61_000), "1 min 1 s");
        assert_eq!(moment("2026-11-21T23:18:58.123456Z"), "2026-11-21 23:18");
        assert_eq!(moment("?"), "?");
    }
}
