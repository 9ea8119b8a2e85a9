//! The page about nodes, told by itself: every command of its `console` blocks runs on a host with systemd, in
//! order, and has to print what the page says.
//!
//! `#` is root on the host, `$` an account of it, and `b#` root on a second host, which has a container engine. Times, ids
//! and numbers may differ, and a line of `…` stands for any lines. `NIMBUS_GENERATE=1` writes what was printed into the
//! page.

use std::fmt::Write;

use camino_tempfile::Utf8TempDir;
use nimbus_tests::process::root;

use super::host::{As, Host};

const PAGE: &str = "docs/node.md";
/// Where the page's downloads are; the image of the tests stands for one that everybody knows.
const SETUP: &str = "mkdir dl && cp /opt/nimbus dl/nimbus";
const IMAGES: (&str, &str) = ("docker.io/library/busybox:latest", "nimbus.test/busybox:1");
/// What names the second host's containers.
const ENGINE_LABEL: &str = "label=io.nimbus.sandbox.host=b";

/// Releases that do not get ready, and that do.
const RELEASES: &str = r#"
printf '#!/bin/sh\n[ "$1" = version ] && echo nimbus 0.2.0 && exit\nexit 1\n' >dl/nimbus-0.2.0
printf '#!/bin/sh\n[ "$1" = version ] && echo nimbus 0.1.1 && exit\nexec /opt/nimbus "$@"\n' >dl/nimbus-0.1.1
chmod 755 dl/*"#;

/// One command and what follows it.
struct Step {
    prompt: &'static str,
    command: String,
    prints: Vec<String>,
}

/// The prompts, those first that begin as another does not.
const PROMPTS: [&str; 3] = ["b# ", "# ", "$ "];

/// The page in order: text as it is, and what is run.
enum Piece {
    Text(String),
    Step(Step),
}

fn pieces(page: &str) -> Vec<Piece> {
    let (mut pieces, mut in_block) = (Vec::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if in_block {
            let prompt = PROMPTS.into_iter().find(|prompt| line.starts_with(prompt));
            if let Some(prompt) = prompt {
                pieces.push(Piece::Step(Step {
                    prompt,
                    command: line[prompt.len()..].to_owned(),
                    prints: Vec::new(),
                }));
                continue;
            }
            let Some(Piece::Step(step)) = pieces.last_mut() else {
                panic!("{PAGE}: a block begins with what no command printed: {line}");
            };
            step.prints.push(line.to_owned());
            continue;
        }
        pieces.push(Piece::Text(line.to_owned()));
    }
    pieces
}

/// A line without what differs from run to run.
fn steady(line: &str) -> String {
    const UNITS: [&str; 4] = ["ms", "s", "min", "h"];
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut words: Vec<String> = Vec::new();
    // Those two are named once they have answered the gateway, which on a busy machine is a moment later.
    let line = line
        .replace("\"gpu\":true,", "")
        .replace(",\"workloads\":true", "");
    for word in line.split_whitespace() {
        let parts: Vec<&str> = word.split([':', '-']).collect();
        let is_time = parts.len() >= 2 && parts.iter().all(|part| is_number(part));
        let is_span = UNITS
            .iter()
            .any(|unit| word.strip_suffix(unit).is_some_and(is_number));
        let steady = if let Some(hash) = word.strip_prefix("sha256:") {
            assert!(hash.len() == 64 && is_hex(hash), "{word} is no hash");
            "<hash>".to_owned()
        } else if let Some(token) = word.strip_prefix("nimbus_jt_") {
            assert!(is_hex(token.trim_end_matches('…')), "{word} is no token");
            "<token>".to_owned()
        } else if let Some((program, _)) = word.strip_suffix("]:").and_then(|word| word.split_once('[')) {
            format!("{program}[<number>]:")
        } else if word.len() == 8 && is_hex(word) {
            // Also one that happens to have no letter.
            "<id>".to_owned()
        } else if is_time || is_span || is_number(word) {
            "<number>".to_owned()
        } else if ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].contains(&word) {
            "<day>".to_owned()
        } else if ["Jan", "Feb", "Mar", "Apr", "May", "Jun"].contains(&word)
            || ["Jul", "Aug", "Sep", "Oct", "Nov", "Dec"].contains(&word)
        {
            "<month>".to_owned()
        } else {
            word.to_owned()
        };
        words.push(steady);
    }
    // `1min 2s ago` and `2s ago` say the same.
    words.dedup_by(|next, last| next == "<number>" && last == "<number>");
    words.join(" ")
}

/// Whether the page says what was printed.
fn told(page: &[String], printed: &[String]) -> bool {
    match page.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line.trim() == "…" => {
            (0..=printed.len()).any(|skipped| told(rest, &printed[skipped..]))
        }
        Some((line, rest)) => match printed.split_first() {
            Some((found, others)) => steady(line) == steady(found) && told(rest, others),
            None => false,
        },
    }
}

/// A second host, whose sandboxes run in the engine of this machine.
fn second_host(first: &Host) -> (Host, Utf8TempDir) {
    let state = camino_tempfile::Builder::new()
        .prefix("nimbus-walk-")
        .tempdir_in("/tmp")
        .unwrap();
    let path = state.path().as_str();
    let address = first.root("hostname -I | cut -d' ' -f1").ok();
    let host = Host::with(
        "walk-b",
        &[
            "--hostname",
            "b",
            "--add-host",
            &format!("node:{}", address.trim()),
            "-v",
            "/var/run/docker.sock:/run/docker.sock",
            "-v",
            &format!("{path}:{path}"),
        ],
    );
    host.root("groupadd --gid $(stat -c %g /run/docker.sock) docker")
        .ok();
    // The engine is outside of this host and has to find the files of sandboxes under the same path.
    let unit = "/etc/systemd/system/nimbus-sandbox-agent.service.d";
    host.root(&format!(
        "mkdir {unit} && printf '[Service]\\nEnvironment=NIMBUS_SANDBOX_STATE_DIR={path}\\nBindPaths={path}\\nExecStartPre=+/bin/chown nimbus: {path}\\n' >{unit}/10-test.conf"
    ))
    .ok();
    (host, state)
}

fn of_the_engine() -> String {
    let listed = std::process::Command::new("docker")
        .args(["ps", "--all", "--quiet", "--filter", ENGINE_LABEL])
        .output()
        .unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn the_page_of_nodes_says_what_is_printed() {
    let install = format!("{}:/root/ops/install:ro", root().join("ops/install"));
    let release = format!("{}:/root/release:ro", root().join("tests/it/node/release"));
    let host = Host::with("walk", &["-v", &install, "-v", &release]);
    let (second, state) = second_host(&host);
    for (place, folder) in [(&host, "/root"), (&second, "/root"), (&host, "/home/user")] {
        place.root(&format!("cd {folder} && {SETUP}")).ok();
    }
    host.root(&format!("cd /root && {RELEASES}")).ok();
    host.root("chown -R user: /home/user/dl").ok();
    host.root("loginctl enable-linger user").ok();
    host.until(As::User, "systemctl --user is-system-running", |said| {
        said.out == "running\n"
    });
    let before = (host.files(), second.files());

    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let (mut wrong, mut written) = (Vec::new(), String::new());
    // Each command has a shell of its own; what a section exports ends with it.
    let (mut steps, mut exports) = (0, String::new());
    for piece in pieces(&page) {
        let step = match piece {
            Piece::Text(line) => {
                if line.starts_with("## ") {
                    exports.clear();
                }
                writeln!(written, "{line}").unwrap();
                continue;
            }
            Piece::Step(step) => step,
        };
        steps += 1;
        let command = step.command.replace(IMAGES.0, IMAGES.1);
        if command.starts_with("export ") {
            writeln!(exports, "{command}").unwrap();
        }
        let line = format!("exec 2>&1; cd; {command}");
        let said = match step.prompt {
            "b# " => second.root(&line),
            "$ " => host.sh(As::User, &line),
            _ => host.root(&format!("{exports}{line}")),
        };
        let printed: Vec<String> = said.out.lines().map(str::to_owned).collect();
        if let Some(token) = printed.iter().find(|line| line.starts_with("nimbus_jt_")) {
            // What a person carries over.
            second.root(&format!("echo {token} >/root/token")).ok();
        }
        writeln!(written, "{}{}", step.prompt, step.command).unwrap();
        let agrees = told(&step.prints, &printed);
        for line in if agrees { &step.prints } else { &printed } {
            writeln!(written, "{line}").unwrap();
        }
        if !agrees {
            wrong.push(format!(
                "{}{}\n{}\n--- and the page says\n{}",
                step.prompt,
                step.command,
                printed.join("\n"),
                step.prints.join("\n")
            ));
        }
    }
    assert!(steps > 30, "the page has only {steps} commands");
    let generate = std::env::var("NIMBUS_GENERATE").is_ok_and(|value| !value.is_empty());
    if generate {
        std::fs::write(root().join(PAGE), written).unwrap();
    }
    assert!(
        wrong.is_empty() || generate,
        "NIMBUS_GENERATE=1 writes {PAGE} again:\n\n{}",
        wrong.join("\n\n")
    );

    // It ends where it began, but for the release that was looked at last and what was carried over.
    host.root("rm -f /usr/local/bin/nimbus").ok();
    for (host, before) in [(&host, before.0), (&second, before.1)] {
        let now = host.files();
        let left: Vec<_> = now.iter().filter(|path| !before.contains(path)).collect();
        let lost: Vec<_> = before.iter().filter(|path| !now.contains(path)).collect();
        assert!(left.is_empty() && lost.is_empty(), "left {left:?}, lost {lost:?}");
    }
    assert_eq!(of_the_engine(), "", "containers are left");
    // Files of the second host belong to accounts that are not those of this machine.
    second
        .root(&format!("find {} -mindepth 1 -delete", state.path()))
        .ok();
}

#[test]
fn only_what_differs_from_run_to_run_may_differ() {
    for (page, printed, same) in [
        ("; 1s ago", "; 1min 20s ago", true),
        (
            "Nov 22 07:02:25 node nimbus[556]: Warning",
            "Jan 1 17:02:25 node nimbus[9]: Warning",
            true,
        ),
        (
            "Nov 22 07:02:25 node nimbus[556]: Warning",
            "Jan 1 17:02:25 node nimbus[9]: Error",
            false,
        ),
        ("auth  0.1.0", "auth  0.1.1", false),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081", false),
    ] {
        let is_told = told(&[page.to_owned()], &[printed.to_owned()]);
        assert_eq!(is_told, same, "{page} and {printed}");
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(told(&lines("a\n…\nc"), &lines("a\nb\nb\nc")));
    assert!(!told(&lines("a\n…\nc"), &lines("a\nb\nb")));
    assert!(!told(&lines("a"), &lines("a\nb")));
}
