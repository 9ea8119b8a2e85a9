//! The static init as PID 1 of a real container, shut in as every sandbox is: no network, no
//! capability, no new privileges, a read-only root, a user that is nobody.

use std::net::Ipv4Addr;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use camino::Utf8PathBuf;
use camino_tempfile::Utf8TempDir;
use nimbus_guest::protocol::{
    Claim, Claimed, EgressTarget, Forward, Precondition, Range, Since, TerminalSize,
};
use nimbus_guest::{Guest, boot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{LONG, eventually, refusal, sh};

const IMAGE: &str = "nimbus.test/busybox:1";

struct Container {
    guest: Guest,
    id: String,
    slot: Utf8PathBuf,
    _dir: Utf8TempDir,
}

fn docker(args: &[&str]) -> Result<Output> {
    let output = Command::new("docker").args(args).output().context("docker")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("docker {}: {why}", args.first().unwrap_or(&""));
    }
    Ok(output)
}

/// The static one: an image has no libraries that ours could rely on.
fn init_binary() -> Result<Utf8PathBuf> {
    let path = match std::env::var("NIMBUS_GUEST_INIT") {
        Ok(path) => Utf8PathBuf::from(path),
        Err(_) => Utf8PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/nimbus-guest"),
    };
    path.canonicalize_utf8()
        .with_context(|| format!("{path} is missing: run ops/dev/guest.sh"))
}

impl Container {
    async fn start(user: &str, more: &[&str]) -> Result<Self> {
        let dir = camino_tempfile::tempdir()?;
        let path = dir.path().join("slot");
        let slot = boot::Slot::create(path.as_std_path())?;
        let init = format!("{}:{}:ro", init_binary()?, boot::INIT_IN_SANDBOX);
        let run = format!("{path}:{}:ro", boot::SLOT_IN_SANDBOX);
        let mut args = vec!["run", "--detach", "--label", "io.nimbus.test=guest"];
        args.extend(["--network", "none", "--cap-drop", "ALL", "--read-only"]);
        args.extend(["--security-opt", "no-new-privileges", "--memory", "128m"]);
        args.extend(["--user", user, "--volume", &init, "--volume", &run]);
        args.extend(["--tmpfs", "/tmp:size=4m,mode=1777", "--env", "IMAGE_SAYS=so"]);
        args.extend(more);
        args.extend(["--entrypoint", boot::INIT_IN_SANDBOX, IMAGE]);
        let id = String::from_utf8(docker(&args)?.stdout)?.trim().to_owned();
        let inspect = docker(&["inspect", "--format", "{{.State.Pid}}", &id])?;
        let pid: i32 = String::from_utf8(inspect.stdout)?.trim().parse()?;
        let met = tokio::time::timeout(LONG, slot.meet(|peer| peer.pid == pid)).await;
        let (guest, _) = met.context("the init did not come")??;
        Ok(Self {
            guest,
            id,
            slot: path,
            _dir: dir,
        })
    }

    async fn sh(&self, id: &str, script: &str) -> Result<String> {
        let spec = sh(id, script);
        let attached = self.guest.run(spec, Since::Offset(0), false).await?;
        let done = tokio::time::timeout(LONG, attached.collect(None, 1 << 20)).await??;
        Ok(format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        ))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", &self.id]);
    }
}

#[tokio::test]
async fn a_sandbox_is_shut_in_and_works() -> Result<()> {
    let sandbox = Container::start("1000:1000", &[]).await?;
    assert_eq!(std::fs::read_dir(&sandbox.slot)?.count(), 0);
    let status = sandbox
        .sh("status", "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /sys/class/net; echo $IMAGE_SAYS $$")
        .await?;
    let words: Vec<&str> = status.split_whitespace().collect();
    let zero = "0000000000000000";
    let shut = [
        "1000",
        "CapBnd:",
        zero,
        "CapEff:",
        zero,
        "NoNewPrivs:",
        "1",
        "lo",
        "so",
    ];
    for word in shut {
        assert!(words.contains(&word), "{word} is not in {status}");
    }

    // Nothing of the init can be looked at or ended from inside, and there is nothing left to connect to.
    for (id, script) in [
        ("environ", "cat /proc/1/environ"),
        ("memory", "cat /proc/1/mem"),
        ("fds", "ls /proc/1/fd/"),
        ("write", "touch /.nimbus/run/x"),
        ("root", "touch /x"),
    ] {
        let said = sandbox.sh(id, &format!("{script} && echo it worked")).await?;
        assert!(!said.contains("it worked"), "{script}: {said}");
        assert!(
            said.contains("ermission denied") || said.contains("Read-only"),
            "{script}: {said}"
        );
    }
    assert_eq!(sandbox.sh("ls", "ls -A /.nimbus/run").await?, "");
    sandbox
        .sh("kill", "kill -9 1; kill -HUP 1; kill -PIPE 1; kill -SEGV 1; true")
        .await?;
    sandbox.guest.control().await?.ping().await?;

    // A terminal.
    let mut spec = sh("tty", "tty; stty size");
    spec.terminal = Some(TerminalSize { cols: 90, rows: 30 });
    let attached = sandbox.guest.run(spec, Since::Offset(0), true).await?;
    let done = attached.collect(None, 1000).await?;
    assert_eq!(String::from_utf8(done.stdout)?, "/dev/pts/0\r\n30 90\r\n");

    // Orphans come to PID 1, which reaps them.
    sandbox
        .sh("orphans", "for i in 1 2 3 4 5; do (sleep 0.01 &); done")
        .await?;
    let mut rounds = 0;
    eventually(async || {
        rounds += 1;
        let left = sandbox.sh(&format!("ps{rounds}"), "ps -o pid,stat,comm").await?;
        Ok((!left.contains("sleep")).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn its_network_is_the_agent() -> Result<()> {
    let sandbox = Container::start("1000:1000", &[]).await?;
    let mut control = sandbox.guest.control().await?;
    let claim = Claim {
        proxy: true,
        forwards: vec![Forward {
            name: "database".into(),
            addr: Ipv4Addr::new(127, 0, 1, 1),
            // Below 1024, and it is not root.
            port: 443,
        }],
        hosts: vec![(Ipv4Addr::new(127, 0, 1, 1).into(), "db.example".into())],
        ..Claim::default()
    };
    // The file is root's.
    let claimed = control.claim(claim).await?;
    assert_eq!(claimed, Claimed { hosts_written: false });

    for (address, to) in [
        ("127.0.0.1 3128", EgressTarget::Proxy),
        ("127.0.1.1 443", EgressTarget::Forward("database".into())),
    ] {
        let id = format!("nc-{}", address.len());
        let script = format!("echo question | nc {address}");
        let (said, served) = tokio::join!(sandbox.sh(&id, &script), async {
            let (egress, mut stream) = sandbox.guest.accept_egress().await?;
            let mut question = [0; 9];
            stream.read_exact(&mut question).await?;
            stream.write_all(b"answer to ").await?;
            stream.write_all(&question).await?;
            anyhow::Ok(egress)
        });
        assert_eq!(said?, "answer to question\n");
        assert_eq!(served?.to, to);
    }

    let spec = sh("server", "nc -l -p 8080 -e cat");
    let _server = sandbox.guest.run(spec, Since::Offset(0), false).await?;
    eventually(async || {
        let ports = control.ports().await?;
        Ok(ports.iter().any(|port| port.port == 8080).then_some(()))
    })
    .await?;
    let ports = control.ports().await?;
    assert_eq!(ports.len(), 1, "{ports:?}");
    let mut stream = sandbox.guest.connect_port(8080).await?;
    stream.write_all(b"through").await?;
    let mut echo = [0; 7];
    stream.read_exact(&mut echo).await?;
    assert_eq!(&echo, b"through");
    Ok(())
}

#[tokio::test]
async fn limits_are_told_as_what_they_are() -> Result<()> {
    let sandbox = Container::start("1000:1000", &["--pids-limit", "8"]).await?;
    let guest = &sandbox.guest;
    let write = async |path: &str, bytes: Bytes| {
        let mut upload = guest.write_file(path, None, true, Precondition::None).await?;
        upload.send(bytes).await?;
        upload.finish().await
    };
    write("/tmp/a/small", Bytes::from_static(b"fits")).await?;
    let small = guest
        .read_file("/tmp/a/small", Range::All)
        .await?
        .collect(10)
        .await?;
    assert_eq!(small, b"fits");
    let large = write("/tmp/large", vec![1; 8 << 20].into()).await;
    assert_eq!(refusal(large), "rate.resource_exhausted");
    assert_eq!(refusal(write("/x", Bytes::new()).await), "auth.permission_denied");
    let mut control = guest.control().await?;
    assert_eq!(
        refusal(control.mkdir("/usr/x", None, false).await),
        "auth.permission_denied"
    );
    let left = control.list("/tmp", None, 10).await?.0;
    assert_eq!(left.len(), 1, "{left:?}");

    // More output than the disk has room for: the newest is kept, and the command ends.
    let flood = sh("flood", "head -c 16777216 /dev/zero");
    drop(guest.run(flood, Since::Offset(0), false).await?);
    let info = eventually(async || {
        let mut all = control.commands().await?;
        Ok(all.pop().filter(|info| info.exit.is_some()))
    })
    .await?;
    assert_eq!(info.log_end, 16 << 20);
    assert!(
        info.log_start > 0 && info.log_end - info.log_start >= 1 << 20,
        "{info:?}"
    );
    control.forget("flood").await?;

    let mut refused = None;
    for number in 0..10 {
        let spec = sh(&format!("sleep{number}"), "exec sleep 1000");
        match guest.run(spec, Since::Offset(0), false).await {
            Ok(attached) => drop(attached),
            Err(error) => {
                refused = error.fault().cloned();
                break;
            }
        }
    }
    let refused = refused.context("ten processes within a limit of eight")?;
    assert_eq!(refused.code, "rate.resource_exhausted");
    assert_eq!(refused.detail.get("resource").map(String::as_str), Some("pids"));
    Ok(())
}

#[tokio::test]
async fn root_inside_may_write_hosts_and_the_agent_ends_it() -> Result<()> {
    let sandbox = Container::start("0:0", &[]).await?;
    let mut control = sandbox.guest.control().await?;
    let claim = Claim {
        hosts: vec![(Ipv4Addr::new(127, 0, 1, 1).into(), "db.example".into())],
        env: vec![("SECRET".into(), "s3cret".into())],
        ..Claim::default()
    };
    let claimed = control.claim(claim).await?;
    let hosts = sandbox.sh("hosts", "cat /etc/hosts").await?;
    assert_eq!(claimed.hosts_written, hosts.contains("127.0.1.1\tdb.example"));
    assert_eq!(sandbox.sh("env", "echo $SECRET").await?, "s3cret\n");
    // Root is nobody: the init's memory, which has the secret, stays closed to it.
    let said = sandbox.sh("mem", "cat /proc/1/environ && echo it worked").await?;
    assert!(!said.contains("it worked"), "{said}");

    let spec = sh("main", "trap '' TERM; sleep 1000");
    let mut main = sandbox.guest.run(spec, Since::Offset(0), false).await?;
    control.shutdown().await?;
    assert!(tokio::time::timeout(LONG, main.next()).await?.is_err());
    let code = docker(&["wait", &sandbox.id])?;
    assert_eq!(String::from_utf8(code.stdout)?.trim(), "0");
    Ok(())
}

#[tokio::test]
async fn the_engines_stop_ends_it_in_time() -> Result<()> {
    let sandbox = Container::start("1000:1000", &[]).await?;
    let spec = sh(
        "main",
        "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done",
    );
    let mut main = sandbox.guest.run(spec, Since::Offset(0), false).await?;
    crate::world::read_until(&mut main, |text| text.contains("ready")).await?;
    docker(&["stop", "--time", "60", &sandbox.id])?;
    let code = docker(&["wait", &sandbox.id])?;
    // Not 137, which would be the engine's patience running out.
    assert_eq!(String::from_utf8(code.stdout)?.trim(), "143");
    Ok(())
}
