//! Secrets of a project: read where the file says they are, and kept by the tenant.

use std::collections::BTreeMap;
use std::io::Read;

use nimbus_compose::workload::Defined;
use nimbus_compose::{Loaded, Source};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::is_absent;
use crate::client::workloads::Workloads;
use crate::output;
use crate::problem::{Outcome, Problem};

/// Most bytes of a secret; the server allows no more.
const LONGEST: u64 = 32 << 10;

/// The values of a project's secrets, by their names in the file. Those of others are not among them.
pub(super) type Values = BTreeMap<String, SecretString>;

/// Reads what the definitions need.
pub(super) fn read(loaded: &Loaded, defined: &[Defined]) -> Outcome<Values> {
    let mut values = Values::new();
    for name in defined.iter().flat_map(|made| &made.secrets) {
        let Some(secret) = loaded.project.secrets.get(name) else {
            continue;
        };
        let failed = || Problem::failed(format!("could not read the secret {name}"));
        let value = match &secret.source {
            Source::External(_) => continue,
            Source::Content(text) => text.clone().into_bytes(),
            Source::Environment(variable) => loaded
                .variables
                .get(variable)
                .ok_or_else(|| failed().why(format!("the variable {variable} is not set")))?
                .into_bytes(),
            Source::File(path) => {
                let path = loaded.project.root.join(path);
                let mut bytes = Vec::new();
                std::fs::File::open(&path)
                    .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
                    .map_err(|error| failed().why(format!("{path}: {error}")))?;
                bytes
            }
        };
        let Ok(text) = String::from_utf8(value) else {
            return Err(failed().why("it is no text, and a variable can hold nothing else"));
        };
        // As a shell reads a file into a variable: without the ends of lines at its end.
        let text = text.trim_end_matches('\n');
        if u64::try_from(text.len()).is_ok_and(|length| length > LONGEST) {
            return Err(failed().why(format!("it has more than {LONGEST} bytes")));
        }
        if text.contains('\0') {
            return Err(failed().why("it has a NUL byte, which no variable can hold"));
        }
        values.insert(name.clone(), SecretString::from(text));
    }
    Ok(values)
}

/// The bytes of one of them, for [`Defined::bind`].
pub(super) fn bytes<'v>(values: &'v Values, name: &str) -> Option<&'v [u8]> {
    values.get(name).map(|value| value.expose_secret().as_bytes())
}

/// Gives them to the tenant, which seals them.
pub(super) async fn put(workloads: &Workloads, loaded: &Loaded, values: &Values) -> Outcome {
    for (name, value) in values {
        let kept = loaded.project.secret_name(name);
        let what = format!("could not keep the secret {name}");
        let body = json!({ "value": value.expose_secret() });
        workloads
            .send(Method::PUT, &["secrets", &kept], Some(&body), &what)
            .await?;
    }
    Ok(())
}

/// Takes those of the project away; those of others stay.
pub(super) async fn remove(workloads: &Workloads, loaded: &Loaded) -> Outcome {
    for (name, secret) in &loaded.project.secrets {
        if matches!(secret.source, Source::External(_)) {
            continue;
        }
        let kept = loaded.project.secret_name(name);
        let what = format!("could not remove the secret {kept}");
        let request = workloads.request(Method::DELETE, &["secrets", &kept]);
        match workloads.api.resource(request, &what).await {
            Ok(_) => output::line(&format!("secret {kept}: removed"))?,
            Err(problem) if is_absent(&problem) => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(())
}
