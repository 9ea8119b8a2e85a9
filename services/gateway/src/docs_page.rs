//! The OpenAPI document as a page to read. Rendered here, without scripts.

use std::fmt::Write;

use serde_json::Value;
use utoipa::openapi::OpenApi;

use crate::openapi::operations;

/// The page's style sheet; inline styles are not allowed by the content security policy.
pub(crate) const STYLE: &str = include_str!("docs_page.css");

/// The page.
pub(crate) fn page(document: &OpenApi) -> String {
    let json = serde_json::to_value(document).unwrap_or_default();
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (path, item) in &document.paths.paths {
        for (method, operation) in operations(item) {
            let tag = operation
                .tags
                .iter()
                .flatten()
                .next()
                .cloned()
                .unwrap_or_default();
            let pointer = format!(
                "/paths/{}/{}",
                path.replace('~', "~0").replace('/', "~1"),
                method.as_str().to_lowercase()
            );
            let text = json
                .pointer(&pointer)
                .map(|op| section(method.as_str(), path, op))
                .unwrap_or_default();
            match groups.iter_mut().find(|(name, _)| *name == tag) {
                Some((_, sections)) => sections.push(text),
                None => groups.push((tag, vec![text])),
            }
        }
    }
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>Nimbus API</title>\
         <link rel=\"stylesheet\" href=\"/api/docs.css\"></head><body><main><h1>Nimbus API</h1>",
    );
    let about = json
        .pointer("/info/description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<p>{}</p><p>For programs: <a href=\"/api/openapi.json\">openapi.json</a>. Codes: <a href=\"/api/errors\">errors</a>.</p><nav><ul>",
        prose(about)
    );
    for (tag, _) in &groups {
        let _ = write!(page, "<li><a href=\"#{0}\">{0}</a></li>", escape(tag));
    }
    page.push_str("</ul></nav>");
    for (tag, sections) in &groups {
        let _ = write!(page, "<h2 id=\"{0}\">{0}</h2>{1}", escape(tag), sections.concat());
    }
    page.push_str("<h2 id=\"shapes\">Shapes</h2>");
    for (name, schema) in json
        .pointer("/components/schemas")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let _ = write!(
            page,
            "<section id=\"shape-{0}\"><h3>{0}</h3>{1}</section>",
            escape(name),
            shape(schema)
        );
    }
    page.push_str("</main></body></html>");
    page
}

fn section(method: &str, path: &str, operation: &Value) -> String {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut out = format!(
        "<section id=\"{0}\"><h3><b>{method}</b> <code>{1}</code></h3><p>{2}</p>",
        escape(text("operationId")),
        escape(path),
        prose(text("summary"))
    );
    if !text("description").is_empty() {
        let _ = write!(out, "<p>{}</p>", prose(text("description")));
    }
    let security = operation
        .get("security")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    out.push_str(if security == 0 {
        "<p class=\"note\">Public.</p>"
    } else {
        "<p class=\"note\">Needs a session or a token.</p>"
    });
    let parameters = operation
        .get("parameters")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if !parameters.is_empty() {
        out.push_str(
            "<table><thead><tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr></thead><tbody>",
        );
        for parameter in parameters {
            let text = |key: &str| parameter.get(key).and_then(Value::as_str).unwrap_or_default();
            let kind = parameter.get("schema").map(kind).unwrap_or_default();
            let _ = write!(
                out,
                "<tr><td><code>{}</code></td><td>{}</td><td>{kind}</td><td>{}</td></tr>",
                escape(text("name")),
                escape(text("in")),
                prose(text("description"))
            );
        }
        out.push_str("</tbody></table>");
    }
    for (media, content) in operation
        .pointer("/requestBody/content")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let kind = content.get("schema").map(kind).unwrap_or_default();
        let _ = write!(
            out,
            "<p>Body: {kind} <span class=\"note\">{}</span></p>",
            escape(media)
        );
    }
    out.push_str("<table><thead><tr><th>Answer</th><th>Body</th><th></th></tr></thead><tbody>");
    for (status, response) in operation
        .get("responses")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let bodies = response
            .get("content")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let bodies: Vec<_> = bodies
            .map(|(media, content)| content.get("schema").map_or_else(|| escape(media), kind))
            .collect();
        let about = response
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(status),
            bodies.join(", "),
            prose(about)
        );
    }
    out.push_str("</tbody></table></section>");
    out
}

fn shape(schema: &Value) -> String {
    let about = schema
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut out = format!("<p>{}</p>", prose(about));
    let required: Vec<_> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let parts: Vec<_> = schema
        .get("allOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    for part in &parts {
        if part.get("$ref").is_some() {
            let _ = write!(out, "<p>All of {}, and:</p>", kind(part));
        }
    }
    let fields = std::iter::once(schema)
        .chain(parts)
        .filter_map(|s| s.get("properties").and_then(Value::as_object))
        .flatten();
    let rows: String = fields
        .map(|(name, field)| {
            let about = field
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let needed = if required.contains(&name.as_str()) {
                ""
            } else {
                " <span class=\"note\">optional</span>"
            };
            format!(
                "<tr><td><code>{}</code>{needed}</td><td>{}</td><td>{}</td></tr>",
                escape(name),
                kind(field),
                prose(about)
            )
        })
        .collect();
    if !rows.is_empty() {
        let _ = write!(out, "<table><tbody>{rows}</tbody></table>");
    }
    out
}

/// A schema in a few words, with a link when it has a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| r.rsplit('/').next())
    {
        return format!("<a href=\"#shape-{0}\">{0}</a>", escape(name));
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(several) = schema.get(key).and_then(Value::as_array) {
            return several.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        let names: Vec<_> = names
            .iter()
            .filter_map(Value::as_str)
            .map(|n| format!("<code>{}</code>", escape(n)))
            .collect();
        return names.join(", ");
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    match schema.get("type") {
        Some(Value::String(name)) => escape(name),
        Some(Value::Array(names)) => escape(
            &names
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" or "),
        ),
        _ => "any".to_owned(),
    }
}

/// Text with `code` marked.
fn prose(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split('`').enumerate() {
        let part = escape(part);
        if at % 2 == 1 {
            let _ = write!(out, "<code>{part}</code>");
        } else {
            out.push_str(&part);
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_and_shape_is_on_the_page_and_links_lead_somewhere() {
        let document = crate::openapi::document();
        let page = page(&document);
        for path in document.paths.paths.keys() {
            assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
        }
        for link in page
            .split("href=\"#")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            assert!(page.contains(&format!("id=\"{link}\"")), "{link} leads nowhere");
        }
        assert!(!page.contains("<script"));
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(prose("a `<b>` & c"), "a <code>&lt;b&gt;</code> &amp; c");
    }
}
