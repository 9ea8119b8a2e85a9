//! The page that lists every setting, made from the same definitions that parse them.

use std::fmt::Write;

use clap::{Arg, Command};

/// A part of the page: a heading, what to say below it, and the command whose settings follow.
#[derive(Debug)]
pub struct Section<'a> {
    /// The heading.
    pub title: &'a str,
    /// A paragraph.
    pub about: &'a str,
    /// Whose settings.
    pub command: &'a Command,
    /// Settings that stand elsewhere on the page and are left out here.
    pub without: &'a [&'a str],
}

/// The page as Markdown: one table per heading of each command, in the order of the definitions.
#[must_use]
pub fn reference(intro: &str, sections: &[Section<'_>]) -> String {
    let mut page = String::from(intro);
    for section in sections {
        let _ = write!(page, "\n## {}\n\n{}\n", section.title, section.about);
        let arguments: Vec<&Arg> = section
            .command
            .get_arguments()
            .filter(|arg| !arg.is_hide_set())
            .filter(|arg| {
                arg.get_long().is_some_and(|long| {
                    !["help", "version"].contains(&long) && !section.without.contains(&long)
                })
            })
            .collect();
        let mut headings: Vec<&str> = Vec::new();
        for argument in &arguments {
            let heading = argument.get_help_heading().unwrap_or("General");
            if !headings.contains(&heading) {
                headings.push(heading);
            }
        }
        for heading in &headings {
            if headings.len() > 1 {
                let _ = write!(page, "\n### {heading}\n");
            }
            page.push_str("\n| Flag and key | Environment | Default | Meaning |\n|---|---|---|---|\n");
            for argument in arguments
                .iter()
                .filter(|arg| arg.get_help_heading().unwrap_or("General") == *heading)
            {
                row(&mut page, argument);
            }
        }
    }
    page
}

fn row(page: &mut String, argument: &Arg) {
    let flag = argument.get_long().unwrap_or_default();
    let variable = argument
        .get_env()
        .map_or_else(String::new, |name| format!("`{}`", name.to_string_lossy()));
    let switch = !argument.get_action().takes_values();
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let default = match defaults.join(",") {
        _ if switch => "off".to_owned(),
        text if text.is_empty() => String::new(),
        text => format!("`{text}`"),
    };
    let mut meaning = argument
        .get_long_help()
        .or_else(|| argument.get_help())
        .map_or_else(String::new, |help| {
            help.to_string().replace("\n\n", " ").replace('\n', " ")
        });
    // clap takes the full stop off a help text of one paragraph.
    if !meaning.is_empty() && !meaning.ends_with(['.', '!', '?', ':']) {
        meaning.push('.');
    }
    let choices: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && !switch)
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !choices.is_empty() {
        let _ = write!(meaning, " One of {}.", choices.join(", "));
    }
    if argument.is_hide_env_values_set() && argument.get_env().is_some() {
        meaning.push_str(" A secret: better given by the variable with `_FILE` added, which names a file.");
    }
    let _ = writeln!(
        page,
        "| `--{flag}` | {variable} | {default} | {} |",
        meaning.trim().replace('|', "\\|")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_one_row_under_its_heading() {
        let command = Command::new("start")
            .arg(
                Arg::new("a")
                    .long("alpha")
                    .default_value("1")
                    .help("First.")
                    .help_heading("Greek"),
            )
            .arg(
                Arg::new("b")
                    .long("beta")
                    .env("BETA")
                    .hide_env_values(true)
                    .help("Second."),
            )
            .arg(Arg::new("c").long("gamma").hide(true));
        let page = reference(
            "# Settings\n",
            &[Section {
                title: "start",
                about: "All.",
                command: &command,
                without: &[],
            }],
        );
        assert!(page.contains("### Greek\n\n| Flag"), "{page}");
        assert!(page.contains("| `--alpha` |  | `1` | First. |"), "{page}");
        assert!(
            page.contains("| `--beta` | `BETA` |  | Second. A secret"),
            "{page}"
        );
        assert!(!page.contains("gamma"));
    }
}
