//! Makes sure that there is a portal to embed, and makes the gRPC server's types from `proto/nimbus/v1`
//! without a compiler that would have to be installed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

const PLACEHOLDER: &str = "<!doctype html>
<html lang=\"en\">
  <head><meta charset=\"utf-8\"><title>Nimbus</title></head>
  <body>
    <h1>The portal is not part of this build</h1>
    <p>Run <code>make portal</code> and build again. The API works without it: see <a href=\"/api/docs\">/api/docs</a>.</p>
  </body>
</html>
";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    portal();
    grpc()
}

/// The built portal, or a page that says how to build it.
fn portal() {
    let dist = Path::new("../../web/portal/dist");
    // Debug builds read the files when they are asked for; only release builds have them inside.
    if env::var_os("PROFILE").is_some_and(|profile| profile == "release") {
        println!("cargo::rerun-if-changed=../../web/portal/dist");
    }
    let index = dist.join("index.html");
    if index.exists() {
        return;
    }
    if let Err(error) = fs::create_dir_all(dist).and_then(|()| fs::write(&index, PLACEHOLDER)) {
        println!("cargo::error=cannot write {}: {error}", index.display());
    }
}

fn grpc() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let files = ["common", "sandboxes", "services", "sessions"]
        .map(|name| root.join(format!("nimbus/v1/{name}.proto")));
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(&files)?;
    let descriptors = compiler.file_descriptor_set();
    // For reflection: the names of everything.
    let out = PathBuf::from(env::var("OUT_DIR")?).join("nimbus.v1.bin");
    fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(descriptors)?;
    Ok(())
}
