//! Outputs as they were looked at and found right. `NIMBUS_GENERATE=1` writes them again.

use std::fmt::Write;

use camino::Utf8Path;
use nimbus_compose::load;
use nimbus_compose::quadlet::{Mode, Options, export};

use crate::corpus::project;
use crate::project::Folder;

/// File of the corpus, form, Podman.
const CASES: &[(&str, Mode, Option<&str>)] = &[
    ("blog-ghost", Mode::Containers, None),
    ("blog-ghost", Mode::Pod, None),
    ("blog-ghost", Mode::Kube, None),
    ("blog-wordpress", Mode::Containers, None),
    ("monitoring-prometheus", Mode::Containers, None),
    ("monitoring-loki", Mode::Containers, None),
    ("passwords-vaultwarden", Mode::Containers, None),
    ("db-postgres", Mode::Containers, None),
    ("db-postgres", Mode::Containers, Some("4.6")),
    ("db-clickhouse", Mode::Containers, Some("5.4.2")),
    ("db-clickhouse", Mode::Containers, Some("4.4")),
    ("queue-kafka", Mode::Containers, None),
    ("queue-kafka", Mode::Pod, Some("5.2")),
    ("dev-app", Mode::Containers, None),
    ("dev-app", Mode::Kube, None),
    ("vpn-wireguard", Mode::Containers, None),
    ("nfs-media", Mode::Containers, None),
    ("proxy-traefik", Mode::Containers, None),
];

#[test]
fn outputs_are_what_they_were() {
    let folder = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let generate = std::env::var_os("NIMBUS_GENERATE").is_some();
    for (name, mode, podman) in CASES {
        let loaded = project(name);
        let options = Options {
            mode: *mode,
            podman: podman.map(|version| version.parse().unwrap()),
            // The same wherever the repository lies.
            bind_root: Some(format!("/srv/{name}").into()),
            ..Options::default()
        };
        let done = export(&loaded.project, &options).unwrap();
        let mut text = String::new();
        for artifact in &done.artifacts {
            writeln!(text, "### {}\n{}", artifact.name, artifact.text).unwrap();
        }
        for notice in loaded.notices.iter().chain(&done.notices) {
            writeln!(text, "{notice}").unwrap();
        }
        let version = podman.map_or_else(String::new, |version| format!("-{version}"));
        let path = folder.join(format!("{name}.{}{version}.txt", mode.name()));
        if generate {
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "{path}; NIMBUS_GENERATE=1 writes it again");
        // Nothing depends on when or how often it is run.
        assert_eq!(
            export(&loaded.project, &options).unwrap().artifacts,
            done.artifacts
        );
    }
}

/// The user page shows what the command prints.
#[test]
fn the_page_tells_the_truth() {
    let page = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compose.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = |kind: &str| {
        let (_, rest) = page.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let folder = Folder::new(&[("compose.yaml", &block("yaml")), ("root.txt", "x")]);
    let mut wanted = folder.wanted();
    wanted.name = Some("blog".to_owned());
    let loaded = load(&wanted).unwrap();
    let options = Options {
        bind_root: Some("/srv/blog".into()),
        ..Options::default()
    };
    let done = export(&loaded.project, &options).unwrap();
    let mut printed = String::new();
    for notice in loaded.notices.iter().chain(&done.notices) {
        writeln!(printed, "{notice}").unwrap();
    }
    for artifact in &done.artifacts {
        writeln!(printed, "wrote: units/{}", artifact.name).unwrap();
    }
    assert_eq!(printed, block("text"));
    let unit = &done.artifacts[1];
    assert_eq!(unit.name, "blog-db.container");
    assert!(
        unit.text.ends_with(&format!("\n\n{}", block("ini"))),
        "{}",
        unit.text
    );
}
