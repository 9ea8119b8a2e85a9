//! What a GPU box is installed from: scripts, and the worker for its processor.
//!
//! The script that an administrator pastes into `bash` carries the SHA-256 of everything it fetches
//! afterwards, so that one trusted download (over TLS, with a token that is used once) vouches for all.

use std::borrow::Cow;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

const INSTALL: &str = include_str!("../install/install.sh.in");

const SHELL: &str = "text/x-shellscript; charset=utf-8";
const PYTHON: &str = "text/x-python; charset=utf-8";
const PROGRAM: &str = "application/octet-stream";

/// Workers by processor, compressed; empty where there was none at build time.
#[cfg(feature = "embed")]
const WORKERS: [(&str, &[u8]); 2] = [
    (
        "gx10-worker-x86_64",
        include_bytes!(concat!(env!("OUT_DIR"), "/x86_64.zst")),
    ),
    (
        "gx10-worker-aarch64",
        include_bytes!(concat!(env!("OUT_DIR"), "/aarch64.zst")),
    ),
];

/// A file that a box may fetch.
#[derive(Clone, PartialEq, Eq)]
pub struct Asset {
    /// The last part of its path.
    pub name: &'static str,
    /// What it is.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: Cow<'static, [u8]>,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

impl std::fmt::Debug for Asset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes, {})", self.name, self.bytes.len(), self.sha256)
    }
}

/// Why there is no script for a box.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The address cannot stand in a script.
    #[error("{0:?} is not an http or https address that a box can be given")]
    Address(String),
    /// The token is not one.
    #[error("a pairing token has letters and digits only")]
    Token,
}

/// Everything there is, in the order of [`names`].
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let mut assets = vec![
        text(
            "install-worker.sh",
            SHELL,
            include_str!("../install/install-worker.sh"),
        ),
        text(
            "install-inference.sh",
            SHELL,
            include_str!("../install/install-inference.sh"),
        ),
        text("uninstall.sh", SHELL, include_str!("../install/uninstall.sh")),
        text("demo-mnist.py", PYTHON, include_str!("../install/demo-mnist.py")),
    ];
    assets.extend(workers());
    assets
});

/// The file of this name, if there is one: the scripts, and the workers this build carries.
/// `gx10-worker` is the one for arm64, the processor of the boxes it is named after, else any.
#[must_use]
pub fn asset(name: &str) -> Option<&'static Asset> {
    let exact = |name: &str| ASSETS.iter().find(|asset| asset.name == name);
    match name {
        "gx10-worker" => exact("gx10-worker-aarch64").or_else(|| exact("gx10-worker-x86_64")),
        _ => exact(name),
    }
}

/// Names of all there is.
pub fn names() -> impl Iterator<Item = &'static str> {
    ASSETS.iter().map(|asset| asset.name)
}

/// The script that pairs a box with the Nimbus at `portal` and installs everything on it.
///
/// # Errors
/// An address or token with characters that have no place in one: they would be run as root.
pub fn install_script(portal: &str, token: &str) -> Result<String, BundleError> {
    let portal = portal.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
    let rest = portal
        .strip_prefix("https://")
        .or_else(|| portal.strip_prefix("http://"));
    if !rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain)) {
        return Err(BundleError::Address(portal.to_owned()));
    }
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(BundleError::Token);
    }
    let sums: Vec<String> = ASSETS
        .iter()
        .map(|asset| format!("{} {}", asset.sha256, asset.name))
        .collect();
    Ok(INSTALL
        .replace("@PORTAL@", &format!("'{portal}'"))
        .replace("@TOKEN@", &format!("'{token}'"))
        .replace("@SUMS@", &sums.join("\n")))
}

fn text(name: &'static str, content_type: &'static str, text: &'static str) -> Asset {
    made(name, content_type, Cow::Borrowed(text.as_bytes()))
}

fn made(name: &'static str, content_type: &'static str, bytes: Cow<'static, [u8]>) -> Asset {
    let sha256 = hex::encode(Sha256::digest(&bytes));
    Asset {
        name,
        content_type,
        bytes,
        sha256,
    }
}

#[cfg(feature = "embed")]
fn workers() -> Vec<Asset> {
    let unpack = |(name, packed): (&'static str, &'static [u8])| {
        let bytes = zstd::stream::decode_all(packed)
            .ok()
            .filter(|all| !all.is_empty())?;
        Some(made(name, PROGRAM, Cow::Owned(bytes)))
    };
    WORKERS.into_iter().filter_map(unpack).collect()
}

/// Without the feature, those that `ops/dev/gx10.sh` left where `NIMBUS_GX10_WORKERS` says.
#[cfg(not(feature = "embed"))]
fn workers() -> Vec<Asset> {
    let Some(folder) = std::env::var_os("NIMBUS_GX10_WORKERS").map(std::path::PathBuf::from) else {
        return Vec::new();
    };
    let read = |name: &'static str| {
        Some(made(
            name,
            PROGRAM,
            Cow::Owned(std::fs::read(folder.join(name)).ok()?),
        ))
    };
    ["gx10-worker-x86_64", "gx10-worker-aarch64"]
        .into_iter()
        .filter_map(read)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_names_the_digest_of_everything_it_may_fetch() {
        let script = install_script("https://nimbus.example.org/", "abc123").unwrap();
        assert!(script.contains("portal='https://nimbus.example.org'\ntoken='abc123'\n"));
        for name in names() {
            let asset = asset(name).unwrap();
            assert!(script.contains(&format!("{} {name}", asset.sha256)), "{name}");
        }
        assert!(
            !["@PORTAL@", "@TOKEN@", "@SUMS@"]
                .iter()
                .any(|p| script.contains(p))
        );
    }

    #[test]
    fn nothing_gets_into_the_script_that_a_shell_would_run() {
        for bad in [
            "nimbus",
            "https://",
            "https://a'b",
            "https://a b",
            "https://a;reboot",
            "https://$(x)",
            "ftp://a",
        ] {
            assert!(
                matches!(install_script(bad, "abc"), Err(BundleError::Address(_))),
                "{bad}"
            );
        }
        for bad in ["", "a'b", "a b", "$(x)"] {
            assert_eq!(
                install_script("http://10.0.0.1:8080", bad),
                Err(BundleError::Token),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_script_that_was_cut_off_runs_nothing() {
        let all = [INSTALL.as_bytes().to_vec()].into_iter().chain(
            ASSETS
                .iter()
                .filter(|a| a.content_type == SHELL)
                .map(|a| a.bytes.to_vec()),
        );
        for bytes in all {
            let script = String::from_utf8(bytes).unwrap();
            assert!(script.ends_with("\nmain \"$@\"\n"), "{script}");
        }
    }

    #[test]
    #[cfg(feature = "embed")]
    fn a_worker_that_was_built_is_handed_out_as_it_was() {
        for (name, packed) in WORKERS {
            let found = asset(name);
            assert_eq!(found.is_some(), !packed.is_empty(), "{name}");
            assert!(
                found.is_none_or(|found| found.bytes.starts_with(b"\x7fELF")),
                "{name}"
            );
        }
        assert_eq!(
            asset("gx10-worker").is_some(),
            WORKERS.iter().any(|(_, packed)| !packed.is_empty())
        );
    }

    #[test]
    fn what_nobody_made_is_not_there() {
        assert!(asset("passwd").is_none() && asset("../install.sh").is_none());
        assert!(asset("uninstall.sh").is_some());
    }
}
