//! The release in `release/` was signed with minisign 0.11 by a key that was thrown away.

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
        let output = Command::new(root().join("ops/install/quickinstall.sh"))
            .args(["--from", self.dir.path().as_str(), "--key", &self.key()])
            .args(["--to", self.path("installed").as_str()])
            .args(more)
            .env_remove("NIMBUS_RELEASES")
            .env_remove("NIMBUS_RELEASE_KEY")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    }

    #[track_caller]
    fn refused(&self, more: &[&str], word: &str) {
        let (code, said) = self.install(more);
        assert!(code != 0 && said.contains(word), "{said}");
        assert!(!self.path("installed").exists(), "{said}");
    }
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
