//! The release in `release/` was signed with minisign 0.11 by a key that was thrown away; others are made by
//! `ops/release/release.py`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;
use nimbus_tests::process::{binary, root};

struct Release {
    dir: Utf8TempDir,
}

/// Where releases are made, with a key of its own.
struct Makers {
    dir: Utf8TempDir,
}

impl Makers {
    fn new() -> Self {
        let dir = camino_tempfile::tempdir().unwrap();
        let new = Self { dir };
        new.key("release");
        new
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a key, and says the public half.
    fn key(&self, name: &str) -> String {
        let (secret, public) = (
            self.path(&format!("{name}.key")),
            self.path(&format!("{name}.pub")),
        );
        let made = Command::new("minisign")
            .args(["-G", "-W", "-s", secret.as_str(), "-p", public.as_str()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let text = std::fs::read_to_string(public).unwrap();
        text.lines().last().unwrap().to_owned()
    }

    /// A file that looks like a program of this processor, or of the other one.
    fn program(&self, name: &str, machine: u8) -> Utf8PathBuf {
        let mut head = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\0\0";
        head[18] = machine;
        let path = self.path(name);
        std::fs::write(&path, head).unwrap();
        path
    }

    /// Whether it was made, and what was said.
    fn release(&self, more: &[&str]) -> (bool, String) {
        let output = Command::new(root().join("ops/release/release.py"))
            .args(["--key", self.path("release.key").as_str()])
            .args(["--out", self.path("release").as_str()])
            .args(more)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    #[track_caller]
    fn refused(&self, more: &[&str], word: &str) {
        let (made, said) = self.release(more);
        assert!(
            !made && said.contains(word) && said.contains("no release was made"),
            "{said}"
        );
        let left: Vec<_> = self.dir.path().read_dir_utf8().unwrap().collect();
        let half = |entry: &std::io::Result<camino::Utf8DirEntry>| {
            let name = entry.as_ref().unwrap().file_name();
            name == "release" || name.starts_with('.')
        };
        assert!(!left.iter().any(half), "{left:?}");
    }
}

impl Release {
    fn copy() -> Self {
        let dir = camino_tempfile::tempdir().unwrap();
        for entry in root().join("tests/it/node/release").read_dir_utf8().unwrap() {
            let path = entry.unwrap().path().to_owned();
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        self.dir.path().join(name)
    }

    fn key(&self) -> String {
        let text = std::fs::read_to_string(self.path("release.pub")).unwrap();
        text.lines().last().unwrap().to_owned()
    }

    fn change(&self, name: &str, change: impl Fn(String) -> String) {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change(text)).unwrap();
    }

    /// The exit code and what was said.
    fn install(&self, more: &[&str]) -> (i32, String) {
        self.install_from(self.dir.path().as_str(), more)
    }

    fn install_from(&self, from: &str, more: &[&str]) -> (i32, String) {
        let mut args = vec!["--from", from, "--key"];
        let (key, to) = (self.key(), self.path("installed"));
        args.extend([&key, "--to", to.as_str()]);
        args.extend(more);
        quickinstall(&args)
    }

    fn serve(&self) -> SocketAddr {
        serve(self.dir.path())
    }

    #[track_caller]
    fn refused(&self, more: &[&str], word: &str) {
        let (code, said) = self.install(more);
        assert!(code != 0 && said.contains(word), "{said}");
        assert!(!self.path("installed").exists(), "{said}");
    }
}

/// Serves a folder over HTTP, as often as it is asked for, until the test ends.
fn serve(dir: &Utf8Path) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let asked = lines.next().unwrap().unwrap();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let name = asked.split(['/', ' ']).nth(2).unwrap().to_owned();
            let (status, body) = match std::fs::read(dir.join(name)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            // Who hangs up has what it wanted.
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    address
}

/// The exit code and what was said.
fn quickinstall(args: &[&str]) -> (i32, String) {
    run_installer(&root().join("ops/install/quickinstall.sh"), args)
}

fn run_installer(script: &Utf8Path, args: &[&str]) -> (i32, String) {
    let output = Command::new(script)
        .args(args)
        .env_remove("NIMBUS_RELEASES")
        .env_remove("NIMBUS_RELEASE_KEY")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

fn runs(program: &Utf8Path) -> String {
    String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap()
}

#[test]
fn a_signed_release_is_installed() {
    let release = Release::copy();
    let (code, said) = release.install(&["--version", "1.2.3"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(runs(&release.path("installed")), "nimbus 1.2.3\n");
}

#[test]
fn a_signed_release_is_downloaded() {
    let release = Release::copy();
    let from = format!("http://{}", release.serve());
    let (code, said) = release.install_from(&from, &["--version", "1.2.3"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(runs(&release.path("installed")), "nimbus 1.2.3\n");

    // What is checked is what arrived.
    std::fs::remove_file(release.path("installed")).unwrap();
    for program in ["nimbus-linux-amd64", "nimbus-linux-arm64"] {
        release.change(program, |text| text + "\n");
    }
    let (code, said) = release.install_from(&from, &[]);
    assert!(
        code == 1 && said.contains("was signed") && said.contains("nothing was installed"),
        "{said}"
    );
    std::fs::remove_file(release.path("SHA256SUMS")).unwrap();
    let (code, said) = release.install_from(&from, &[]);
    assert!(code == 1 && said.contains("could not download"), "{said}");
    let (code, said) = release.install_from("http://releases.example.org", &[]);
    assert!(code == 1 && said.contains("is not https"), "{said}");
    assert!(!release.path("installed").exists());
}

#[test]
fn a_copy_that_knows_no_releases_says_so() {
    for (args, word) in [
        (&[][..], "knows no place of releases"),
        (&["--from", "https://releases.example.org"], "knows no key"),
    ] {
        let (code, said) = quickinstall(args);
        assert!(code == 2 && said.contains(word), "{said}");
    }
}

#[test]
fn every_other_release_is_refused() {
    let changed = |name: &str, change: fn(String) -> String, word: &str| {
        let release = Release::copy();
        release.change(name, change);
        release.refused(&[], word);
    };
    for program in ["nimbus-linux-amd64", "nimbus-linux-arm64"] {
        let release = Release::copy();
        release.change(program, |text| text + "\n");
        // Only one of them is for this machine.
        let (code, said) = release.install(&["--check-only"]);
        assert!(code == 0 || said.contains("was signed"), "{said}");
        assert!(!release.path("installed").exists());
    }
    let release = Release::copy();
    for program in ["nimbus-linux-amd64", "nimbus-linux-arm64"] {
        release.change(program, |text| text + "\n");
    }
    release.refused(&[], "was signed");
    changed(
        "SHA256SUMS",
        |text| text + "\n",
        "the signature of SHA256SUMS is wrong",
    );
    changed(
        "SHA256SUMS.minisig",
        |text| text.replace("version:1.2.3", "version:1.2.4"),
        "the signature of the trusted comment is wrong",
    );
    changed(
        "SHA256SUMS.minisig",
        |_| "nonsense\n".to_owned(),
        "no minisign signature",
    );
    let other = "untrusted comment: another key\nRWTYl7VeZZtj9JynF+s7z9C19Cr6pNutFSjytP+wU2LMGaaavv3x3TNu\n";
    let release = Release::copy();
    std::fs::write(release.path("release.pub"), other).unwrap();
    release.refused(&[], "another key");
    let release = Release::copy();
    release.refused(&["--version", "1.2.4"], "not for version 1.2.4");
    std::fs::remove_file(release.path("SHA256SUMS.minisig")).unwrap();
    release.refused(&[], "there is no");
}

#[test]
fn a_release_that_was_made_is_installed() {
    let makers = Makers::new();
    let (release, installed) = (makers.path("release"), makers.path("installed"));
    let (made, said) = makers.release(&["--binary", binary().as_str()]);
    assert!(made, "{said}");
    let public = std::fs::read_to_string(makers.path("release.pub")).unwrap();
    let public = public.lines().last().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let from = format!("http://{}", serve(&release));
    let from_there = ["--from", from.as_str(), "--to", installed.as_str()];
    let install = |more: &[&str]| quickinstall(&[&from_there, more].concat());

    let (code, said) = install(&["--key", public, "--version", version]);
    assert_eq!(code, 0, "{said}");
    let told = Command::new(&installed).arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&told.stdout),
        format!("nimbus {version}\n")
    );
    // Its own copy of the installer knows the key.
    let (code, said) = run_installer(&release.join("quickinstall.sh"), &from_there);
    assert_eq!(code, 0, "{said}");
    std::fs::remove_file(&installed).unwrap();

    // It is what it was, and stays.
    let sums = std::fs::read_to_string(release.join("SHA256SUMS")).unwrap();
    let (made, said) = makers.release(&["--binary", binary().as_str()]);
    assert!(!made && said.contains("is there already"), "{said}");
    assert_eq!(std::fs::read_to_string(release.join("SHA256SUMS")).unwrap(), sums);

    // The bill of materials is that of this program.
    let program = sums
        .lines()
        .find(|line| !line.contains(".spdx.") && line.contains("nimbus-linux-"));
    let (sum, program) = program.unwrap().split_once("  ").unwrap();
    let bill = std::fs::read(release.join(format!("{program}.spdx.json"))).unwrap();
    let bill: serde_json::Value = serde_json::from_slice(&bill).unwrap();
    assert_eq!(bill["packages"][0]["checksums"][0]["checksumValue"], sum);
    let names = |name: &str| {
        let packages = bill["packages"].as_array().unwrap();
        packages.iter().any(|package| package["name"] == name)
    };
    for name in [
        "tokio",
        "nats-server",
        "nimbus-guest",
        "nimbus-gx10-worker",
        "react",
    ] {
        assert!(names(name), "{name}");
    }
    assert!(!names("libc6") && !names("proptest"));

    // Another key, another byte, no signature.
    let (code, said) = install(&["--key", &makers.key("another")]);
    assert!(code == 1 && said.contains("another key"), "{said}");
    let mut file = std::fs::File::options();
    let file = file.read(true).write(true).open(release.join(program)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4096).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 4096).unwrap();
    let (code, said) = install(&["--key", public]);
    assert!(code == 1 && said.contains("was signed"), "{said}");
    file.write_all_at(&byte, 4096).unwrap();
    std::fs::remove_file(release.join("SHA256SUMS.minisig")).unwrap();
    let (code, said) = install(&["--key", public]);
    assert!(code == 1 && said.contains("could not download"), "{said}");
    assert!(!installed.exists());
}

#[test]
fn what_cannot_be_released_leaves_nothing() {
    let makers = Makers::new();
    let (here, other) = match std::env::consts::ARCH {
        "aarch64" => (183, 62),
        _ => (62, 183),
    };
    let foreign = makers.program("foreign", other);
    makers.refused(&["--binary", "/nowhere"], "cannot be read");
    makers.refused(
        &["--binary", makers.path("release.pub").as_str()],
        "is no program of Linux",
    );
    makers.refused(
        &["--binary", makers.program("mips", 8).as_str()],
        "for another processor",
    );
    makers.refused(
        &[
            "--binary",
            foreign.as_str(),
            "--binary",
            makers.program("twice", other).as_str(),
        ],
        "are both for",
    );
    makers.refused(
        &["--binary", foreign.as_str(), "--all"],
        "there is no program for",
    );
    makers.refused(
        &[
            "--binary",
            foreign.as_str(),
            "--url",
            "http://releases.example.org",
        ],
        "is no https address",
    );
    // Nothing that runs, and another program.
    let broken = makers.program("broken", here);
    std::fs::set_permissions(&broken, PermissionsExt::from_mode(0o755)).unwrap();
    makers.refused(&["--binary", broken.as_str()], "does not start");
    makers.refused(&["--binary", "/bin/true"], "of itself");

    makers.key("another");
    let another = makers.path("another.pub");
    makers.refused(
        &["--binary", foreign.as_str(), "--public-key", another.as_str()],
        "is the public key that of the secret one?",
    );
    makers.refused(
        &["--binary", foreign.as_str(), "--public-key", foreign.as_str()],
        "is no public key",
    );
    let secret = makers.path("release.key");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).unwrap();
    makers.refused(&["--binary", foreign.as_str()], "others can read");
    std::fs::remove_file(&secret).unwrap();
    makers.refused(&["--binary", foreign.as_str()], "there is no key at");
}

#[test]
fn what_a_machine_lacks_for_another_processor_is_named() {
    let other = match std::env::consts::ARCH {
        "aarch64" => "x86_64",
        _ => "aarch64",
    };
    // Tools of a machine that has neither the Rust target nor the compiler, and nothing else is asked for.
    let dir = camino_tempfile::tempdir().unwrap();
    let fake = dir.path().join("rustc");
    std::fs::write(&fake, format!("#!/bin/sh\necho {}\n", dir.path())).unwrap();
    std::fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).unwrap();
    for tool in ["bash", "sh", "dirname", "mkdir", "uname"] {
        let found = ["/usr/bin", "/bin"].map(|folder| Utf8Path::new(folder).join(tool));
        let found = found.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, dir.path().join(tool)).unwrap();
    }
    let told = Command::new(root().join("ops/dev/gx10.sh"))
        .args(["--missing", other])
        .env("PATH", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(told.stdout).unwrap();
    assert!(told.status.success(), "{said}");
    assert!(
        said.contains(&format!("rustup target add {other}-unknown-linux-gnu")),
        "{said}"
    );
    assert!(said.contains("apt-get install gcc-"), "{said}");
}
