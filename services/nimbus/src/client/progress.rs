//! Steps of long work as they finish: a bar on a terminal, plain lines elsewhere. Always on stderr.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// The steps of a provision and what to say while each is under way. A server with other steps is shown
/// too, only without the name of the step that comes next.
pub(crate) const PROVISION: &[(&str, &str)] = &[
    ("reserve_ip", "Reserve address"),
    ("pick_node", "Pick node"),
    ("clone_template", "Clone template"),
    ("configure_vm", "Configure cloud-init"),
    ("resize_disk", "Resize disk"),
    ("start_vm", "Start VM"),
    ("wait_guest_agent", "Wait for guest"),
    ("commit_ip", "Commit address"),
    ("prepare_gpu", "Prepare GPU access"),
    ("save_vm", "Finish"),
];

/// A display of steps.
#[derive(Debug)]
pub(crate) struct Steps {
    bar: Option<ProgressBar>,
    plan: &'static [(&'static str, &'static str)],
    done: Vec<String>,
}

impl Steps {
    /// Starts with nothing done.
    pub(crate) fn new(title: &str, plan: &'static [(&'static str, &'static str)]) -> Self {
        if !std::io::stderr().is_terminal() {
            output::say(title);
            return Self {
                bar: None,
                plan,
                done: Vec::new(),
            };
        }
        let bar = ProgressBar::new(u64::try_from(plan.len()).unwrap_or(0));
        // A template that does not parse would be a bug here; the plain bar is a usable answer to it.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {bar:24} {pos}/{len}  {elapsed:>4}  {wide_msg}")
        {
            bar.set_style(style.progress_chars("━━ "));
        }
        bar.set_message(
            plan.first()
                .map_or_else(|| title.to_owned(), |(_, label)| (*label).to_owned()),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar: Some(bar),
            plan,
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
                let next = self
                    .plan
                    .iter()
                    .find(|(key, _)| !self.done.iter().any(|done| done == key));
                bar.set_message(next.map_or(label, |(_, label)| label).to_owned());
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
