//! The script that prepares a machine, and what it says.

use nimbus_proto::auth::Secret;
use nimbus_proto::gpu::Injection;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::Unprepared;

/// The helper, as it is put into machines.
const GX10: &str = include_str!("../../guest/gx10");
const PREPARE: &str = include_str!("../../guest/prepare.sh");
/// A line that ends the helper's text in the script; the helper has no such line.
const END: &str = "NIMBUS_END_OF_GX10";
/// How the script ends in a machine that has to keep its token and has none.
pub(super) const LOST_TOKEN: i64 = 4;

/// What is told to every machine.
#[derive(Debug)]
pub(super) struct Word {
    api: String,
    /// Empty for none.
    model: String,
}

impl Word {
    pub(super) fn of(portal: Option<&Url>, injection: &Injection) -> Result<Self, Unprepared> {
        let portal = reachable(portal)?;
        let api = format!("{}/api/gpu", portal.as_str().trim_end_matches('/'));
        if !plain(&api) {
            return Err(Unprepared::Unsafe {
                what: "the portal's address",
            });
        }
        // A model is only a help: one with a strange name is not told.
        let model = injection.model.clone().filter(|model| plain(model));
        Ok(Self {
            api,
            model: model.unwrap_or_default(),
        })
    }

    /// All of it in one line, to see whether it has changed.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.api, self.model).trim_end().to_owned()
    }

    /// The script for one machine. It holds the machine's token; without one the machine keeps what it has.
    pub(super) fn script(&self, user: &str, token: Option<&Secret>) -> Result<Zeroizing<String>, Unprepared> {
        let (Self { api, model }, key) = (self, token.map(Secret::reveal).unwrap_or_default());
        if user.is_empty() || !plain(user) {
            return Err(Unprepared::Unsafe {
                what: "the login user",
            });
        }
        if token.is_some_and(|token| token.reveal().is_empty()) || !plain(key) {
            return Err(Unprepared::Unsafe { what: "the token" });
        }
        Ok(Zeroizing::new(format!(
            "user='{user}'\napi='{api}'\nmodel='{model}'\ntoken='{key}'\n{PREPARE}\nput /usr/local/bin/gx10 0755 <<'{END}'\n{GX10}{END}\n"
        )))
    }
}

/// The portal's address, if it is the portal's for others too.
fn reachable(portal: Option<&Url>) -> Result<&Url, Unprepared> {
    let portal = portal.ok_or(Unprepared::NoAddress)?;
    let itself = match portal.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip
                    .to_ipv4_mapped()
                    .is_some_and(|ip| ip.is_loopback() || ip.is_unspecified())
        }
        None => true,
    };
    if itself {
        return Err(Unprepared::Loopback(portal.clone()));
    }
    Ok(portal)
}

/// Whether a text means the same within any quotes of a shell and in an environment file.
fn plain(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "._:/@+-[]%".contains(c))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    const PORTAL: &str = "https://nimbus.example.org:8443";

    fn word(model: Option<&str>) -> Word {
        let injection = Injection {
            model: model.map(str::to_owned),
        };
        Word::of(Some(&PORTAL.parse().unwrap()), &injection).unwrap()
    }

    fn ours(user: &str, model: Option<&str>) -> Result<Zeroizing<String>, Unprepared> {
        word(model).script(user, Some(&Secret::new("nbv_00ff")))
    }

    /// Runs the script as ourselves, below a folder.
    fn run(root: &camino::Utf8Path, script: &str) -> std::process::Output {
        use std::io::Write;
        let mut shell = Command::new("sh")
            .env("NIMBUS_PREPARE_ROOT", root)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        shell.wait_with_output().unwrap()
    }

    fn output(command: &str, argument: &[&str]) -> String {
        let output = Command::new(command).args(argument).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_prepared_machine_has_everything_and_no_secret_for_others() {
        let user = output("id", &["-un"]);
        let home = output("getent", &["passwd", &user])
            .split(':')
            .nth(5)
            .unwrap()
            .to_owned();
        let dir = camino_tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(format!("{root}{home}")).unwrap();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(
            root.join("etc/environment"),
            "PATH=\"/bin\"\nOPENAI_BASE_URL=\"old\"",
        )
        .unwrap();
        // Twice: the second time over the first, with another model.
        for model in ["old", "org/model-7b"] {
            let ended = run(root, &ours(&user, Some(model)).unwrap());
            assert!(ended.status.success(), "{ended:?}");
        }

        let read = |path: &str| std::fs::read_to_string(format!("{root}{path}")).unwrap();
        let mode = |path: &str| {
            let kept = std::fs::metadata(format!("{root}{path}")).unwrap();
            kept.permissions().mode() & 0o777
        };
        let token = format!("{home}/.config/nimbus/gpu-token");
        assert_eq!((read(&token).as_str(), mode(&token)), ("nbv_00ff\n", 0o600));
        assert_eq!(mode(&format!("{home}/.config/nimbus")), 0o700);
        assert_eq!(read("/usr/local/bin/gx10"), GX10);
        assert_eq!(mode("/usr/local/bin/gx10"), 0o755);
        assert_eq!(
            read("/etc/environment"),
            format!(
                "PATH=\"/bin\"\nNIMBUS_GPU_API=\"{PORTAL}/api/gpu\"\nOPENAI_BASE_URL=\"{PORTAL}/api/gpu/v1\"\n\
                 GX10_DEFAULT_MODEL=\"org/model-7b\"\n"
            )
        );
        assert_eq!(
            (mode("/etc/environment"), mode("/etc/profile.d/nimbus-gpu.sh")),
            (0o644, 0o644)
        );
        assert!(!read("/etc/profile.d/nimbus-gpu.sh").contains("nbv_"));

        // Told of another model without a token, it keeps the one that it has.
        let again = word(Some("new")).script(&user, None).unwrap();
        let ended = run(root, &again);
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!((read(&token).as_str(), mode(&token)), ("nbv_00ff\n", 0o600));
        assert!(read("/etc/environment").contains("GX10_DEFAULT_MODEL=\"new\"\n"));
        std::fs::write(format!("{root}{token}"), "").unwrap();
        let ended = run(root, &again);
        assert_eq!(ended.status.code().map(i64::from), Some(LOST_TOKEN), "{ended:?}");
        let ended = run(root, &ours(&user, Some("org/model-7b")).unwrap());
        assert!(ended.status.success(), "{ended:?}");

        // What a login shell has then.
        let shell = Command::new("sh")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", format!("{root}{home}"))
            .arg("-c")
            .arg(format!(
                ". {root}/etc/profile.d/nimbus-gpu.sh; echo \"$OPENAI_BASE_URL $OPENAI_API_KEY $GX10_DEFAULT_MODEL\""
            ))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(shell.stdout).unwrap(),
            format!("{PORTAL}/api/gpu/v1 nbv_00ff org/model-7b\n")
        );
    }

    #[test]
    fn the_script_is_what_proxmox_takes() {
        let script = ours("debian", None).unwrap();
        assert!(script.is_ascii() && script.len() < 60 * 1024, "{}", script.len());
        assert!(!GX10.lines().any(|line| line == END) && GX10.ends_with('\n'));
    }

    #[test]
    fn nothing_reaches_the_shell_but_plain_words() {
        assert!(matches!(
            ours("a'b", None),
            Err(Unprepared::Unsafe {
                what: "the login user"
            })
        ));
        let strange = ours("debian", Some("m'; reboot; '")).unwrap();
        assert!(strange.contains("model=''\n") && !strange.contains("reboot"));
    }

    #[test]
    fn an_address_that_is_the_machine_itself_is_refused() {
        let ask = |text: &str| reachable(Some(&text.parse().unwrap())).is_ok();
        for good in [
            "https://nimbus.example.org",
            "http://10.0.0.7:8080",
            "http://[fd00::7]:8080",
        ] {
            assert!(ask(good), "{good}");
        }
        for bad in [
            "http://localhost:8080",
            "http://a.localhost",
            "http://127.0.0.2:8080",
            "http://0.0.0.0",
            "http://[::1]:1",
            "http://[::]:1",
            "http://[::ffff:127.0.0.1]:1",
        ] {
            assert!(!ask(bad), "{bad}");
        }
        assert!(matches!(reachable(None), Err(Unprepared::NoAddress)));
    }
}
