//! The table at the end.

use std::time::Duration;

/// One measured figure.
struct Row {
    what: String,
    ours: String,
    peer: String,
    budget: String,
    kept: bool,
}

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    /// Adds a figure and says it at once, so that a run that is cut short has shown something.
    pub(crate) fn add(&mut self, what: &str, ours: String, peer: String, budget: &str, kept: bool) {
        eprintln!(
            "  {what}: {ours}{}",
            if peer.is_empty() {
                String::new()
            } else {
                format!(" beside {peer}")
            }
        );
        self.0.push(Row {
            what: what.to_owned(),
            ours,
            peer,
            budget: budget.to_owned(),
            kept,
        });
    }

    /// Prints the table as Markdown.
    pub(crate) fn print(&self) {
        println!("| What | Nimbus | Peer, same run | Budget | |\n|---|---|---|---|---|");
        for row in &self.0 {
            let mark = match (row.budget.as_str(), row.kept) {
                ("", _) => "",
                (_, true) => "kept",
                (_, false) => "missed",
            };
            println!(
                "| {} | {} | {} | {} | {mark} |",
                row.what, row.ours, row.peer, row.budget
            );
        }
    }
}

/// The value below which this share (0 to 100) of the samples lie.
pub(crate) fn percentile(samples: &mut [Duration], share: usize) -> Duration {
    samples.sort_unstable();
    let index = (samples.len() * share / 100).min(samples.len().saturating_sub(1));
    samples.get(index).copied().unwrap_or_default()
}

/// Milliseconds with the precision that matters.
pub(crate) fn ms(span: Duration) -> String {
    let ms = span.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.3} ms")
    } else {
        format!("{ms:.0} ms")
    }
}
