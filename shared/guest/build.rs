//! With the feature `embed`: puts the compressed init into the crate, so that the sandbox-agent needs
//! nothing installed beside it.
//!
//! It is taken from `NIMBUS_GUEST_INIT`, else from `target/guest/nimbus-guest`, where
//! `ops/dev/guest.sh` puts it. Without either the crate still builds; sandboxes then need
//! `NIMBUS_GUEST_INIT` at run time.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The slow end of zstd, paid once per version.
const LEVEL: i32 = 19;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=NIMBUS_GUEST_INIT");
    if env::var_os("CARGO_FEATURE_EMBED").is_none() {
        return Ok(());
    }

    let out = PathBuf::from(env::var("OUT_DIR")?).join("nimbus-guest.zst");
    let init = match env::var_os("NIMBUS_GUEST_INIT") {
        Some(path) => PathBuf::from(path),
        None => {
            let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
            let root = here
                .ancestors()
                .nth(2)
                .ok_or("the crate does not lie two folders below the workspace")?;
            root.join("target/guest/nimbus-guest")
        }
    };
    println!("cargo::rerun-if-changed={}", init.display());
    if init.is_file() {
        compress(&init, &out)?;
    } else {
        println!(
            "cargo::warning={} does not exist: building without an embedded init",
            init.display()
        );
        fs::write(&out, [])?;
    }
    Ok(())
}

fn compress(from: &Path, to: &Path) -> std::io::Result<()> {
    let plain = fs::read(from)?;
    fs::write(to, zstd::bulk::compress(&plain, LEVEL)?)
}
