//! The browser of a desktop sandbox. Display and browser come with the image; the agent starts the
//! browser beside the main process and starts it again when it ends.

use std::time::Duration;

use nimbus_guest::Guest;
use nimbus_guest::protocol::{CommandSpec, PROXY_PORT, Since};

use crate::plan::OWN_COMMANDS;

/// Where its `DevTools` listen, on the sandbox' own loopback.
pub(crate) const DEVTOOLS_PORT: u16 = 9222;

const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(60);
/// Its output is of no use to anybody but a maintainer.
const LOG_BYTES: u64 = 256 << 10;

/// Runs the browser until the sandbox ends. `proxied`: whether there is a way out.
pub(crate) async fn keep_browser(guest: Guest, proxied: bool) {
    let mut pause = AGAIN_FIRST;
    for number in 0_u32.. {
        let mut command = CommandSpec::new(format!("{OWN_COMMANDS}browser.{number}"), argv(proxied));
        command.log_bytes = Some(LOG_BYTES);
        let started = tokio::time::Instant::now();
        match guest.run(command, Since::Offset(0), false).await {
            Ok(attached) => match attached.collect(None, 0).await {
                Ok(ended) => tracing::info!(code = ended.exit.shell_code(), "a desktop's browser ended"),
                Err(_) => return,
            },
            Err(error) => tracing::warn!(cause = %error, "a desktop's browser could not be started"),
        }
        if started.elapsed() > AGAIN_MOST {
            pause = AGAIN_FIRST;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MOST);
    }
}

fn argv(proxied: bool) -> Vec<String> {
    let mut argv: Vec<String> = [
        "chromium",
        "--headless=new",
        // The container is the sandbox: it has neither the capabilities nor the user namespaces for a second one.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--user-data-dir=/tmp/.nimbus-browser",
        "--remote-debugging-address=127.0.0.1",
    ]
    .map(str::to_owned)
    .to_vec();
    argv.push(format!("--remote-debugging-port={DEVTOOLS_PORT}"));
    if proxied {
        argv.push(format!("--proxy-server=http://127.0.0.1:{PROXY_PORT}"));
    }
    argv.push("about:blank".to_owned());
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_with_a_way_out_takes_it() {
        assert!(argv(true).iter().any(|flag| flag.starts_with("--proxy-server=")));
        assert!(!argv(false).iter().any(|flag| flag.starts_with("--proxy-server=")));
        assert!(argv(false).contains(&"--remote-debugging-address=127.0.0.1".to_owned()));
    }
}
