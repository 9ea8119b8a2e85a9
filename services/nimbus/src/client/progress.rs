//! Steps of long work as they finish: a bar on a terminal, plain lines elsewhere. Always on stderr.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// How many steps a provision has.
pub(crate) const PROVISION_STEPS: u64 = 9;

/// A display of steps.
#[derive(Debug)]
pub(crate) struct Steps {
    bar: Option<ProgressBar>,
    done: Vec<String>,
}

impl Steps {
    /// Starts with nothing done.
    pub(crate) fn new(title: &str, total: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            output::say(title);
            return Self {
                bar: None,
                done: Vec::new(),
            };
        }
        let bar = ProgressBar::new(total);
        // A template that does not parse would be a bug here; the plain bar is a usable answer to it.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len}  {elapsed:>4}  {wide_msg}")
        {
            bar.set_style(style.progress_chars("━━ "));
        }
        bar.set_message(title.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar: Some(bar),
            done: Vec::new(),
        }
    }

    /// A step is done; repeats are not shown twice.
    pub(crate) fn finished(&mut self, key: &str, label: &str, milliseconds: Option<u64>) {
        if self.done.iter().any(|seen| seen == key) {
            return;
        }
        self.done.push(key.to_owned());
        let took = milliseconds.map(output::span).unwrap_or_default();
        let line = format!("  {label:<28} {took:>9}");
        match &self.bar {
            Some(bar) => {
                bar.println(line);
                bar.inc(1);
                bar.set_message(label.to_owned());
            }
            None => output::say(line),
        }
    }

    /// Takes the bar away.
    pub(crate) fn close(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
