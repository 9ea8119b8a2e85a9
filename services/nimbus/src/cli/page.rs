//! The page of the command line, made from what clap knows.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// Commands whose options are settings of a server, which have a page of their own.
const SERVERS: &[&str] = &["start", "serve", "dev"];

fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = String::from(
        "# Command line\n\nEvery command of `nimbus`, with its arguments, made from the program itself. Data goes to standard output and \
         everything else to standard error; `--output json` is stable. The settings of servers are in [configuration](configuration.md).\n",
    );
    for command in root.get_subcommands() {
        section(&mut page, command, "nimbus");
    }
    page
}

fn section(page: &mut String, command: &Command, parent: &str) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about());
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "\n## {name}\n\n{}\n",
        about.map(ToString::to_string).unwrap_or_default().trim()
    );
    if command.has_subcommands() {
        for sub in command.get_subcommands() {
            section(page, sub, &name);
        }
        return;
    }
    let is_server = parent == "nimbus" && SERVERS.contains(&command.get_name());
    let shown: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| {
            !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version")
        })
        .filter(|argument| !is_server || argument.is_positional())
        .collect();
    if shown.is_empty() {
        return;
    }
    page.push_str("\n| Argument | Meaning |\n|---|---|\n");
    for argument in shown {
        let _ = writeln!(page, "| `{}` | {} |", form(argument), meaning(argument));
    }
}

fn form(argument: &Arg) -> String {
    let takes = argument.get_action().takes_values();
    let names = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    let value = if takes { names } else { String::new() };
    match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long} {value}").trim_end().to_owned(),
        (None, Some(long)) => format!("--{long} {value}").trim_end().to_owned(),
        (Some(short), None) => format!("-{short} {value}").trim_end().to_owned(),
        (None, None) => value,
    }
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .filter(|value| argument.get_action().takes_values() && !value.is_empty())
        .collect();
    let mut text = help.replace('\n', " ").replace('|', "\\|");
    if !defaults.is_empty() {
        let _ = write!(text, " [default: {}]", defaults.join(" "));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(text, " [{}]", variable.to_string_lossy());
    }
    text
}

#[test]
fn the_page_of_the_command_line_is_checked_in() {
    let now = page();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("NIMBUS_GENERATE").is_some() {
        std::fs::write(&path, &now).expect("the source tree is writable");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "docs/cli.md is not what the code says: run `make generate`"
    );
}
