//! Letting this host run sandboxes for a deployment elsewhere.

use std::io::Read;

use camino::Utf8PathBuf;
use nimbus_model::Hostname;
use nimbus_node::{Agent, Host, Layout, Scope};
use reqwest::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::{problem, this_program};
use crate::cli::environment;
use crate::client::api::{Api, Credential, read};
use crate::output;
use crate::problem::{Outcome, Problem};

/// Files of the agent on the bus: who it is, and whom it trusts.
const CREDENTIALS: &str = "sandbox-agent.creds";
const AUTHORITY: &str = "ca.pem";

/// The setting with the key that seals what the agent keeps.
const KEY: &str = "NIMBUS_ENCRYPTION_KEY";

/// Make this host run sandboxes for the Nimbus at URL.
///
/// Trades the token that `nimbus cluster join-token` printed there for a credential of this host, and runs
/// the agent as nimbus-sandbox-agent.service. The token is good once; nothing is used up by --dry-run.
#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// Address of the portal.
    url: Url,

    /// File with the token; `-` reads it from standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    token_file: Option<Utf8PathBuf>,

    /// The host's name in the deployment [default: this machine's].
    #[arg(long, value_name = "NAME")]
    name: Option<Hostname>,

    /// Where the program is or goes: this one is copied there if nothing is [default: /usr/local/bin/nimbus].
    #[arg(long, value_name = "FILE")]
    binary: Option<Utf8PathBuf>,

    /// Replace a unit that is there.
    #[arg(long)]
    overwrite: bool,

    /// Print the unit and touch nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Deserialize)]
struct Joined {
    bus_url: String,
    bus_ca_pem: Option<String>,
    bus_credentials: String,
}

pub(super) async fn join(args: JoinArgs) -> Outcome {
    let failed = |error| problem(&error);
    let layout = Layout::new(Scope::System, environment).map_err(failed)?;
    let name = match args.name {
        Some(name) => name,
        None => nimbus_sandbox_agent::machine_name().map_err(|error| {
            Problem::usage("this host has no name: give it one with --name").because(&error)
        })?,
    };
    let agent = Agent {
        binary: args.binary.unwrap_or_else(|| layout.binary.clone()),
        command: format!("nimbus node join {} --name {name}", args.url),
        layout,
    };
    if args.dry_run {
        let artifact = agent.artifact(&Host).map_err(failed)?;
        return output::line(&format!(
            "### {} -> {}\n{}",
            artifact.name,
            artifact.path,
            artifact.text.trim_end()
        ));
    }
    agent.check(args.overwrite, &Host).map_err(failed)?;
    if args.url.scheme() == "http" && !crate::client::cluster::is_loopback(&args.url) {
        output::say(
            "Warning: http is not encrypted: who reads along has the token and the credentials of the bus. Use https across a network that is not yours alone.",
        );
    }
    let token = token(&args.token_file.unwrap_or_else(|| "-".into()))?;

    let what = format!("could not join {}", args.url);
    let api = Api::new(args.url.clone(), Credential::Token(token))?;
    let request = api
        .request(Method::POST, &["hosts", "join"])
        .json(&json!({ "host": name }));
    let (page, _) = api.answer(request, &what).await?;
    let joined: Joined = read(&page.data, &what)?;

    let folder = agent.bus_folder();
    let mut settings = vec![
        format!("NATS_URL={}", joined.bus_url),
        format!("NATS_CREDS={folder}"),
        format!("NIMBUS_SANDBOX_HOST={name}"),
        // The agent seals what it keeps with a key of this host's own; nobody else reads it.
        format!("{KEY}={}", key(&agent.env_file())?),
    ];
    let mut files = vec![(CREDENTIALS, joined.bus_credentials.as_str())];
    if let Some(pem) = &joined.bus_ca_pem {
        files.push((AUTHORITY, pem));
        settings.push(format!("NATS_CA_FILE={}", folder.join(AUTHORITY)));
    }
    settings.push(String::new());
    let done = agent
        .apply(&this_program()?, &settings.join("\n"), &files, &Host)
        .map_err(failed)?;
    if let Some(path) = &done.copied {
        output::say(format_args!("copied: {path}"));
    }
    for path in &done.written {
        output::say(format_args!("wrote: {path}"));
    }
    for command in &done.ran {
        output::say(format_args!("ran: {command}"));
    }
    let url = args.url.as_str().trim_end_matches('/');
    output::line(&format!("Joined: {name} runs sandboxes for {url}."))
}

/// The token, without the line break that editors add.
fn token(file: &Utf8PathBuf) -> Outcome<SecretString> {
    let unreadable = |error: std::io::Error| {
        Problem::usage(format!("could not read the token from {file}")).because(&error)
    };
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
    } else {
        text = std::fs::read_to_string(file).map_err(unreadable)?;
    }
    let token = text.trim();
    if !token.starts_with("nimbus_jt_") {
        return Err(Problem::usage(format!("{file} holds no join token"))
            .next("nimbus cluster join-token prints one, on a computer that is signed in"));
    }
    Ok(SecretString::from(token.to_owned()))
}

/// The key of this host: the one it had when it joined before, as that reads what was sealed then, or 32
/// random bytes in base64.
fn key(settings: &Utf8PathBuf) -> Outcome<String> {
    use base64::Engine;

    let before = std::fs::read_to_string(settings).unwrap_or_default();
    let kept = before
        .lines()
        .find_map(|line| line.strip_prefix(KEY)?.strip_prefix('='));
    if let Some(kept) = kept {
        return Ok(kept.to_owned());
    }
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|error| Problem::failed("could not make a key").because(&error))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}
