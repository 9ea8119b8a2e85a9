//! Values on their way from a Compose file to what the service manager makes of a unit.

use nimbus_compose::quadlet::{Export, Options, export};
use nimbus_units::{Syntax, UnitFile, unquote};
use proptest::prelude::*;

use crate::project::Folder;

fn exported(text: &str) -> Result<Export, String> {
    let folder = Folder::new(&[("compose.yaml", text)]);
    let loaded = folder.load().map_err(|error| error.to_string())?;
    export(&loaded.project, &Options::default()).map_err(|error| error.to_string())
}

#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the first unit is there and is one"
)]
fn unit(done: &Export) -> UnitFile {
    UnitFile::parse(&done.artifacts[0].text).unwrap()
}

/// A text in a Compose file, in YAML's double quotes, which JSON's are a part of.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}

#[expect(clippy::unwrap_used, reason = "what was quoted can be unquoted")]
fn words(file: &UnitFile, key: &str) -> Vec<String> {
    let values = file.values("Container", key);
    values
        .flat_map(|value| unquote(value, Syntax::Command).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn commands_environment_and_labels_come_through(
        command in prop::collection::vec("(\\PC|[%$\"'\\\\ \n\t]){1,16}", 1..5),
        values in prop::collection::vec("(\\PC|[%$\"'\\\\ \n\t=]){0,16}", 0..4),
    ) {
        let list: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        let mut text = format!("services:\n  a:\n    image: x\n    command: [{}]\n    environment:\n      FIRST: x\n", list.join(", "));
        for (index, value) in values.iter().enumerate() {
            text.push_str(&format!("      V{index}: {}\n", quoted(value)));
        }
        text.push_str("    labels:\n      first: x\n");
        for (index, value) in values.iter().enumerate() {
            text.push_str(&format!("      l{index}: {}\n", quoted(value)));
        }
        let file = unit(&exported(&text).unwrap());
        prop_assert_eq!(words(&file, "Exec"), command);
        let expected = |first: &str, prefix: &str| -> Vec<String> {
            let rest = values.iter().enumerate().map(|(index, value)| format!("{prefix}{index}={value}"));
            std::iter::once(first.to_owned()).chain(rest).collect()
        };
        prop_assert_eq!(words(&file, "Environment"), expected("FIRST=x", "V"));
        prop_assert_eq!(words(&file, "Label"), expected("first=x", "l"));
    }

    #[test]
    fn checks_and_entrypoints_come_through(words in prop::collection::vec("(\\PC|[%$\"'\\\\ \n\t]){0,16}", 2..5)) {
        let list: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let list = list.join(", ");
        let file = unit(&exported(&format!(
            "services:\n  a:\n    image: x\n    entrypoint: [{list}]\n    healthcheck: {{test: [CMD, {list}]}}\n"
        )).unwrap());
        for key in ["Entrypoint", "HealthCmd"] {
            let value = file.value("Container", key).unwrap().replace("$$", "$").replace("%%", "%");
            let read: Vec<String> = serde_json::from_str(&value).unwrap();
            prop_assert_eq!(&read, &words, "{}", key);
        }
    }

    #[test]
    fn paths_and_names_come_through_or_are_refused(path in "/[a-z %$']{1,12}[a-z]", user in "[a-z0-9%$ ]{1,8}") {
        let text = format!(
            "services:\n  a:\n    image: x\n    user: {}\n    working_dir: {}\n    volumes: [{{type: bind, source: {}, target: {}}}]\n",
            quoted(&user), quoted(&path), quoted(&path), quoted(&path),
        );
        let Ok(done) = exported(&text) else { return Ok(()) };
        let file = unit(&done);
        let plain = |key: &str| file.value("Container", key).unwrap().replace("$$", "$").replace("%%", "%");
        prop_assert_eq!(plain("User"), user);
        prop_assert_eq!(plain("WorkingDir"), path.clone());
        prop_assert_eq!(plain("Volume"), format!("{path}:{path}"));
    }

    #[test]
    fn no_file_brings_it_down(text in "([a-z]{1,8}: |[\\[\\]{}&*!,\"'$#-]|\\n {0,6}|services|image|[0-9:/.]{1,6}){0,40}") {
        let _ = exported(&text);
    }

    #[test]
    fn no_value_brings_it_down(
        key in prop::sample::select(vec![
            "command", "entrypoint", "ports", "volumes", "environment", "env_file", "depends_on", "networks", "healthcheck",
            "deploy", "ulimits", "secrets", "configs", "logging", "extra_hosts", "build", "tmpfs", "restart", "user", "labels",
            "stop_grace_period", "mem_limit", "cpus", "gpus", "x-nimbus", "extends", "profiles", "sysctls", "dns", "links",
        ]),
        value in "(\\PC{0,6}|[\\[\\]{}:,\"'$/0-9-]){0,12}",
        form in 0..4_u8,
    ) {
        let value = quoted(&value);
        let value = match form {
            0 => value,
            1 => format!("[{value}]"),
            2 => format!("{{{value}: {value}}}"),
            _ => format!("[{{source: {value}, target: {value}, test: [CMD, {value}]}}]"),
        };
        let _ = exported(&format!("services:\n  a:\n    image: x\n    {key}: {value}\n"));
    }
}

#[test]
fn what_no_unit_can_hold_is_refused_with_its_place() {
    for (text, expected) in [
        (
            "services:\n  a: {image: x, working_dir: \"/a\\nb\"}\n",
            "services.a.working_dir: the value of WorkingDir= holds a line break",
        ),
        (
            "services:\n  a: {image: x, environment: {\"1A\": x}}\n",
            "`1A` is no name of a variable",
        ),
        (
            "services:\n  a_b: {image: x}\n  a-b: {image: x}\n",
            "would both be",
        ),
    ] {
        let error = exported(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_takes_isolation_away_is_never_written() {
    let done = exported(
        "services:\n  a:\n    image: x\n    privileged: true\n    cap_add: [SYS_ADMIN]\n    network_mode: host\n    pid: host\n    \
         ipc: host\n    devices: [/dev/kvm]\n    security_opt: [seccomp:unconfined]\n    userns_mode: host\n    \
         volumes_from: [b]\n    gpus: all\n  b: {image: x}\n",
    )
    .unwrap();
    let told: Vec<&str> = done.notices.iter().map(|notice| notice.key.as_str()).collect();
    for key in [
        "privileged",
        "cap_add",
        "network_mode",
        "pid",
        "ipc",
        "devices",
        "security_opt",
        "userns_mode",
        "volumes_from",
        "gpus",
    ] {
        let key = format!("services.a.{key}");
        assert!(told.contains(&key.as_str()), "{key} is not told: {told:?}");
    }
    for artifact in &done.artifacts {
        for word in [
            "PodmanArgs",
            "GlobalArgs",
            "AddCapability",
            "AddDevice",
            "=host",
            "privileged",
            "seccomp",
        ] {
            assert!(
                !artifact.text.contains(word),
                "{word} is written: {}",
                artifact.text
            );
        }
    }
}

/// The first unit of a file.
#[expect(clippy::unwrap_used, reason = "a file that is refused is a test that fails")]
fn first(service: &str, rest: &str) -> String {
    let done = exported(&format!(
        "name: demo\nservices:\n  web:\n    image: web\n{service}{rest}"
    ))
    .unwrap();
    done.artifacts.into_iter().next().unwrap().text
}

#[test]
fn checks_come_through_as_podman_reads_them() {
    let check = |test: &str| {
        let service = format!("    healthcheck: {{test: {test}, interval: 0s, timeout: 0s, retries: 0}}\n");
        let text = first(&service, "");
        assert!(
            !text.contains("HealthRetries") && !text.contains("HealthTimeout"),
            "{text}"
        );
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("HealthCmd="))
            .unwrap();
        line.to_owned()
    };
    assert_eq!(
        check("[CMD, /healthcheck]"),
        "CMD /healthcheck",
        "a list of one is a line for a shell"
    );
    assert_eq!(check("[CMD, pg_isready, -q]"), r#"["pg_isready","-q"]"#);
    assert_eq!(check("[CMD-SHELL, 'curl -f localhost']"), "curl -f localhost");
    assert_eq!(
        check(r#"[CMD-SHELL, 'pg_isready -d "x"']"#),
        r#"["/bin/sh","-c","pg_isready -d \"x\""]"#,
        "a quote at an end would be taken away"
    );
}

#[test]
fn what_compose_fills_in_is_filled_in() {
    let service = "    links: [db]\n    configs: [{source: c, target: conf.d/a}]\n    volumes: [{type: tmpfs, target: /s, tmpfs: {size: 1m, mode: 0700}}]\n";
    let rest = "  db: {image: db}\nconfigs: {c: {content: hi}}\n";
    let text = first(service, rest);
    for line in [
        "After=demo-db.service",
        "Volume=./demo-c.config:/conf.d/a:ro",
        "Tmpfs=/s:size=1048576,mode=0700",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}
