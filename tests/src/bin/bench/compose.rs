//! Compose files to units: our exporter beside podlet, each as the command that a person runs, on the corpus of
//! `shared/compose`.
//!
//! `PODLET` names podlet; without it `ops/dev/podlet.sh` installs it below `target/`. When that fails, the reason
//! stands where its figures would.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::report::{Report, ms, percentile};
use crate::server::binary;

/// What became of the corpus, and how long each file took.
#[derive(Default)]
struct Tally {
    converted: usize,
    warned: usize,
    refused: usize,
    times: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, began: Instant, done: &Output) {
        self.times.push(began.elapsed());
        // What podlet cannot keep it refuses; it has no warnings.
        let warned = String::from_utf8_lossy(&done.stderr)
            .lines()
            .any(|line| line.starts_with("Warning: "));
        if !done.status.success() {
            self.refused += 1;
        } else if warned {
            self.warned += 1;
        } else {
            self.converted += 1;
        }
    }

    fn row(&mut self, who: &str) -> String {
        let p50 = ms(percentile(&mut self.times, 50));
        format!(
            "| {who} | {} | {} | {} | {p50} |",
            self.converted, self.warned, self.refused
        )
    }
}

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("compose files to units");
    let (ours, peer) = tokio::task::spawn_blocking(corpus).await??;
    report.add("a Compose file to units, p50 of the corpus", ours, peer, "", true);
    Ok(())
}

/// Prints the table; the row for the report.
fn corpus() -> Result<(String, String)> {
    let root = Utf8Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate is in the checkout")?;
    let corpus = root.join("shared/compose/tests/corpus");
    let mut names: Vec<String> = Vec::new();
    for entry in corpus.read_dir_utf8()? {
        names.push(entry?.file_name().to_owned());
    }
    names.sort();
    ensure!(!names.is_empty(), "there are no files in {corpus}");
    let podlet = podlet(root);
    let nimbus = binary()?;
    let work = camino_tempfile::tempdir()?;
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    // In turns, so that what else the machine does meets both.
    for name in &names {
        let file = corpus.join(name).join("compose.yaml");
        let target = |who: &str| work.path().join(who).join(name);
        let mut command = run(nimbus.as_ref(), &file);
        command.args(["compose", "--file", file.as_str(), "export", "quadlet"]);
        command.args(["--output-dir", target("nimbus").as_str()]);
        let began = Instant::now();
        ours.add(began, &command.output()?);
        let Ok(podlet) = &podlet else { continue };
        let target = target("podlet");
        std::fs::create_dir_all(&target)?;
        let mut command = run(podlet.as_ref(), &file);
        let folder = file.parent().unwrap_or(&corpus);
        command.args([
            "--absolute-host-paths",
            folder.as_str(),
            "--file",
            target.as_str(),
        ]);
        command.args(["compose", file.as_str()]);
        let began = Instant::now();
        theirs.add(began, &command.output()?);
    }
    println!(
        "\n| of {} | converted | with warnings | refused | p50 of a file |\n|---|---|---|---|---|",
        names.len()
    );
    println!("{}", ours.row("Nimbus"));
    let mine = percentile(&mut ours.times, 50);
    Ok(match &podlet {
        Ok(_) => {
            println!("{}\n", theirs.row("podlet"));
            let theirs = percentile(&mut theirs.times, 50);
            let ratio = mine.as_secs_f64() / theirs.as_secs_f64();
            let ours = format!("{} ({ratio:.2} ×)", ms(mine));
            (ours, format!("podlet {}", ms(theirs)))
        }
        Err(reason) => {
            println!("| podlet | not built: {reason} | | | |\n");
            (ms(mine), "podlet: not built".to_owned())
        }
    })
}

/// A program in the folder of `file`, with the little of an environment that both need.
fn run(program: &Utf8Path, file: &Utf8Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", "/root").env("NO_COLOR", "1");
    if let Some(folder) = file.parent() {
        command.current_dir(folder);
    }
    command
}

/// Where podlet is, or why it is not.
fn podlet(root: &Utf8Path) -> Result<Utf8PathBuf, String> {
    if let Ok(named) = std::env::var("PODLET") {
        return Ok(named.into());
    }
    eprintln!("  podlet, from ops/dev/podlet.sh; the first time it is compiled");
    let done = Command::new(root.join("ops/dev/podlet.sh"))
        .output()
        .map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim().into());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(said.lines().last().unwrap_or("no reason was given").to_owned())
}
