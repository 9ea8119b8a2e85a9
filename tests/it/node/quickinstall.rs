//! The release in `release/` was signed with minisign 0.11 by a key that was thrown away.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;
use nimbus_tests::process::root;

struct Release {
    dir: Utf8TempDir,
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

    /// Serves the release over HTTP, as often as it is asked for, until the test ends.
    fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let dir = self.dir.path().to_owned();
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
                let head =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                // Who hangs up has what it wanted.
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body));
            }
        });
        address
    }

    #[track_caller]
    fn refused(&self, more: &[&str], word: &str) {
        let (code, said) = self.install(more);
        assert!(code != 0 && said.contains(word), "{said}");
        assert!(!self.path("installed").exists(), "{said}");
    }
}

/// The exit code and what was said.
fn quickinstall(args: &[&str]) -> (i32, String) {
    let output = Command::new(root().join("ops/install/quickinstall.sh"))
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
