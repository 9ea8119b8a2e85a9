//! Makes sure that there is a portal to embed: the built one, or a page that says how to build it.

use std::path::Path;

const PLACEHOLDER: &str = "<!doctype html>
<html lang=\"en\">
  <head><meta charset=\"utf-8\"><title>Nimbus</title></head>
  <body>
    <h1>The portal is not part of this build</h1>
    <p>Run <code>make portal</code> and build again. The API works without it: see <a href=\"/api/docs\">/api/docs</a>.</p>
  </body>
</html>
";

fn main() {
    let dist = Path::new("../../web/portal/dist");
    // Debug builds read the files when they are asked for; only release builds have them inside.
    let release = std::env::var_os("PROFILE").is_some_and(|profile| profile == "release");
    println!(
        "cargo::rerun-if-changed={}",
        if release {
            "../../web/portal/dist"
        } else {
            "build.rs"
        }
    );
    let index = dist.join("index.html");
    if index.exists() {
        return;
    }
    if let Err(error) = std::fs::create_dir_all(dist).and_then(|()| std::fs::write(&index, PLACEHOLDER)) {
        println!("cargo::error=cannot write {}: {error}", index.display());
    }
}
