//! Files such as people have, each exported in every form and for every Podman.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_compose::quadlet::directive::{DIRECTIVES, Version};
use nimbus_compose::quadlet::{Export, ExportError, Mode, Options, export};
use nimbus_compose::{Level, Load, Loaded, load};

use crate::grammar;

/// All versions that brought a directive, and the one that is newest.
const VERSIONS: [Option<Version>; 12] = [
    None,
    Some(Version::new(4, 4)),
    Some(Version::new(4, 5)),
    Some(Version::new(4, 6)),
    Some(Version::new(4, 7)),
    Some(Version::new(4, 9)),
    Some(Version::new(5, 0)),
    Some(Version::new(5, 1)),
    Some(Version::new(5, 2)),
    Some(Version::new(5, 3)),
    Some(Version::new(5, 4)),
    Some(Version::new(5, 5)),
];

pub(crate) fn folder() -> Utf8PathBuf {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

#[expect(clippy::expect_used, reason = "every file of the corpus has to load")]
pub(crate) fn project(name: &str) -> Loaded {
    let wanted = Load {
        files: vec![folder().join(name).join("compose.yaml")],
        environment: BTreeMap::from([("HOME".to_owned(), "/home/ann".to_owned())]),
        ..Load::default()
    };
    load(&wanted).expect(name)
}

#[expect(clippy::unwrap_used, reason = "the corpus is there")]
fn names() -> Vec<String> {
    let entries = folder().read_dir_utf8().unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn nine_of_ten_are_converted() {
    let names = names();
    assert!(names.len() >= 60, "{} files", names.len());
    let mut refused = Vec::new();
    for name in &names {
        let loaded = project(name);
        if let Err(error) = export(&loaded.project, &Options::default()) {
            refused.push(format!("{name}: {error}"));
        }
    }
    assert!(refused.len() * 10 <= names.len(), "{refused:#?}");
}

#[test]
fn every_output_is_one_that_podman_reads() {
    let mut used: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for name in names() {
        let loaded = project(&name);
        for mode in [Mode::Containers, Mode::Pod, Mode::Kube] {
            for podman in VERSIONS {
                let options = Options {
                    mode,
                    podman,
                    ..Options::default()
                };
                let done = match export(&loaded.project, &options) {
                    Ok(done) => done,
                    Err(ExportError::TooOld { .. }) => continue,
                    Err(error) => panic!("{name}, {}: {error}", mode.name()),
                };
                for artifact in &done.artifacts {
                    if let Err(why) = grammar::check(artifact, &options) {
                        panic!(
                            "{name}, {}, {podman:?}: {}: {why}\n{}",
                            mode.name(),
                            artifact.name,
                            artifact.text
                        );
                    }
                    count(artifact, &mut used);
                }
                complete(&name, &done);
            }
        }
    }
    // The corpus is wide enough to have used every directive.
    for row in DIRECTIVES {
        let key = (row.section.name(), row.key.to_owned());
        assert!(used.contains_key(&key), "no file uses [{}] {}=", key.0, key.1);
    }
}

fn count(artifact: &nimbus_compose::quadlet::Artifact, used: &mut BTreeMap<(&'static str, String), usize>) {
    let Ok(file) = nimbus_units::UnitFile::parse(&artifact.text) else {
        return;
    };
    for row in DIRECTIVES {
        let values = file.values(row.section.name(), row.key).count();
        if values > 0 {
            *used.entry((row.section.name(), row.key.to_owned())).or_default() += values;
        }
    }
}

/// Whatever a unit names is there: networks, volumes, the pod, and what it waits for.
#[expect(clippy::panic, reason = "what is not there is a failure of the test")]
fn complete(name: &str, done: &Export) {
    let has = |file: &str| done.artifacts.iter().any(|artifact| artifact.name == file);
    for artifact in &done.artifacts {
        for line in artifact.text.lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let file = match key {
                "Network" | "Volume" => value.split(':').next().unwrap_or_default(),
                "Pod" | "Yaml" => value,
                "Wants" | "Requires" | "After" if value.ends_with(".service") => {
                    let unit = value.trim_end_matches("service");
                    if !has(&format!("{unit}container")) {
                        panic!("{name}: {} waits for {value}", artifact.name);
                    }
                    continue;
                }
                _ => continue,
            };
            let is_unit = [".network", ".volume", ".pod", ".yaml"]
                .iter()
                .any(|end| file.ends_with(end));
            if is_unit && !has(file) {
                panic!("{name}: {} names {file}", artifact.name);
            }
        }
    }
}

#[test]
fn every_warning_says_where_and_what_to_do() {
    for name in names() {
        let loaded = project(&name);
        let done = export(&loaded.project, &Options::default()).unwrap();
        for notice in loaded.notices.iter().chain(&done.notices) {
            assert!(
                !notice.advice.is_empty() && !notice.what.is_empty(),
                "{name}: {notice}"
            );
            assert!(!notice.at.file.is_empty(), "{name}: {notice}");
            if notice.level == Level::Warning {
                let file = folder().join(&name).join(&*notice.at.file);
                let text = std::fs::read_to_string(file).unwrap();
                assert!(text.lines().count() >= notice.at.line, "{name}: {notice}");
            }
        }
    }
}

#[test]
fn resolved_files_mean_the_same() {
    for name in names() {
        let first = project(&name).project;
        let dir = camino_tempfile::tempdir().unwrap();
        let file = dir.path().join("compose.yaml");
        std::fs::write(&file, first.to_yaml()).unwrap();
        let wanted = Load {
            files: vec![file],
            ..Load::default()
        };
        let second = load(&wanted).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(second.notices, [], "{name}");
        assert_eq!(first.to_yaml(), second.project.to_yaml(), "{name}");
        let options = Options::default();
        let bodies = |done: Export| -> Vec<String> {
            let artifacts = done.artifacts.into_iter();
            artifacts
                .map(|artifact| match nimbus_units::inspect(&artifact.text) {
                    Some(read) => read.body.to_owned(),
                    None => artifact.text,
                })
                .collect()
        };
        assert_eq!(
            bodies(export(&first, &options).unwrap()),
            bodies(export(&second.project, &options).unwrap()),
            "{name}"
        );
    }
}
