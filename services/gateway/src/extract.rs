//! What handlers take: strict bodies and parameters, checked senders.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use nimbus_bus::{Key, Scope};
use nimbus_errors::{Code, Fault};
use nimbus_model::Hostname;
use serde::de::DeserializeOwned;

use crate::access::{Credential, Origin, Presented, for_machines};
use crate::config::limits::{BODY_BYTES, BODY_READ};
use crate::envelope::{Answer, ApiError, request_id};
use crate::principals::Principal;
use crate::state::App;

/// A JSON body; unknown fields are refused by name.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(
                Code::OpUnsupportedMediaType,
                "the body has to be application/json",
            ));
        }
        parse(&bytes_of(request).await?).map(Self)
    }
}

/// A JSON body that may be left out; unknown fields are refused by name.
pub(crate) struct Lenient<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for Lenient<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        let typed = is_json(request.headers());
        let bytes = bytes_of(request).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if !typed {
            return Err(ApiError::new(
                Code::OpUnsupportedMediaType,
                "the body has to be application/json",
            ));
        }
        parse(&bytes).map(Self)
    }
}

/// A body without fields.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// What makes a repeat of this request the same request: the client's `Idempotency-Key`, else the
/// request itself, which the bus may send twice.
pub(crate) struct Once(pub(crate) Key);

impl FromRequestParts<App> for Once {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self(Key::of(request_id())));
        };
        value
            .to_str()
            .ok()
            .filter(|text| {
                (1..=LONGEST_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
            })
            .map(|text| Self(Key::new(text)))
            .ok_or_else(|| {
                ApiError::field(
                    "Idempotency-Key",
                    format!("Idempotency-Key: expected 1 to {LONGEST_KEY} visible ASCII characters"),
                )
            })
    }
}

/// Longest `Idempotency-Key`.
const LONGEST_KEY: usize = 128;

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        malformed(&path, &plain(&error.into_inner().to_string()))
    })?;
    json.end()
        .map_err(|error| malformed(".", &plain(&error.to_string())))?;
    Ok(value)
}

fn is_json(headers: &http::HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// The whole body, whatever it is.
pub(crate) async fn bytes_of(request: Request) -> Answer<bytes::Bytes> {
    let body = Limited::new(request.into_body(), BODY_BYTES);
    match tokio::time::timeout(BODY_READ, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Fault::new(
            Code::OpPayloadTooLarge,
            format!("the body has more than {BODY_BYTES} bytes"),
        )
        .with_detail(&serde_json::json!({ "limitBytes": BODY_BYTES }))
        .into()),
        Ok(Err(_)) => Err(ApiError::new(Code::OpInvalidInput, "the body broke off")),
        Err(_) => Err(ApiError::new(
            Code::OpCancelled,
            format!("the body was not complete after {} s", BODY_READ.as_secs()),
        )),
    }
}

/// serde's message without its place in the text, which the field's name says better.
fn plain(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

/// The refusal of a value. `path` is where it stands, as `serde_path_to_error` writes it.
fn malformed(path: &str, message: &str) -> ApiError {
    // A field that is missing or unknown is named in the message; the path ends at its parent.
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let parent = if matches!(path, "." | "?") { "" } else { path };
    let field = match named {
        Some(name) if parent.is_empty() || parent == name || parent.ends_with(&format!(".{name}")) => {
            if parent.is_empty() {
                name.to_owned()
            } else {
                parent.to_owned()
            }
        }
        Some(name) => format!("{parent}.{name}"),
        None => parent.to_owned(),
    };
    if field.is_empty() {
        ApiError::new(
            Code::OpInvalidInput,
            format!("the body cannot be read: {message}"),
        )
    } else {
        ApiError::field(&field, format!("{field}: {message}"))
    }
}

/// The query, into a struct that refuses unknown fields.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs)
            .map(Self)
            .map_err(|error| {
                let path = error.path().to_string();
                malformed(&path, &error.into_inner().to_string())
            })
    }
}

/// The `{id}` of the path.
pub(crate) struct Id<T>(pub(crate) T);

impl<T> FromRequestParts<App> for Id<T>
where
    T: FromStr + Send,
    T::Err: std::fmt::Display,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &App) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::field("id", "the path cannot be read"))?;
        text.parse()
            .map(Self)
            .map_err(|error: T::Err| ApiError::field("id", error.to_string()))
    }
}

/// A signed-in sender.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) principal: Arc<Principal>,
    pub(crate) credential: Credential,
}

impl FromRequestParts<App> for Signed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match parts.extensions.get::<Presented>() {
            Some(Presented::Credential(credential)) => {
                let principal = app.principals.find(credential).await?;
                if principal.identity.machine.is_some() {
                    for_machines(parts.uri.path())?;
                }
                tracing::Span::current().record("user.id", tracing::field::display(principal.identity.user));
                Ok(Self {
                    principal,
                    credential: credential.clone(),
                })
            }
            Some(Presented::Malformed) => Err(ApiError::unauthorized("the credential is not one of ours")),
            _ => Err(ApiError::unauthorized("Not authenticated")),
        }
    }
}

impl Signed {
    /// Refuses a credential that does not allow this.
    pub(crate) fn require(&self, scope: Scope) -> Answer<()> {
        if self.principal.identity.may(scope) {
            return Ok(());
        }
        let message = format!("the credential does not allow {}", scope.as_str());
        let detail = serde_json::json!({ "scope": scope.as_str() });
        Err(Fault::new(Code::AuthPermissionDenied, message)
            .with_detail(&detail)
            .into())
    }
}

/// A signed-in sender who may use GPUs: a person, a script of theirs, or one of their machines.
pub(crate) struct Gpu(pub(crate) Signed);

impl FromRequestParts<App> for Gpu {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let signed = Signed::from_request_parts(parts, app).await?;
        signed.require(Scope::Gpu)?;
        Ok(Self(signed))
    }
}

impl Gpu {
    /// Refuses machines: what concerns more than their own jobs is for people.
    pub(crate) fn person(&self) -> Answer<()> {
        if self.0.principal.identity.machine.is_none() {
            return Ok(());
        }
        Err(ApiError::new(
            Code::AuthPermissionDenied,
            "the token of a machine is for its own jobs and for models only",
        ))
    }
}

/// A signed-in administrator.
pub(crate) struct Admin(pub(crate) Signed);

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let signed = Signed::from_request_parts(parts, app).await?;
        if signed.principal.identity.may(Scope::Admin) {
            Ok(Self(signed))
        } else {
            Err(ApiError::new(Code::AuthPermissionDenied, "Admin access required"))
        }
    }
}

/// Where the request comes from.
impl FromRequestParts<App> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let origin = parts.extensions.get::<Self>().copied();
        origin.ok_or_else(|| ApiError::new(Code::ServiceInternal, "the request has no origin"))
    }
}

/// The name of a host or a box, wherever it was given.
pub(crate) fn name_of(field: &str, name: &str) -> Answer<Hostname> {
    name.parse()
        .map_err(|error| ApiError::field(field, format!("{field}: {error}")))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its place in the error is looked at")]
        inner: Inner,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its place in the error is looked at")]
        count: u8,
    }

    fn field_of(text: &str) -> Option<String> {
        let mut json = serde_json::Deserializer::from_str(text);
        let error = serde_path_to_error::deserialize::<_, Outer>(&mut json).unwrap_err();
        let path = error.path().to_string();
        let refused = malformed(&path, &plain(&error.into_inner().to_string()));
        Some(refused.fault().detail_json()?["field"].as_str()?.to_owned())
    }

    #[test]
    fn refusals_name_the_field_wherever_it_stands() {
        for (text, field) in [
            (r#"{"inner":{"count":"x"}}"#, Some("inner.count")),
            (r#"{"inner":{"count":1,"colour":2}}"#, Some("inner.colour")),
            (r#"{"outer":1}"#, Some("outer")),
            (r#"{"inner":{}}"#, Some("inner.count")),
            (r#"{}"#, Some("inner")),
            (r#"[]"#, None),
            ("{", None),
        ] {
            assert_eq!(field_of(text).as_deref(), field, "{text}");
        }
    }
}
