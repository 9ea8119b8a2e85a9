//! Where servers and credentials are found when the command line says nothing: the environment, the
//! credential file that programs share, and the server that runs on this computer.

use camino::Utf8PathBuf;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::api::Credential;
use crate::problem::{Outcome, Problem};
use crate::server::discovery;

/// Variables that hold a bearer token, the first one wins.
const BEARERS: [&str; 2] = [super::TOKEN_VARIABLE, "NIMBUS_BEARER_TOKEN"];
const KEY: &str = "NIMBUS_API_KEY";
const WORKLOAD: &str = "NIMBUS_WORKLOAD_IDENTITY_TOKEN";
const WORKLOAD_FILE: &str = "NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE";
const FILE: &str = "NIMBUS_APPLICATION_CREDENTIALS";

/// The server that the environment names for programs.
pub(crate) fn endpoint(environment: impl Fn(&str) -> Option<String>) -> Outcome<Option<Url>> {
    let Some(text) = environment("NIMBUS_ENDPOINT") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|error: url::ParseError| {
        Problem::usage(format!("NIMBUS_ENDPOINT is {text:?}, which is no address")).because(&error)
    })
}

/// The credential that the environment holds.
pub(crate) fn of_environment(environment: impl Fn(&str) -> Option<String>) -> Option<Credential> {
    if let Some(token) = BEARERS.iter().find_map(|name| environment(name)) {
        return Some(Credential::Token(token.into()));
    }
    if let Some(key) = environment(KEY) {
        return Some(Credential::Key(key.into()));
    }
    environment(WORKLOAD).map(|token| Credential::Token(token.into()))
}

/// The credential of the credential file, if that is for the server at `url`, or of the file that a
/// platform keeps a workload's identity in.
pub(crate) fn of_files(
    environment: impl Fn(&str) -> Option<String>,
    url: &Url,
) -> Outcome<Option<Credential>> {
    if let Some(file) = File::open(&environment)? {
        let ours = file
            .endpoint
            .as_ref()
            .is_none_or(|endpoint| endpoint.origin() == url.origin());
        if let Some(credential) = file.credential().filter(|_| ours) {
            return Ok(Some(credential));
        }
    }
    let Some(path) = environment(WORKLOAD_FILE) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Problem::failed(format!("could not read {path}")).because(&error))?;
    Ok(Some(Credential::Token(text.trim().into())))
}

/// The credential file, as far as it concerns us.
#[derive(Deserialize)]
pub(crate) struct File {
    /// The server.
    #[serde(default)]
    pub(crate) endpoint: Option<Url>,
    #[serde(default, alias = "access_token")]
    token: Option<String>,
    #[serde(default, alias = "apiKey")]
    api_key: Option<String>,
    #[serde(default)]
    credential: Option<Stored>,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(alias = "type")]
    kind: String,
    #[serde(default, alias = "access_token")]
    token: Option<String>,
    #[serde(default, rename = "apiKey", alias = "api_key")]
    api_key: Option<String>,
}

impl File {
    /// Reads the file that the environment names, or the one in its usual place; an absent one is none.
    pub(crate) fn open(environment: impl Fn(&str) -> Option<String>) -> Outcome<Option<Self>> {
        let Some(path) = place(&environment) else {
            return Ok(None);
        };
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                // The message could quote what stands there.
                .map_err(|error| {
                    Problem::failed(format!("{path} is damaged")).why(format!(
                        "line {}, column {}",
                        error.line(),
                        error.column()
                    ))
                }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Problem::failed(format!("could not read {path}")).because(&error)),
        }
    }

    fn credential(self) -> Option<Credential> {
        let secret = |text: Option<String>| text.filter(|text| !text.is_empty()).map(SecretString::from);
        let (kind, token, key) = match self.credential {
            Some(stored) => (Some(stored.kind), stored.token, stored.api_key),
            None => (None, self.token, self.api_key),
        };
        match kind.as_deref() {
            Some("api_key") => secret(key).map(Credential::Key),
            Some(_) => secret(token).map(Credential::Token),
            None => secret(token)
                .map(Credential::Token)
                .or_else(|| secret(key).map(Credential::Key)),
        }
    }
}

fn place(environment: impl Fn(&str) -> Option<String>) -> Option<Utf8PathBuf> {
    if let Some(path) = environment(FILE) {
        return Some(path.into());
    }
    let config = environment("XDG_CONFIG_HOME")
        .map(Utf8PathBuf::from)
        .or_else(|| Some(Utf8PathBuf::from(environment("HOME")?).join(".config")))?;
    Some(config.join("nimbus/application_default_credentials.json"))
}

/// The server that runs on this computer, by the file it keeps while it does.
pub(crate) fn running(environment: impl Fn(&str) -> Option<String>) -> Option<Url> {
    #[derive(Deserialize)]
    struct Server {
        address: Url,
    }
    let text = std::fs::read(discovery::path(environment)?).ok()?;
    let server: Server = serde_json::from_slice(&text).ok()?;
    Some(server.address)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn shown(credential: Option<Credential>) -> String {
        match credential {
            Some(Credential::Token(token)) => format!("bearer {}", token.expose_secret()),
            Some(Credential::Key(key)) => format!("key {}", key.expose_secret()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_environment_is_asked_in_order() {
        let all = [
            ("NIMBUS_WORKLOAD_IDENTITY_TOKEN", "bearer w"),
            ("NIMBUS_API_KEY", "key k"),
            ("NIMBUS_BEARER_TOKEN", "bearer b"),
            ("NIMBUS_TOKEN", "bearer t"),
        ];
        assert_eq!(shown(of_environment(|_| None)), "None");
        for set in 1..=all.len() {
            let environment = |name: &str| {
                let known = all.iter().take(set);
                let (_, value) = known.into_iter().find(|(known, _)| *known == name)?;
                value.split(' ').nth(1).map(str::to_owned)
            };
            assert_eq!(shown(of_environment(environment)), all[set - 1].1);
        }
    }

    #[test]
    fn the_file_may_say_it_in_several_ways() {
        for (text, expected) in [
            (r#"{"token":"t"}"#, "bearer t"),
            (r#"{"access_token":"t","api_key":"k"}"#, "bearer t"),
            (r#"{"apiKey":"k"}"#, "key k"),
            (
                r#"{"token":"t","credential":{"kind":"api_key","apiKey":"k"}}"#,
                "key k",
            ),
            (
                r#"{"credential":{"type":"workload_identity","access_token":"w","issuer":"i"}}"#,
                "bearer w",
            ),
            (r#"{"credential":{"kind":"bearer","token":""}}"#, "None"),
            ("{}", "None"),
        ] {
            let file: File = serde_json::from_str(text).unwrap();
            assert_eq!(shown(file.credential()), expected, "{text}");
        }
    }

    #[test]
    fn a_credential_is_shown_to_its_own_server_only() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        let environment = |name: &str| (name == FILE).then(|| path.to_string());
        let url = |text: &str| text.parse::<Url>().unwrap();
        let ask = |text: &str| {
            of_files(environment, &url(text))
                .map(shown)
                .map_err(|e| e.to_string())
        };
        assert_eq!(ask("http://a:1").unwrap(), "None", "there is no file");
        std::fs::write(&path, r#"{"endpoint":"http://a:1/","token":"t"}"#).unwrap();
        assert_eq!(ask("http://a:1").unwrap(), "bearer t");
        assert_eq!(ask("http://b:1").unwrap(), "None");
        std::fs::write(&path, r#"{"token":"secret"#).unwrap();
        let problem = ask("http://a:1").unwrap_err();
        assert!(
            problem.contains(path.as_str()) && !problem.contains("secret"),
            "{problem}"
        );
    }
}
