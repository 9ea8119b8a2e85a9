//! The image of a host that was booted from one: bootc's, if it is ours.

use nimbus_node::{Commands, is_root};
use serde::Deserialize;

use crate::output;
use crate::problem::{Outcome, Problem};

/// Where images of our operating system come from.
const REPOSITORY: &str = "ghcr.io/nimbus/machine-os";

/// What `bootc status` says, as far as it matters.
#[derive(Debug, Deserialize)]
struct Bootc {
    status: Slots,
}

#[derive(Debug, Deserialize)]
struct Slots {
    booted: Option<Slot>,
    staged: Option<Slot>,
}

#[derive(Debug, Deserialize)]
struct Slot {
    image: Option<Deployed>,
}

#[derive(Debug, Deserialize)]
struct Deployed {
    image: Reference,
    #[serde(default, rename = "imageDigest")]
    digest: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    image: String,
}

impl Slot {
    fn reference(&self) -> Option<&str> {
        Some(self.image.as_ref()?.image.image.as_str())
    }

    fn described(&self) -> Option<String> {
        let image = self.image.as_ref()?;
        Some(match &image.digest {
            Some(digest) if !image.image.image.contains('@') => format!("{}@{digest}", image.image.image),
            _ => image.image.image.clone(),
        })
    }
}

/// What this host runs, and what it will run after the next boot.
struct Images {
    /// What will run.
    reference: String,
    current: String,
}

fn repository(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// The images of this host. Refused on one that was not booted from an image of ours.
fn images(commands: &dyn Commands) -> Outcome<Images> {
    let refused = |why: String| {
        Problem::refused("this host was not booted from an image of Nimbus")
            .why(why)
            .next("upgrade the program itself: nimbus node install --systemd --upgrade")
    };
    let words = ["bootc", "status", "--format", "json"].map(str::to_owned);
    let ran = commands.run(&words).map_err(|error| {
        refused(format!(
            "Linux hosts run sandboxes themselves, and only bootc hosts have an image of their system; bootc: {error}"
        ))
    })?;
    if !ran.ok() {
        return Err(refused(format!("bootc status failed: {}", ran.stderr.trim())));
    }
    let found: Bootc = serde_json::from_str(&ran.stdout)
        .map_err(|error| Problem::failed("could not read what bootc says").because(&error))?;
    let booted = found.status.booted;
    let running = booted
        .as_ref()
        .and_then(Slot::reference)
        .unwrap_or("nothing that bootc knows");
    if repository(running) != REPOSITORY {
        return Err(refused(format!(
            "it runs {running}, and our images come from {REPOSITORY}"
        )));
    }
    let next = found
        .status
        .staged
        .filter(|staged| staged.image.is_some())
        .or(booted);
    let next = next.as_ref();
    Ok(Images {
        reference: next.and_then(Slot::reference).unwrap_or_default().to_owned(),
        current: next.and_then(Slot::described).unwrap_or_default(),
    })
}

fn root() -> Outcome {
    if is_root() {
        return Ok(());
    }
    Err(Problem::refused("the system's image belongs to root").next("run the same command with sudo"))
}

fn stage(commands: &dyn Commands, image: &str, restart: bool) -> Outcome<&'static str> {
    let failed =
        |error: nimbus_node::NodeError| Problem::failed(format!("could not stage {image}")).because(&error);
    commands
        .must(&["bootc", "switch", image].map(str::to_owned))
        .map_err(failed)?;
    if restart {
        commands
            .must(&["systemctl", "reboot"].map(str::to_owned))
            .map_err(failed)?;
        return Ok("Hint: the host restarts into it now.");
    }
    Ok("Hint: it takes effect at the next boot; --restart boots it now.")
}

/// Stages the image of this release.
pub(super) fn upgrade(commands: &dyn Commands, dry_run: bool, restart: bool) -> Outcome<String> {
    let images = images(commands)?;
    let target = format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION"));
    let (word, hint) = if images.reference == target {
        ("Already supported.", "Hint: nothing has to be done.")
    } else if dry_run {
        (
            "Update available.",
            "Hint: run it again without --dry-run to stage it.",
        )
    } else {
        root()?;
        let hint = stage(commands, &target, restart)?;
        (
            if restart {
                "Upgraded and restarted."
            } else {
                "Upgraded."
            },
            hint,
        )
    };
    Ok(format!(
        "{word}\nCurrent image: {}\nTarget image: {target}\n{hint}",
        images.current
    ))
}

/// Stages an image that somebody names.
pub(super) fn apply(commands: &dyn Commands, image: &str, restart: bool) -> Outcome<String> {
    let reference = image.strip_prefix("docker://").unwrap_or(image);
    let refused = |why: &str| {
        Problem::refused(format!("{image} cannot be booted"))
            .why(why)
            .next(format!(
                "name an image of a registry: {REPOSITORY}:{}",
                env!("CARGO_PKG_VERSION")
            ))
    };
    if reference.contains("://") {
        return Err(refused("only images of registries are taken, and this is a URL"));
    }
    let disk = [".raw", ".qcow2", ".img", ".iso", ".xz", ".zst"]
        .iter()
        .any(|end| reference.ends_with(end));
    if disk || reference.starts_with(['/', '.', '~', '-']) {
        return Err(refused("only images of registries are taken, and this is a file"));
    }
    let clean = |sign: char| sign.is_ascii_alphanumeric() || "._-/:@".contains(sign);
    if reference.is_empty() || !reference.chars().all(clean) || !reference.contains('/') {
        return Err(refused("it is no whole reference of an image"));
    }
    let images = images(commands)?;
    root()?;
    if !reference.contains("@sha256:") {
        output::say(format_args!(
            "Warning: {reference} is a tag, which can be moved: add the digest."
        ));
    }
    let hint = stage(commands, reference, restart)?;
    Ok(format!(
        "Applied.\nImage: {reference}\nPrevious image: {}\n{hint}",
        images.current
    ))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;

    use nimbus_node::Ran;

    use super::*;

    /// A host with bootc, or without.
    struct Script {
        status: Option<String>,
        ran: RefCell<Vec<String>>,
    }

    impl Script {
        fn booted(image: &str) -> Self {
            let text = serde_json::json!({"status": {"booted": {"image": {"image": {"image": image, "transport": "registry"},
                "imageDigest": "sha256:12"}}, "staged": null}});
            Self {
                status: Some(text.to_string()),
                ran: RefCell::default(),
            }
        }
    }

    impl Commands for Script {
        fn run(&self, words: &[String]) -> io::Result<Ran> {
            let line = words.join(" ");
            self.ran.borrow_mut().push(line.clone());
            let stdout = match (&self.status, line.starts_with("bootc status")) {
                (None, _) => return Err(io::ErrorKind::NotFound.into()),
                (Some(status), true) => status.clone(),
                (Some(_), false) => String::new(),
            };
            Ok(Ran {
                code: Some(0),
                stdout,
                stderr: String::new(),
            })
        }

        fn pass(&self, words: &[String]) -> io::Result<i32> {
            self.run(words).map(|_| 0)
        }
    }

    #[test]
    fn hosts_that_are_not_ours_are_left_alone() {
        let none = Script {
            status: None,
            ran: RefCell::default(),
        };
        let told = upgrade(&none, true, false).unwrap_err().to_string();
        assert!(told.contains("run sandboxes themselves"), "{told}");
        let other = Script::booted("quay.io/fedora/fedora-bootc:41");
        assert!(
            upgrade(&other, false, false)
                .unwrap_err()
                .to_string()
                .contains("quay.io")
        );
        assert_eq!(other.ran.borrow().len(), 1, "nothing but the question");
    }

    #[test]
    fn an_upgrade_is_shown_before_it_is_staged() {
        let old = Script::booted("ghcr.io/nimbus/machine-os:0.0.1");
        let text = upgrade(&old, true, false).unwrap();
        let target = format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            text,
            format!(
                "Update available.\nCurrent image: ghcr.io/nimbus/machine-os:0.0.1@sha256:12\nTarget image: {target}\n\
                 Hint: run it again without --dry-run to stage it."
            )
        );
        assert_eq!(old.ran.borrow().len(), 1);
        let same = Script::booted(&target);
        assert!(
            upgrade(&same, false, true)
                .unwrap()
                .starts_with("Already supported.")
        );
        if is_root() {
            upgrade(&old, false, true).unwrap();
            let ran = old.ran.borrow();
            assert_eq!(
                ran[2..],
                [format!("bootc switch {target}"), "systemctl reboot".to_owned()]
            );
        }
    }

    #[test]
    fn only_images_of_registries_are_applied() {
        let host = Script::booted("ghcr.io/nimbus/machine-os:0.0.1");
        for wrong in [
            "https://example.org/os.raw",
            "/tmp/os.qcow2",
            "./os",
            "os.iso",
            "--help",
            "a b/c",
            "",
            "docker://",
        ] {
            assert!(apply(&host, wrong, false).is_err(), "{wrong}");
        }
        assert!(host.ran.borrow().is_empty(), "refused before the host is asked");
        if is_root() {
            let text = apply(&host, "docker://example.org/os@sha256:12", false).unwrap();
            assert!(text.contains(
                "Image: example.org/os@sha256:12\nPrevious image: ghcr.io/nimbus/machine-os:0.0.1"
            ));
        }
    }
}
