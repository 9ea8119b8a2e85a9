//! `nimbus vm create`: one order, watched to its end.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use nimbus_model::{Os, Tier};
use reqwest::{Method, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::api::{Api, FaultView, LONG, read};
use crate::client::progress::{PROVISION, Steps};
use crate::client::types::{Operation, Provisioned};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Between two looks at an operation, once its stream is lost.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Lost connections in a row after which watching is given up.
const PATIENCE: u32 = 20;

/// What to create.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Name of the machine: a-z, 0-9 and '-'.
    hostname: nimbus_model::Hostname,

    /// Size: small, medium, large, or xl for administrators.
    #[arg(long, default_value_t = Tier::Small, value_parser = tiers(), hide_possible_values = true)]
    tier: Tier,

    /// Operating system: ubuntu-24.04, ubuntu-22.04, debian-12 or debian-11.
    #[arg(long, default_value_t = Os::Ubuntu2404, value_parser = systems(), hide_possible_values = true)]
    os: Os,

    /// File with the public SSH key to let in [default: ~/.ssh/id_ed25519.pub, else a new key].
    #[arg(long, value_name = "FILE", conflicts_with = "generate_key")]
    ssh_key: Option<Utf8PathBuf>,

    /// Have the server make a key; the private half is written to a file.
    #[arg(long)]
    generate_key: bool,

    /// Where a generated private key goes [default: <key name> in the working directory].
    #[arg(long, value_name = "FILE")]
    key_out: Option<Utf8PathBuf>,

    /// Name of this order: sending it again under the same name makes no second machine.
    #[arg(long, value_name = "TEXT")]
    idempotency_key: Option<String>,

    /// Order only, and print the operation.
    #[arg(long)]
    no_wait: bool,
}

fn tiers() -> impl TypedValueParser<Value = Tier> {
    PossibleValuesParser::new(Tier::all().iter().map(|tier| tier.key())).try_map(|name| name.parse::<Tier>())
}

fn systems() -> impl TypedValueParser<Value = Os> {
    PossibleValuesParser::new(Os::all().iter().map(|os| os.key())).try_map(|name| name.parse::<Os>())
}

impl CreateArgs {
    /// An order with a generated key, as `nimbus dev --demo` places it.
    pub(crate) fn demo(hostname: nimbus_model::Hostname, key_out: Utf8PathBuf) -> Self {
        Self {
            hostname,
            tier: Tier::Small,
            os: Os::Ubuntu2404,
            ssh_key: None,
            generate_key: true,
            key_out: Some(key_out),
            idempotency_key: None,
            no_wait: false,
        }
    }

    fn public_key(&self) -> Outcome<Option<String>> {
        if self.generate_key {
            return Ok(None);
        }
        if let Some(path) = &self.ssh_key {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Problem::usage(format!("could not read the key {path}")).because(&error))?;
            if text.contains("PRIVATE KEY") {
                return Err(Problem::refused(format!("{path} is a private key"))
                    .why("a server needs the public half only")
                    .next(format!("--ssh-key {path}.pub")));
            }
            return Ok(Some(text.trim().to_owned()));
        }
        let Some(home) = std::env::var("HOME").ok().filter(|home| !home.is_empty()) else {
            return Ok(None);
        };
        let path = Utf8PathBuf::from(home).join(".ssh/id_ed25519.pub");
        let key = std::fs::read_to_string(&path).ok();
        output::say(match &key {
            Some(_) => format!("Using the key {path}."),
            None => "Having a new key made; name one of yours with --ssh-key.".to_owned(),
        });
        Ok(key.map(|text| text.trim().to_owned()))
    }
}

/// What came of an order.
#[derive(Debug)]
pub(crate) enum Created {
    /// The machine runs.
    Running {
        /// The server's result, without the private key.
        raw: Value,
        /// The same, read.
        machine: Box<Provisioned>,
        /// Where the private key was written.
        key_file: Option<Utf8PathBuf>,
        /// From the order to the running machine.
        took: Duration,
    },
    /// Nobody waits for it.
    Ordered(Value),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    OperationId {
        operation_id: String,
    },
    Progress {
        step: String,
        #[serde(default)]
        label: String,
        #[serde(default)]
        duration_ms: Option<u64>,
    },
    Result {
        data: Value,
    },
    Error {
        #[serde(default)]
        message: String,
        #[serde(default)]
        fault: Option<FaultView>,
    },
    /// A newer server may say more.
    #[serde(other)]
    Unknown,
}

/// Places the order and, unless told not to, watches it to its end.
pub(crate) async fn create(api: &Api, order: &CreateArgs) -> Outcome<Created> {
    let name = order.hostname.as_str();
    let what = format!("could not create {name}");
    let key = order.public_key()?;
    if let Some(path) = order
        .key_out
        .as_deref()
        .filter(|path| key.is_none() && path.exists())
    {
        return Err(Problem::refused(format!("{path} exists"))
            .why("a key is never overwritten")
            .next("name another --key-out"));
    }
    let mut body = json!({ "hostname": name, "tier": order.tier.key(), "os_template": order.os.key() });
    if let Some(fields) = body.as_object_mut() {
        match &key {
            Some(key) => fields.insert("ssh_pubkey".to_owned(), json!(key)),
            None => fields.insert("generate_key".to_owned(), json!(true)),
        };
    }
    let mut request = api.request(Method::POST, &["vms"]).json(&body);
    if let Some(key) = &order.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    if order.no_wait {
        let (page, _) = api
            .answer(request.header("Prefer", "respond-async"), &what)
            .await?;
        return Ok(Created::Ordered(page.data));
    }
    let started = Instant::now();
    let response = api.stream(request, &what).await?;
    let mut steps = Steps::new(&format!("Creating {name}"), PROVISION);
    let end = tokio::select! {
        end = watch(api, response, &mut steps, &what) => end,
        _ = tokio::signal::ctrl_c() => Err(Problem::failed(format!("stopped watching {name}"))
            .why("the server goes on creating it")
            .next(format!("nimbus vm get {name}, or nimbus vm delete {name}"))),
    };
    steps.close();
    let (operation, mut raw) = end?;
    let took = started.elapsed();
    let secret = match (key, operation) {
        (Some(_), _) => None,
        (None, operation) => private_key(api, &mut raw, operation.as_deref()).await?,
    };
    let machine: Box<Provisioned> = Box::new(read(&raw, &what)?);
    let key_file = match secret {
        Some(secret) => Some(keep(order.key_out.as_deref(), &machine, &secret)?),
        None => None,
    };
    Ok(Created::Running {
        raw,
        machine,
        key_file,
        took,
    })
}

/// Reads the stream; when it breaks, asks for the operation until it is done. The operation's id and its result.
async fn watch(
    api: &Api,
    mut response: Response,
    steps: &mut Steps,
    what: &str,
) -> Outcome<(Option<String>, Value)> {
    let mut operation = None;
    let mut rest: Vec<u8> = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if line.trim_ascii().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_slice(&line).map_err(|error| {
                Problem::failed(what).why(format!("the server's progress is not understood: {error}"))
            })?;
            match line {
                Line::OperationId { operation_id } => operation = Some(operation_id),
                Line::Progress {
                    step,
                    label,
                    duration_ms,
                } => steps.finished(&step, &label, duration_ms),
                Line::Result { data } => return Ok((operation, data)),
                Line::Error {
                    fault: Some(fault), ..
                } => return Err(fault.into_problem(what)),
                Line::Error { message, .. } => return Err(Problem::failed(what).why(message)),
                Line::Unknown => {}
            }
        }
    }
    let Some(id) = operation else {
        return Err(Problem::failed(what)
            .why("the connection was lost before the order was confirmed")
            .next("nimbus vm list"));
    };
    let data = follow(api, &id, steps, what).await?;
    Ok((Some(id), data))
}

/// Asks for the operation until it is done.
async fn follow(api: &Api, id: &str, steps: &mut Steps, what: &str) -> Outcome<Value> {
    let deadline = Instant::now() + LONG;
    let mut lost = 0;
    loop {
        match api.get(&["operations", id], what).await {
            Ok(row) => {
                lost = 0;
                let operation: Operation = read(&row, what)?;
                for step in operation.steps.iter().filter(|step| step.state == "done") {
                    steps.finished(&step.key, &step.label, step.duration_ms);
                }
                match operation.state.as_str() {
                    "succeeded" => return Ok(operation.result.unwrap_or_default()),
                    "failed" => return Err(operation.fault.unwrap_or_default().into_problem(what)),
                    _ => {}
                }
            }
            Err(problem) if lost >= PATIENCE => return Err(problem),
            Err(_) => lost += 1,
        }
        if Instant::now() >= deadline {
            return Err(Problem::failed(what)
                .why("it takes longer than this command waits")
                .next("nimbus vm list"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Takes the private key out of the result, or fetches it. Only one reader ever gets it.
async fn private_key(api: &Api, raw: &mut Value, operation: Option<&str>) -> Outcome<Option<SecretString>> {
    let inside = raw
        .as_object_mut()
        .and_then(|fields| fields.remove("ssh_private_key"));
    if let Some(Value::String(key)) = inside {
        return Ok(Some(key.into()));
    }
    let Some(id) = operation else { return Ok(None) };
    let what = "the machine runs, but its private key could not be fetched";
    let key = api
        .send(Method::POST, &["operations", id, "private-key"], None, what)
        .await?;
    Ok(key
        .get("private_key")
        .and_then(Value::as_str)
        .map(SecretString::from))
}

fn keep(path: Option<&Utf8Path>, machine: &Provisioned, key: &SecretString) -> Outcome<Utf8PathBuf> {
    let name = machine
        .key_name
        .as_deref()
        .filter(|name| !name.contains(['/', '\0']) && !name.starts_with('.'));
    let path = path.map_or_else(
        || Utf8PathBuf::from(name.unwrap_or("nimbus-key")),
        Utf8Path::to_owned,
    );
    // A taken default name gets a number; the key must land somewhere, for there is no second copy.
    let mut number = 1;
    let mut target = path.clone();
    loop {
        match std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&target)
        {
            Ok(mut file) => {
                file.write_all(key.expose_secret().as_bytes())
                    .and_then(|()| file.sync_all())
                    .map_err(|error| {
                        Problem::failed(format!("could not write the private key to {target}"))
                            .because(&error)
                    })?;
                return Ok(target);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 => {
                number += 1;
                target = Utf8PathBuf::from(format!("{path}-{number}"));
            }
            Err(error) => {
                return Err(
                    Problem::failed(format!("could not write the private key to {target}")).because(&error),
                );
            }
        }
    }
}

impl Created {
    /// The command that opens a shell on the machine.
    pub(crate) fn ssh(&self) -> Option<String> {
        match self {
            Self::Running {
                machine, key_file, ..
            } => {
                let key = key_file
                    .as_ref()
                    .map(|path| format!("-i {path} "))
                    .unwrap_or_default();
                Some(format!("ssh {key}{}@{}", machine.username, machine.ip))
            }
            Self::Ordered(_) => None,
        }
    }

    /// Prints it.
    pub(crate) fn print(&self, format: Format) -> Outcome {
        match self {
            Self::Ordered(operation) if format == Format::Json => output::json(operation),
            Self::Ordered(operation) => {
                let id = operation.get("id").and_then(Value::as_str).unwrap_or_default();
                output::say("Ordered. `nimbus vm list` shows how it goes.");
                output::line(id)
            }
            Self::Running { raw, key_file, .. } if format == Format::Json => {
                let mut raw = raw.clone();
                if let Some(fields) = raw.as_object_mut() {
                    fields.insert("private_key_file".to_owned(), json!(key_file));
                }
                output::json(&raw)
            }
            Self::Running {
                machine,
                key_file,
                took,
                ..
            } => {
                if let Some(warning) = &machine.warning {
                    output::say(format_args!("Warning: {warning}"));
                }
                if let Some(path) = key_file {
                    output::say(format_args!(
                        "The private key is in {path}; the server keeps no copy."
                    ));
                }
                output::facts(&[
                    ("SSH", self.ssh().unwrap_or_default()),
                    ("Hostname", machine.hostname.clone()),
                    ("Address", machine.ip.clone()),
                    ("Tier", machine.tier.clone()),
                    ("System", machine.os.clone()),
                    ("Node", machine.node.clone()),
                    ("VMID", output::or_dash(machine.vmid)),
                    ("ID", machine.id.clone()),
                    (
                        "Took",
                        output::span(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
                    ),
                ])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_newer_servers_are_let_through() {
        let line: Line = serde_json::from_str(r#"{"type":"cheer","loud":true}"#).unwrap();
        assert!(matches!(line, Line::Unknown));
        let line: Line =
            serde_json::from_str(r#"{"type":"progress","step":"s","label":"S","duration_ms":3,"new":1}"#)
                .unwrap();
        assert!(matches!(
            line,
            Line::Progress {
                duration_ms: Some(3),
                ..
            }
        ));
    }

    #[test]
    fn a_key_is_never_overwritten_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let machine = Provisioned::default();
        let first = keep(Some(&path), &machine, &"one".into()).unwrap();
        let second = keep(Some(&path), &machine, &"two".into()).unwrap();
        assert_eq!(std::fs::read_to_string(&first).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(&second).unwrap(), "two");
        assert_eq!(
            std::fs::metadata(&first).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
