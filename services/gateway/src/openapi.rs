//! The OpenAPI document, generated from the handlers.

use std::collections::HashMap;

use http::Method;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response,
};

use crate::access::COOKIE_NAME;
use crate::envelope::{ErrorEnvelope, Face, Failure, FaultView, OpenAiEnvelope, OpenAiError, Remediation};

/// The document of this server.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = crate::routes::router().into_openapi();
    // The rest of a path is one parameter to OpenAPI.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect();
    for (path, item) in &mut document.paths.paths {
        let face = Face::of(path);
        let operations = [
            (Method::GET, &mut item.get),
            (Method::POST, &mut item.post),
            (Method::PUT, &mut item.put),
            (Method::PATCH, &mut item.patch),
            (Method::DELETE, &mut item.delete),
            (Method::OPTIONS, &mut item.options),
            (Method::HEAD, &mut item.head),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            if let Some(id) = &mut operation.operation_id
                && id.ends_with('.')
            {
                // One handler for several methods: each is an operation of its own.
                id.push_str(&method.as_str().to_lowercase());
            }
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    finish(response, face);
                }
            }
        }
    }
    document
}

/// What the macros cannot know of an answer.
fn finish(response: &mut Response, face: Face) {
    if response.description.is_empty() {
        // OpenAPI 3.1 wants one of every answer.
        "What was asked for.".clone_into(&mut response.description);
    }
    let envelope = match face {
        Face::Workloads => Some("ErrorEnvelope"),
        Face::OpenAi => Some("OpenAiEnvelope"),
        Face::Machines | Face::Text => None,
    };
    if let Some(envelope) = envelope {
        for content in response.content.values_mut() {
            if let RefOr::T(content) = content
                && let Some(RefOr::Ref(schema)) = &mut content.schema
                && schema.ref_location.ends_with("/Failure")
            {
                *schema = Ref::from_schema_name(envelope);
            }
        }
    }
}

/// What the routes' documentation is added to.
pub(crate) fn frame() -> OpenApi {
    let session = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
        COOKIE_NAME,
        "The portal's session.",
    )));
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A personal access token `nbp_…`, an API key `nimbus_ak_…`, the admin token `nimbus_at_…`, or the token of a machine `nbv_…`, which opens `/api/gpu` only.",
        ))
        .build();
    let worker = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("What a GPU box was given when it was paired."))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Nimbus")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "Machines, accounts and operations answer `{\"success\":true,\"data\":…}` or `{\"success\":false,\"error\":…,\"fault\":…}`; \
                     tenants, services, sandboxes and sessions answer the bare resource or `{\"error\":{…}}`. Health, readiness, metrics \
                     and streams have shapes of their own. Unknown fields and query parameters are refused by name. \
                     The codes of failures are listed by `GET /api/errors`.",
                ))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build())),
        )
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme("session", session)
                .security_scheme("token", SecurityScheme::Http(token))
                .security_scheme("worker", SecurityScheme::Http(worker))
                .schema_from::<Failure>()
                .schema_from::<ErrorEnvelope>()
                .schema_from::<OpenAiEnvelope>()
                .schema_from::<OpenAiError>()
                .schema_from::<FaultView>()
                .schema_from::<Remediation>()
                .build(),
        ))
        .build()
}

/// The document as text, the way it is checked in and served.
pub(crate) fn text(document: &OpenApi) -> String {
    // A tree of plain values: nothing in it can fail to become JSON.
    serde_json::to_string_pretty(document).unwrap_or_default() + "\n"
}

/// The operations of a path.
pub(crate) fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    [
        (Method::GET, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
        (Method::OPTIONS, &item.options),
        (Method::HEAD, &item.head),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// The names of the query parameters of each route.
pub(crate) fn query_parameters(document: &OpenApi) -> HashMap<(Method, String), Vec<String>> {
    let mut names = HashMap::new();
    for (path, item) in &document.paths.paths {
        for (method, operation) in operations(item) {
            let parameters = operation.parameters.iter().flatten();
            let query = parameters.filter_map(|parameter| match parameter {
                RefOr::T(p) if p.parameter_in == ParameterIn::Query => Some(p.name.clone()),
                _ => None,
            });
            names.insert((method, path.clone()), query.collect());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_one_that_is_checked_in() {
        let now = text(&document());
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/openapi.json");
        if std::env::var_os("NIMBUS_GENERATE").is_some() {
            std::fs::write(&path, &now).expect("the source tree is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == now,
            "proto/openapi.json is not what the code says: run `make generate`, and read the difference as a change of the contract"
        );
    }

    #[test]
    fn every_operation_says_what_it_does_and_has_a_name_of_its_own() {
        let document = document();
        let mut seen = std::collections::BTreeSet::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in operations(item) {
                let id = operation.operation_id.clone().unwrap_or_default();
                assert!(
                    !id.is_empty() && seen.insert(id),
                    "{method} {path} has no name of its own"
                );
                assert!(
                    operation.summary.as_ref().is_some_and(|s| !s.is_empty()),
                    "{method} {path} has no summary"
                );
                assert!(
                    operation.tags.as_ref().is_some_and(|t| t.len() == 1),
                    "{method} {path} has no group"
                );
            }
        }
    }

    /// Two types of one name would be one schema, whichever comes last.
    #[test]
    fn every_schema_has_a_name_of_its_own() {
        let mut open = vec![std::path::PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src"
        ))];
        let mut seen = std::collections::BTreeMap::new();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).expect("the sources are there");
                open.extend(entries.map(|entry| entry.expect("and can be read").path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("sources are text");
            let mut is_schema = false;
            for line in text
                .lines()
                .map(|line| line.trim().trim_start_matches("pub(crate) "))
            {
                if line.starts_with("#[derive(") {
                    is_schema = line.contains("ToSchema");
                }
                let named = line
                    .strip_prefix("struct ")
                    .or_else(|| line.strip_prefix("enum "));
                if let Some(rest) = named.filter(|_| is_schema) {
                    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
                    let before = seen.insert(rest[..end].to_owned(), path.clone());
                    assert_eq!(before, None, "{} is also in {}", &rest[..end], path.display());
                    is_schema = false;
                }
            }
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }
}
