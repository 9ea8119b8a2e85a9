//! With the feature `embed`: puts the compressed static workers into the crate, so that a box is
//! installed from the Nimbus it is paired with.
//!
//! They are taken from `target/gx10/gx10-worker-<processor>`, where `ops/dev/gx10.sh` puts them; a folder
//! in `NIMBUS_GX10_WORKERS` is looked into instead. Those that are missing are left out: the crate still
//! builds, and boxes of that kind cannot be paired.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The slow end of zstd, paid once per version.
const LEVEL: i32 = 19;

/// Processors that workers are built for, as `uname -m` names them.
const PROCESSORS: [&str; 2] = ["x86_64", "aarch64"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=NIMBUS_GX10_WORKERS");
    if env::var_os("CARGO_FEATURE_EMBED").is_none() {
        return Ok(());
    }

    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Not each worker by itself: a file that is missing would be news at every build.
    let (folder, news) = match env::var_os("NIMBUS_GX10_WORKERS") {
        Some(folder) => (PathBuf::from(&folder), PathBuf::from(folder)),
        None => {
            let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
            let root = here
                .ancestors()
                .nth(2)
                .ok_or("the crate does not lie two folders below the workspace")?;
            let folder = root.join("target/gx10");
            let news = folder.join("changed");
            (folder, news)
        }
    };
    println!("cargo::rerun-if-changed={}", news.display());
    let mut found = 0;
    for processor in PROCESSORS {
        let worker = folder.join(format!("gx10-worker-{processor}"));
        found += usize::from(compress(&worker, &out.join(format!("{processor}.zst")))?);
    }
    if found == 0 {
        println!(
            "cargo::warning={} has no gx10-worker: building without one, so no GPU box can be paired",
            folder.display()
        );
    }
    Ok(())
}

/// Writes the compressed file, or an empty one; whether there was something.
fn compress(from: &Path, to: &Path) -> io::Result<bool> {
    if !from.is_file() {
        fs::write(to, [])?;
        return Ok(false);
    }
    fs::write(to, zstd::bulk::compress(&fs::read(from)?, LEVEL)?)?;
    Ok(true)
}
