//! Puts a compressed nats-server into the crate, so that Nimbus needs nothing installed beside it.
//!
//! It is taken from `NIMBUS_NATS_SERVER`, else from `target/nats/nats-server`, where `make` puts the
//! pinned release. Without either the crate still builds; starting the embedded server then needs
//! `NIMBUS_NATS_SERVER` at run time.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// 4.8 MB instead of the 18.8 MB of the release; the slow end of zstd, paid once per version.
const LEVEL: i32 = 19;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=NIMBUS_NATS_SERVER");

    let out = PathBuf::from(env::var("OUT_DIR")?).join("nats-server.zst");
    let server = match env::var_os("NIMBUS_NATS_SERVER") {
        Some(path) => PathBuf::from(path),
        None => {
            let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
            let root = here
                .ancestors()
                .nth(2)
                .ok_or("the crate does not lie two folders below the workspace")?;
            root.join("target/nats/nats-server")
        }
    };
    println!("cargo::rerun-if-changed={}", server.display());
    if server.is_file() {
        compress(&server, &out)?;
    } else {
        println!(
            "cargo::warning={} does not exist: building without an embedded nats-server",
            server.display()
        );
        fs::write(&out, [])?;
    }
    Ok(())
}

fn compress(from: &Path, to: &Path) -> std::io::Result<()> {
    let plain = fs::read(from)?;
    fs::write(to, zstd::bulk::compress(&plain, LEVEL)?)
}
