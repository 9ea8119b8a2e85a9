//! One init of a test's own.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use camino::Utf8PathBuf;
use camino_tempfile::Utf8TempDir;
use nimbus_guest::protocol::{CommandSpec, FromCommand, Since, Stream};
use nimbus_guest::{Attachment, Collected, Control, Guest, GuestError, GuestStream, boot};
use tokio::net::UnixStream;

pub(crate) struct Init {
    pub(crate) guest: Guest,
    pub(crate) dir: Utf8TempDir,
    process: Child,
}

/// Longer than anything here takes, for what would otherwise hang.
pub(crate) const LONG: Duration = Duration::from_secs(20);

impl Init {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(args: &[String]) -> Result<Self> {
        let dir = camino_tempfile::tempdir()?;
        let path = dir.path().join("slot");
        let slot = boot::Slot::create(path.as_std_path())?;
        let process = Command::new(env!("CARGO_BIN_EXE_nimbus-guest"))
            .arg(format!("--slot={path}"))
            .args(args)
            .env_clear()
            .env("FROM_INIT", "init")
            .env("BOTH", "init")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .spawn()?;
        let pid = i32::try_from(process.id())?;
        let met = tokio::time::timeout(LONG, slot.meet(|peer| peer.pid == pid)).await;
        let (guest, _) = met.context("the init did not come")??;
        Ok(Self { guest, dir, process })
    }

    /// A path in the test's own directory.
    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) async fn control(&self) -> Result<Control<UnixStream>> {
        Ok(self.guest.control().await?)
    }

    /// Runs to the end with this input.
    pub(crate) async fn run(&self, spec: CommandSpec, stdin: Option<&'static str>) -> Result<Collected> {
        let attached = self.guest.run(spec, Since::Offset(0), stdin.is_some()).await?;
        let stdin = stdin.map(|text| Bytes::from_static(text.as_bytes()));
        Ok(tokio::time::timeout(LONG, attached.collect(stdin, 1 << 20)).await??)
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) async fn ended(&mut self) -> Result<Option<i32>> {
        let status = eventually(async || Ok(self.process.try_wait()?)).await?;
        Ok(status.code())
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // What it started is ended with it: its commands are in sessions of their own.
        let _ = end_all(&self.guest);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// By hand: a drop cannot wait for a runtime.
fn end_all(guest: &Guest) -> Result<()> {
    use nimbus_guest::frame::encode;
    use nimbus_guest::protocol::{First, Hello, Request, VERSION};
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(guest.socket())?;
    let hello = Hello::Control;
    stream.write_all(&encode(&First {
        version: VERSION,
        hello,
    })?)?;
    stream.write_all(&encode(&Request::Shutdown)?)?;
    // It ends when the init does.
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// `sh -c script`.
pub(crate) fn sh(id: &str, script: &str) -> CommandSpec {
    CommandSpec::new(id, ["sh", "-c", script])
}

/// Reads output until `enough` says so; the text of stdout.
pub(crate) async fn read_until<S: GuestStream>(
    attached: &mut Attachment<S>,
    mut enough: impl FnMut(&str) -> bool,
) -> Result<String> {
    let mut text = String::new();
    let read = async {
        while !enough(&text) {
            match attached.next().await? {
                Some(FromCommand::Output {
                    stream: Stream::Stdout,
                    bytes,
                    ..
                }) => {
                    text.push_str(&String::from_utf8_lossy(&bytes));
                }
                Some(FromCommand::Exit(_)) | None => break,
                Some(_) => {}
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LONG, read)
        .await
        .with_context(|| "no end of output")??;
    Ok(text)
}

/// The code of a refusal.
pub(crate) fn refusal<T>(result: Result<T, GuestError>) -> String {
    match result {
        Err(GuestError::Fault(fault)) => fault.code,
        Err(other) => format!("not a refusal: {other}"),
        Ok(_) => "not refused".to_owned(),
    }
}

/// Waits until `look` finds something.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let wait = async {
        loop {
            if let Some(found) = look().await? {
                return anyhow::Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .context("it did not come to be")?
}

/// Whether a process is alive.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}
