//! What the commands for tenants, services, sandboxes and sessions share.

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::ClientArgs;
use super::api::{Api, strange};
use crate::output;
use crate::problem::{Outcome, Problem};

/// The server, and whose things are meant.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WorkloadArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,

    /// The tenant [default: your own, or the only one that the credential reaches].
    #[arg(
        long,
        short = 'T',
        env = "NIMBUS_TENANT",
        value_name = "ID",
        global = true,
        help_heading = "Server"
    )]
    pub(crate) tenant: Option<String>,
}

/// One tenant of a server.
#[derive(Clone, Debug)]
pub(crate) struct Workloads {
    pub(crate) api: Api,
    pub(crate) tenant: String,
}

impl WorkloadArgs {
    /// Finds out which tenant is meant.
    pub(crate) async fn open(&self) -> Outcome<Workloads> {
        let api = self.client.api()?;
        let tenant = match self.tenant.as_ref().filter(|id| !id.is_empty()) {
            Some(tenant) => tenant.clone(),
            None => default_tenant(&api).await?,
        };
        Ok(Workloads { api, tenant })
    }
}

/// A person's own; a program's or the operator's, if there is only one.
async fn default_tenant(api: &Api) -> Outcome<String> {
    let what = "could not find out which tenant is meant";
    if let Ok(me) = api.get(&["me"], what).await
        && let Some(tenant) = text(&me, "/tenant_id")
    {
        return Ok(tenant);
    }
    let answer = api.resource(api.request(Method::GET, &["tenants"]), what).await?;
    let ids: Vec<String> = answer
        .get("tenants")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match ids.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Problem::usage(what)
            .why("the credential reaches no tenant")
            .next("nimbus tenant create ID, then --tenant ID")),
        several => Err(Problem::usage(what)
            .why(format!("the credential reaches {}", several.join(", ")))
            .next("add --tenant, or set NIMBUS_TENANT")),
    }
}

impl Workloads {
    /// A request to the tenant's own routes.
    pub(crate) fn request(&self, method: Method, rest: &[&str]) -> RequestBuilder {
        self.api.request(method, &self.path(rest))
    }

    /// The same without a time limit.
    pub(crate) fn unlimited(&self, method: Method, rest: &[&str]) -> RequestBuilder {
        self.api.unlimited(method, &self.path(rest))
    }

    fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let mut path = vec!["tenants", self.tenant.as_str()];
        path.extend(rest);
        path
    }

    /// Reads a resource of the tenant.
    pub(crate) async fn get(&self, rest: &[&str], what: &str) -> Outcome<Value> {
        self.api.resource(self.request(Method::GET, rest), what).await
    }

    /// Sends a body, `{}` if there is nothing to say, and reads the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        rest: &[&str],
        body: Option<&Value>,
        what: &str,
    ) -> Outcome<Value> {
        let request = self.request(method, rest);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.api.resource(request, what).await
    }

    /// Reads a whole collection, page by page.
    pub(crate) async fn all(
        &self,
        rest: &[&str],
        query: &[(&str, String)],
        what: &str,
    ) -> Outcome<Vec<Value>> {
        collect(&self.api, &self.path(rest), query, what).await
    }
}

/// Reads a whole collection, page by page.
pub(crate) async fn collect(
    api: &Api,
    segments: &[&str],
    query: &[(&str, String)],
    what: &str,
) -> Outcome<Vec<Value>> {
    let mut items = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut request = api.request(Method::GET, segments).query(query);
        if let Some(token) = &token {
            request = request.query(&[("pageToken", token)]);
        }
        let mut page = api.resource(request, what).await?;
        match page.get_mut("items").map(Value::take) {
            Some(Value::Array(more)) => items.extend(more),
            _ => return Err(strange(what, "the server answered something that is not a list")),
        }
        match text(&page, "/metadata/nextPageToken") {
            Some(next) if token.as_ref() != Some(&next) => token = Some(next),
            _ => return Ok(items),
        }
    }
}

/// A text in a resource, by JSON pointer.
pub(crate) fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// A cell of a table: what stands there, or a dash.
pub(crate) fn cell(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(yes)) => yes.to_string(),
        _ => "-".to_owned(),
    }
}

/// A moment as a cell.
pub(crate) fn moment(value: &Value, pointer: &str) -> String {
    output::or_dash(text(value, pointer).map(|at| output::moment(&at)))
}

/// `KEY=value` pairs as an object.
pub(crate) fn pairs(list: &[(String, String)]) -> Value {
    list.iter()
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Labels as a cell.
pub(crate) fn labels(value: &Value) -> String {
    let labels: Vec<String> = value
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if labels.is_empty() {
        "-".to_owned()
    } else {
        labels.join(",")
    }
}

/// Endpoints as a cell.
pub(crate) fn endpoints(value: &Value) -> String {
    let list: Vec<String> = value
        .pointer("/status/endpoints")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|endpoint| format!("{}:{}", cell(endpoint, "/host"), cell(endpoint, "/port")))
        .collect();
    if list.is_empty() {
        "-".to_owned()
    } else {
        list.join(",")
    }
}

/// What the conditions of a resource complain of, the newest first; for messages.
pub(crate) fn complaint(value: &Value) -> Option<String> {
    let conditions = value.pointer("/status/conditions")?.as_array()?;
    conditions
        .iter()
        .filter(|condition| condition.get("status").and_then(Value::as_str) == Some("False"))
        .filter_map(|condition| {
            let reason = text(condition, "/reason")?;
            let message = text(condition, "/message").unwrap_or_default();
            Some(if message.is_empty() {
                reason
            } else {
                format!("{reason}: {message}")
            })
        })
        .next()
}

/// Parses `KEY=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=value"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_of_a_resource() {
        let resource = json!({
            "metadata": { "labels": { "team": "search", "x": "y" } },
            "status": {
                "endpoints": [{ "host": "127.0.0.1", "port": 15000 }], "exitCode": null, "restartCount": 2,
                "conditions": [
                    { "type": "Admitted", "status": "True", "reason": "DefinitionValidated", "message": "" },
                    { "type": "Ready", "status": "False", "reason": "ImagePullFailed", "message": "no such image" },
                ],
            },
        });
        assert_eq!(labels(&resource), "team=search,x=y");
        assert_eq!(endpoints(&resource), "127.0.0.1:15000");
        assert_eq!(cell(&resource, "/status/exitCode"), "-");
        assert_eq!(cell(&resource, "/status/restartCount"), "2");
        assert_eq!(complaint(&resource).unwrap(), "ImagePullFailed: no such image");
        assert_eq!(
            (labels(&json!({})), complaint(&json!({}))),
            ("-".to_owned(), None)
        );
    }

    #[test]
    fn pairs_have_a_key() {
        assert_eq!(pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("A="), Ok(("A".to_owned(), String::new())));
        assert!(pair("A").is_err() && pair("=b").is_err());
    }
}
