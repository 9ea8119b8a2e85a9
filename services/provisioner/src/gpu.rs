//! What a machine is told about GPUs when a box is paired: where they are, a token of its own, and the
//! helper `gx10`.
//!
//! ```text
//! gpu ── is a box paired? ──▶ auth ── token of this machine ──▶ guest agent ── script on stdin ──▶ files
//! ```
//! A machine without GPUs is still a machine: whatever fails here is a warning of its operation.

use nimbus_bus::Key;
use nimbus_errors::{Code, Fault, chain};
use nimbus_model::MachineId;
use nimbus_proto::auth::{CreateMachineToken, MachineTokenRequest, RevokeMachineToken, Secret};
use nimbus_proto::gpu::{GetInjection, Injection};
use nimbus_proto::machine::Machine;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::error::MachineError;
use crate::hypervisor::{ScriptEnd, Spot, Vm};
use crate::service::Provisioner;

/// The helper, as it is put into machines.
const GX10: &str = include_str!("../guest/gx10");
const PREPARE: &str = include_str!("../guest/prepare.sh");
/// A line that ends the helper's text in the script; the helper has no such line.
const END: &str = "NIMBUS_END_OF_GX10";
/// How much of what a script said is told.
const SAID_MOST: usize = 300;

/// Why a machine was not prepared.
#[derive(Debug, thiserror::Error)]
enum Unprepared {
    #[error("the guest did not report in time")]
    NotReady,
    #[error("this server was not told where machines reach it (--public-url)")]
    NoAddress,
    #[error("{0} is the machine itself when a machine asks for it (--public-url)")]
    Loopback(Url),
    #[error("{what} cannot be told to a shell")]
    Unsafe { what: &'static str },
    #[error("no token could be made")]
    Token(#[source] Fault),
    #[error(transparent)]
    Guest(MachineError),
    #[error("the script in the guest ended with {}: {said}", code.map_or_else(|| "a signal".to_owned(), |code| code.to_string()))]
    Script { code: Option<i64>, said: String },
    #[error("it took longer than {seconds} s")]
    Late { seconds: u64 },
}

impl Provisioner {
    /// Prepares a machine for GPUs, if there are any. `Some` is a warning; then it has no token either.
    pub(crate) async fn prepare_gpu(
        &self,
        vm: &Vm<'_>,
        spot: &Spot,
        machine: &Machine,
        unready: bool,
    ) -> Option<String> {
        let inner = self.inner();
        let injection = match inner.bus.call::<GetInjection>(&()).await {
            Ok(injection) => injection?,
            // An installation may run without the scheduler of GPUs.
            Err(fault) if fault.is(Code::ServiceUnavailable) => {
                tracing::debug!("nobody answers for GPUs, machines are made without");
                return None;
            }
            Err(fault) => return Some(warning(&fault.message)),
        };
        let limit = inner.config.gpu_inject_timeout;
        let telling = self.tell_of_gpu(vm, spot, machine, &injection, unready);
        let told = tokio::time::timeout(limit, telling).await.unwrap_or_else(|_| {
            Err(Unprepared::Late {
                seconds: limit.as_secs(),
            })
        });
        let Err(error) = told else {
            tracing::info!(machine.id = %machine.id, "prepared {} for GPUs", machine.hostname);
            return None;
        };
        let why = chain(&error);
        tracing::warn!(machine.id = %machine.id, "could not prepare {} for GPUs: {why}", machine.hostname);
        // What nobody was told opens nothing.
        if let Err(fault) = self.forget_gpu(machine.id).await {
            tracing::warn!(machine.id = %machine.id, fault.code = %fault.code, "could not revoke the token of {}", machine.hostname);
        }
        Some(warning(&why))
    }

    /// Ends the token of a machine, if it has one.
    pub(crate) async fn forget_gpu(&self, machine: MachineId) -> Result<(), Fault> {
        let call = self.inner().bus.call::<RevokeMachineToken>(&machine);
        call.key(Key::of(machine)).await
    }

    async fn tell_of_gpu(
        &self,
        vm: &Vm<'_>,
        spot: &Spot,
        machine: &Machine,
        injection: &Injection,
        unready: bool,
    ) -> Result<(), Unprepared> {
        let inner = self.inner();
        let portal = reachable(inner.config.public_url.as_ref())?;
        if unready {
            return Err(Unprepared::NotReady);
        }
        let request = MachineTokenRequest {
            owner: machine.owner,
            machine: machine.id,
        };
        let token = inner
            .bus
            .call::<CreateMachineToken>(&request)
            .await
            .map_err(Unprepared::Token)?;
        let script = script(&machine.username, portal, injection, &token)?;
        let ended = vm.run_script(spot, &script).await;
        match ended.map_err(Unprepared::Guest)? {
            ScriptEnd { code: Some(0), .. } => Ok(()),
            ScriptEnd { code, said } => Err(Unprepared::Script {
                code,
                said: told(&said, &token),
            }),
        }
    }
}

fn warning(why: &str) -> String {
    format!("GPUs are not set up in it: {why}")
}

/// What a script said, on one line and without the token.
fn told(said: &str, token: &Secret) -> String {
    let words: Vec<&str> = said.split_whitespace().collect();
    let line = words.join(" ").replace(token.reveal(), "…");
    let skip = line.chars().count().saturating_sub(SAID_MOST);
    line.chars().skip(skip).collect()
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

/// The script that prepares a machine. It holds the machine's token.
fn script(
    user: &str,
    portal: &Url,
    injection: &Injection,
    token: &Secret,
) -> Result<Zeroizing<String>, Unprepared> {
    let api = format!("{}/api/gpu", portal.as_str().trim_end_matches('/'));
    for (what, text) in [
        ("the login user", user),
        ("the token", token.reveal()),
        ("the portal's address", &api),
    ] {
        if text.is_empty() || !plain(text) {
            return Err(Unprepared::Unsafe { what });
        }
    }
    // A model is only a help: one with a strange name is not told.
    let model = injection
        .model
        .as_deref()
        .filter(|model| plain(model))
        .unwrap_or_default();
    Ok(Zeroizing::new(format!(
        "user='{user}'\napi='{api}'\nmodel='{model}'\ntoken='{}'\n{PREPARE}\nput /usr/local/bin/gx10 0755 <<'{END}'\n{GX10}{END}\n",
        token.reveal()
    )))
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

    fn ours(user: &str, model: Option<&str>) -> Result<Zeroizing<String>, Unprepared> {
        let injection = Injection {
            model: model.map(str::to_owned),
        };
        script(
            user,
            &PORTAL.parse().unwrap(),
            &injection,
            &Secret::new("nbv_00ff"),
        )
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

    #[test]
    fn what_a_script_said_is_short_and_without_the_token() {
        let said = format!("{}\nno nbv_1 here\n", "x ".repeat(400));
        let line = told(&said, &Secret::new("nbv_1"));
        assert!(
            line.ends_with("no … here") && line.chars().count() == SAID_MOST,
            "{line}"
        );
    }
}
