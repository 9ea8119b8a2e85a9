//! The text of a nats-server configuration, for the embedded server and for one set up beside Nimbus.

use std::fmt::Write;

use camino::Utf8PathBuf;

/// What differs between servers of one authority.
#[derive(Clone, Debug)]
pub struct ServerConfigOptions {
    /// Name of the server, unique in a cluster.
    pub name: String,
    /// Host and port to listen on; port `-1` lets the server pick one.
    pub listen: String,
    /// Folder of JetStream's files.
    pub store_dir: Utf8PathBuf,
    /// Certificate of the server; needed as soon as a client is on another host.
    pub tls: Option<ServerTls>,
    /// Whether every stored message reaches the disk before it is acknowledged. Without, a power
    /// failure (not a crash of the server) can lose the last seconds.
    pub sync_always: bool,
}

/// Certificate and key of a server, PEM files.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The chain, the server's own certificate first.
    pub cert_file: Utf8PathBuf,
    /// The private key.
    pub key_file: Utf8PathBuf,
}

impl ServerConfigOptions {
    /// A server without TLS.
    #[must_use]
    pub fn new(listen: impl Into<String>, store_dir: impl Into<Utf8PathBuf>) -> Self {
        Self {
            name: "nimbus".to_owned(),
            listen: listen.into(),
            store_dir: store_dir.into(),
            tls: None,
            sync_always: false,
        }
    }
}

/// The operator and the accounts, as signed text.
pub(crate) struct Trust {
    pub operator: String,
    /// JWT and public key: the system account, then ours.
    pub accounts: [(String, String); 2],
}

pub(crate) fn render(options: &ServerConfigOptions, trust: &Trust) -> String {
    let [(system_jwt, system), (account_jwt, account)] = &trust.accounts;
    let sync = if options.sync_always { "always" } else { "\"10s\"" };
    let mut text = String::from("# Written by Nimbus; changes are lost.\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key}: {value}");
    };
    line("server_name", &quoted(&options.name));
    line("listen", &quoted(&options.listen));
    // A client shows its credential in one line, and the gateway's names every method it may call.
    line("max_control_line", "64KB");
    // The answer of a command holds up to a MiB of each of its outputs; the default is one MiB in all.
    line("max_payload", "4MB");
    line("operator", &trust.operator);
    line("system_account", system);
    line("resolver", "MEMORY");
    line(
        "resolver_preload",
        &format!("{{\n  {system}: {system_jwt}\n  {account}: {account_jwt}\n}}"),
    );
    // Of files the default is three quarters of what is free at the start: of a disk that has become fuller since, less
    // than the streams were promised before, and then it does not have them any more. They limit themselves.
    line(
        "jetstream",
        &format!(
            "{{\n  store_dir: {}\n  max_memory_store: 64MB\n  max_file_store: 4GB\n  sync_interval: {sync}\n}}",
            quoted(options.store_dir.as_str())
        ),
    );
    if let Some(tls) = &options.tls {
        line(
            "tls",
            &format!(
                "{{\n  cert_file: {}\n  key_file: {}\n}}",
                quoted(tls.cert_file.as_str()),
                quoted(tls.key_file.as_str())
            ),
        );
    }
    text
}

/// The configuration language takes JSON's strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_end_its_string() {
        let trust = Trust {
            operator: "o".into(),
            accounts: [("a".into(), "A".into()), ("b".into(), "B".into())],
        };
        let text = render(
            &ServerConfigOptions::new("127.0.0.1:-1", "/x\"\nlisten: 0.0.0.0"),
            &trust,
        );
        assert!(text.contains(r#"store_dir: "/x\"\nlisten: 0.0.0.0""#), "{text}");
    }
}
