//! What becomes of the corpus: our exporter beside podlet, both judged by Podman's own generator if it is there.
//!
//! ```text
//! cargo run -p nimbus-compose --example corpus [-- --write DIR]
//! ```
//!
//! `PODLET` names podlet (`ops/dev/podlet.sh` installs it), `QUADLET` the generator, which Podman keeps as
//! `/usr/libexec/podman/quadlet`. What is not there has no column. `--write` keeps the units, and each file as it was
//! read.

use std::collections::BTreeMap;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_compose::quadlet::{Artifact, Options, export};
use nimbus_compose::{Level, Load, load};

/// What came of one file.
enum Verdict {
    Converted(usize),
    Refused(String),
    /// Written, and not understood by the generator.
    Broken(String),
}

impl Verdict {
    fn shown(&self) -> String {
        match self {
            Self::Converted(0) => "converted".to_owned(),
            Self::Converted(1) => "1 warning".to_owned(),
            Self::Converted(count) => format!("{count} warnings"),
            Self::Refused(why) => format!("refused: {why}"),
            Self::Broken(why) => format!("broken: {why}"),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let corpus = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let podlet = std::env::var("PODLET").ok();
    let quadlet = std::env::var("QUADLET").ok();
    let mut args = std::env::args().skip(1);
    let keep = match (args.next().as_deref(), args.next()) {
        (Some("--write"), Some(folder)) => Some(Utf8PathBuf::from(folder)),
        (None, _) => None,
        _ => return Err("usage: corpus [--write DIR]".into()),
    };
    let work = std::env::temp_dir().join(format!("nimbus-corpus-{}", std::process::id()));
    let work = Utf8PathBuf::try_from(work)?;
    let mut names: Vec<String> = Vec::new();
    for entry in corpus.read_dir_utf8()? {
        names.push(entry?.file_name().to_owned());
    }
    names.sort();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut count = |who, verdict: &Verdict| {
        let what = match verdict {
            Verdict::Converted(0) => "converted",
            Verdict::Converted(_) => "warned",
            Verdict::Refused(_) => "refused",
            Verdict::Broken(_) => "broken",
        };
        *counts.entry((who, what)).or_default() += 1;
    };
    println!("| file | Nimbus | podlet |\n|---|---|---|");
    for name in &names {
        let file = corpus.join(name).join("compose.yaml");
        let target = keep.as_ref().unwrap_or(&work).join(name);
        let mut ours = ours(&file, &target)?;
        judge(quadlet.as_deref(), &target, &mut ours)?;
        count("Nimbus", &ours);
        let mut shown = "-".to_owned();
        if let Some(podlet) = &podlet {
            let target = work.join("podlet").join(name);
            let mut theirs = theirs(podlet, &file, &target)?;
            judge(quadlet.as_deref(), &target, &mut theirs)?;
            count("podlet", &theirs);
            shown = theirs.shown();
        }
        println!("| {name} | {} | {shown} |", ours.shown());
    }
    println!(
        "\n| of {} | converted | warned | refused | broken |\n|---|---|---|---|---|",
        names.len()
    );
    for who in ["Nimbus", "podlet"] {
        let of = |what| counts.get(&(who, what)).copied().unwrap_or_default();
        println!(
            "| {who} | {} | {} | {} | {} |",
            of("converted"),
            of("warned"),
            of("refused"),
            of("broken")
        );
    }
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    Ok(())
}

fn ours(file: &Utf8Path, target: &Utf8Path) -> std::io::Result<Verdict> {
    let wanted = Load {
        files: vec![file.to_owned()],
        environment: BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]),
        ..Load::default()
    };
    let loaded = match load(&wanted) {
        Ok(loaded) => loaded,
        Err(error) => return Ok(Verdict::Refused(error.to_string())),
    };
    std::fs::create_dir_all(target)?;
    std::fs::write(target.join("resolved.yaml"), loaded.project.to_yaml())?;
    let done = match export(&loaded.project, &Options::default()) {
        Ok(done) => done,
        Err(error) => return Ok(Verdict::Refused(error.to_string())),
    };
    for Artifact { name, text } in &done.artifacts {
        std::fs::write(target.join(name), text)?;
    }
    let warnings = loaded
        .notices
        .iter()
        .chain(&done.notices)
        .filter(|notice| notice.level == Level::Warning);
    Ok(Verdict::Converted(warnings.count()))
}

fn theirs(podlet: &str, file: &Utf8Path, target: &Utf8Path) -> std::io::Result<Verdict> {
    std::fs::create_dir_all(target)?;
    let folder = file.parent().unwrap_or(file);
    let done = Command::new(podlet)
        .args([
            "--absolute-host-paths",
            folder.as_str(),
            "--file",
            target.as_str(),
        ])
        .args(["compose", file.as_str()])
        .current_dir(folder)
        .output()?;
    if done.status.success() {
        return Ok(Verdict::Converted(0));
    }
    let said = plain(&String::from_utf8_lossy(&done.stderr));
    // The innermost cause stands last, above the place in podlet's own code.
    let causes = said
        .lines()
        .map(str::trim)
        .take_while(|line| *line != "Location:");
    let numbered = causes.filter_map(|line| {
        let (number, cause) = line.split_once(": ")?;
        number.parse::<u32>().ok().map(|_| cause)
    });
    let cause = numbered
        .last()
        .unwrap_or_else(|| said.lines().next().unwrap_or_default());
    let short: String = cause.replace('|', "/").chars().take(90).collect();
    Ok(Verdict::Refused(short))
}

/// A text without the colours of a terminal.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    out + rest
}

/// Asks the generator, which names every unit that it cannot turn into a service.
fn judge(quadlet: Option<&str>, units: &Utf8Path, verdict: &mut Verdict) -> std::io::Result<()> {
    let (Some(quadlet), Verdict::Converted(_)) = (quadlet, &*verdict) else {
        return Ok(());
    };
    let units = units.canonicalize_utf8()?;
    let done = Command::new(quadlet)
        .args(["-dryrun", "-user"])
        .env("QUADLET_UNIT_DIRS", units.as_str())
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let complaint = said
        .lines()
        .find(|line| line.contains("converting") || line.contains("error"));
    if let Some(complaint) = complaint {
        let short = complaint.split_once("]: ").map_or(complaint, |(_, short)| short);
        *verdict = Verdict::Broken(short.replace(units.as_str(), "").replace('|', "/"));
    }
    Ok(())
}
