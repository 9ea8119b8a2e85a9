//! Files inside sandboxes, for both ways to reach them: by a session, and straight by the sandbox.
//!
//! Paths are resolved inside the sandbox, by its init and as its user; nothing is looked at here.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use nimbus_bus::{AccessToken, BusStream};
use nimbus_errors::{Code, Fault};
use nimbus_guest::protocol::{Hello, Opened, Precondition, Range, Reply, Request};
use nimbus_guest::{Download, Upload};
use nimbus_proto::workloads::Through;

use crate::channel::{Channel, failure, unexpected};
use crate::envelope::{Answer, ApiError};
use crate::state::App;
use crate::views::workloads::file::{
    EntriesQuery, EntriesView, EntryView, MkdirBody, MoveBody, PathQuery, RemoveQuery, WriteQuery, flag,
    mode_of,
};

/// Largest file or archive that is written through here.
const LARGEST: u64 = 256 * 1024 * 1024;
/// Most entries of a directory in one answer.
const ENTRIES: i64 = 1000;

/// Whose files, on whose behalf.
pub(crate) struct Files {
    pub(crate) app: App,
    pub(crate) token: AccessToken,
    pub(crate) through: Through,
}

impl Files {
    async fn ask(self, request: Request) -> Result<Reply, Fault> {
        self.app.control(&self.token, self.through, request).await
    }

    async fn open(self, hello: Hello) -> Result<(Opened, Channel), Fault> {
        self.app
            .open_guest(&self.token, self.through, "files", hello)
            .await
    }

    pub(crate) async fn list(self, query: EntriesQuery) -> Answer<Json<EntriesView>> {
        let after = query.page_token.map(|token| {
            hex::decode(token)
                .ok()
                .and_then(|name| String::from_utf8(name).ok())
                .ok_or_else(|| {
                    ApiError::field(
                        "pageToken",
                        "pageToken: expected the nextPageToken of an earlier answer",
                    )
                })
        });
        let request = Request::List {
            path: query.path.clone(),
            after: after.transpose()?,
            limit: u32::try_from(query.limit.unwrap_or(ENTRIES).clamp(1, ENTRIES)).unwrap_or(1),
        };
        let Reply::Entries { entries, more } = self.ask(request).await? else {
            return Err(unexpected().into());
        };
        let next = entries
            .last()
            .filter(|_| more)
            .map(|last| hex::encode(&last.name));
        Ok(Json(EntriesView {
            entries: entries
                .into_iter()
                .map(|entry| EntryView::under(&query.path, entry))
                .collect(),
            next_page_token: next,
        }))
    }

    async fn entry(self, request: Request, path: &str) -> Answer<EntryView> {
        match self.ask(request).await? {
            Reply::Entry(entry) => Ok(EntryView::at(path, entry)),
            _ => Err(unexpected().into()),
        }
    }

    pub(crate) async fn stat(self, query: PathQuery) -> Answer<Json<EntryView>> {
        let request = Request::Stat {
            path: query.path.clone(),
            follow: false,
        };
        self.entry(request, &query.path).await.map(Json)
    }

    pub(crate) async fn mkdir(self, body: MkdirBody) -> Answer<(StatusCode, Json<EntryView>)> {
        let request = Request::Mkdir {
            path: body.path.clone(),
            mode: body.mode.map(|mode| mode.checked()).transpose()?,
            parents: body.create_parents,
        };
        let entry = self.entry(request, &body.path).await?;
        Ok((StatusCode::CREATED, Json(entry)))
    }

    pub(crate) async fn rename(self, body: MoveBody) -> Answer<Json<EntryView>> {
        let to = body.to.clone();
        let request = Request::Move {
            from: body.from,
            to: body.to,
            replace: body.replace,
        };
        self.entry(request, &to).await.map(Json)
    }

    pub(crate) async fn remove(self, query: RemoveQuery) -> Answer<StatusCode> {
        let request = Request::Remove {
            recursive: flag(query.recursive.as_deref(), "recursive")?,
            path: query.path,
        };
        self.ask(request).await?;
        Ok(StatusCode::NO_CONTENT)
    }

    pub(crate) async fn read(self, query: PathQuery, headers: &HeaderMap) -> Answer<Response> {
        let range = wanted(headers);
        let hello = Hello::ReadFile {
            path: query.path,
            range,
        };
        let (opened, channel) = self.open(hello).await?;
        let Opened::Content(content) = opened else {
            return Err(unexpected().into());
        };
        let tag = format!("\"{}\"", content.entry.etag);
        if matches_tag(headers, &tag) {
            let tag = HeaderValue::from_str(&tag).map_err(|_| unexpected())?;
            return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
        }
        let (offset, length, size) = (content.offset, content.length, content.entry.size);
        let status = if range == Range::All {
            StatusCode::OK
        } else {
            StatusCode::PARTIAL_CONTENT
        };
        let download = Download::new(channel.stream, Some(content));
        let mut response = (status, body_of(download)).into_response();
        let mut set = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        };
        set(ETAG, tag);
        set(CONTENT_LENGTH, length.to_string());
        set(ACCEPT_RANGES, "bytes".to_owned());
        if status == StatusCode::PARTIAL_CONTENT {
            let last = offset.saturating_add(length).saturating_sub(1);
            set(CONTENT_RANGE, format!("bytes {offset}-{last}/{size}"));
        }
        foreign(&mut set, "application/octet-stream");
        Ok(response)
    }

    pub(crate) async fn write(self, query: WriteQuery, headers: &HeaderMap, body: Body) -> Answer<Response> {
        fits(headers)?;
        let path = query.path;
        let hello = Hello::WriteFile {
            path: path.clone(),
            mode: query.mode.as_deref().map(mode_of).transpose()?,
            create_parents: flag(query.create_parents.as_deref(), "createParents")?,
            must: precondition(headers)?,
        };
        let (created, entry) = self.upload(hello, &path, body).await?;
        let tag = format!("\"{}\"", entry.etag);
        let status = if created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok((status, [(ETAG, tag)], Json(entry)).into_response())
    }

    pub(crate) async fn pack(self, query: PathQuery) -> Answer<Response> {
        let (opened, channel) = self.open(Hello::TarOut { path: query.path }).await?;
        if opened != Opened::Ready {
            return Err(unexpected().into());
        }
        let mut response = body_of(Download::new(channel.stream, None)).into_response();
        let mut set = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        };
        foreign(&mut set, "application/x-tar");
        Ok(response)
    }

    pub(crate) async fn unpack(
        self,
        query: PathQuery,
        headers: &HeaderMap,
        body: Body,
    ) -> Answer<Json<EntryView>> {
        fits(headers)?;
        let path = query.path;
        let hello = Hello::TarIn { path: path.clone() };
        let (_, entry) = self.upload(hello, &path, body).await?;
        Ok(Json(entry))
    }

    /// Sends the body. Whatever goes wrong before its end, nothing of a file is in place.
    async fn upload(self, hello: Hello, path: &str, body: Body) -> Answer<(bool, EntryView)> {
        let (opened, channel) = self.open(hello).await?;
        if opened != Opened::Ready {
            return Err(unexpected().into());
        }
        let handle = channel.stream.handle();
        let mut upload = Upload::new(channel.stream);
        let mut body = body.into_data_stream();
        let mut sent = 0_u64;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| ApiError::new(Code::OpInvalidInput, "the body broke off"))?;
            sent = sent.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if sent > LARGEST {
                return Err(too_large());
            }
            if upload.send(piece).await.is_err() {
                // Why it does not take more is its last word.
                break;
            }
        }
        let written = upload.finish().await.map_err(|error| failure(error, &handle))?;
        Ok((written.created, EntryView::at(path, written.entry)))
    }
}

fn too_large() -> ApiError {
    Fault::new(
        Code::OpPayloadTooLarge,
        format!("the body has more than {LARGEST} bytes"),
    )
    .with_detail(&serde_json::json!({ "limitBytes": LARGEST }))
    .into()
}

/// Refuses a body that says itself that it is too large.
fn fits(headers: &HeaderMap) -> Answer<()> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > LARGEST => Err(too_large()),
        _ => Ok(()),
    }
}

/// What comes out of a sandbox is nothing that a browser may show as a page of ours.
fn foreign(set: &mut impl FnMut(HeaderName, String), kind: &str) {
    set(CONTENT_TYPE, kind.to_owned());
    set(CONTENT_DISPOSITION, "attachment".to_owned());
}

fn body_of(download: Download<BusStream>) -> Body {
    Body::from_stream(stream::try_unfold(download, |mut download| async move {
        match download.next().await {
            Ok(Some(bytes)) => Ok(Some((bytes, download))),
            Ok(None) => Ok(None),
            // The body breaks off before its length, or without its last chunk.
            Err(error) => Err(io::Error::other(Arc::new(error))),
        }
    }))
}

/// The part that `Range` asks for (RFC 9110, section 14.2); one part only, and all of it where we
/// would have to look first whether the client's part is still of this file.
pub(crate) fn wanted(headers: &HeaderMap) -> Range {
    if headers.contains_key(IF_RANGE) {
        return Range::All;
    }
    let text = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let part = text.and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = part.and_then(|part| part.split_once('-')) else {
        return Range::All;
    };
    let range = match (first.trim(), last.trim()) {
        ("", last) => last.parse().ok().map(Range::Last),
        (first, "") => first
            .parse()
            .ok()
            .map(|offset| Range::From { offset, length: None }),
        (first, last) => match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(offset), Ok(last)) if last >= offset => Some(Range::From {
                offset,
                length: Some((last - offset).saturating_add(1)),
            }),
            _ => None,
        },
    };
    range.unwrap_or(Range::All)
}

fn tags(value: &HeaderValue) -> Vec<String> {
    let text = value.to_str().unwrap_or_default();
    text.split(',')
        .map(|tag| tag.trim().trim_start_matches("W/").to_owned())
        .collect()
}

/// Whether `If-None-Match` names this tag.
pub(crate) fn matches_tag(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get(IF_NONE_MATCH)
        .is_some_and(|value| tags(value).iter().any(|known| known == tag || known == "*"))
}

/// What must be true of the file that is there (RFC 9110, section 13.1).
fn precondition(headers: &HeaderMap) -> Answer<Precondition> {
    let bare = |value: &HeaderValue| -> Vec<String> {
        tags(value)
            .into_iter()
            .map(|tag| tag.trim_matches('"').to_owned())
            .collect()
    };
    let is_any = |value: &HeaderValue| value.as_bytes() == b"*";
    match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some(value), None) if is_any(value) => Ok(Precondition::Present),
        (Some(value), None) => Ok(Precondition::Match(bare(value))),
        (None, Some(value)) if is_any(value) => Ok(Precondition::Absent),
        (None, Some(value)) => Ok(Precondition::NoneMatch(bare(value))),
        (Some(_), Some(_)) => Err(ApiError::field(
            "If-Match",
            "If-Match: not together with If-None-Match",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn one_part_is_served_and_everything_else_is_the_whole() {
        let from = |offset, length| Range::From { offset, length };
        for (text, range) in [
            ("bytes=0-99", from(0, Some(100))),
            ("bytes=5-", from(5, None)),
            ("bytes=-7", Range::Last(7)),
            ("bytes=9-3", Range::All),
            ("bytes=0-1,5-6", Range::All),
            ("lines=1-2", Range::All),
        ] {
            assert_eq!(wanted(&headers(&[(RANGE, text)])), range, "{text}");
        }
        assert_eq!(
            wanted(&headers(&[(RANGE, "bytes=5-"), (IF_RANGE, "\"x\"")])),
            Range::All
        );
    }

    #[test]
    fn preconditions_are_those_of_http() {
        let of = |pairs: &[(HeaderName, &'static str)]| precondition(&headers(pairs));
        assert_eq!(of(&[]).unwrap(), Precondition::None);
        assert_eq!(of(&[(IF_MATCH, "*")]).unwrap(), Precondition::Present);
        assert_eq!(of(&[(IF_NONE_MATCH, "*")]).unwrap(), Precondition::Absent);
        assert_eq!(
            of(&[(IF_MATCH, "\"a\", W/\"b\"")]).unwrap(),
            Precondition::Match(vec!["a".into(), "b".into()])
        );
        assert!(of(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")]).is_err());
    }

    #[test]
    fn a_body_that_says_it_is_too_large_is_not_read() {
        let refused = fits(&headers(&[(CONTENT_LENGTH, "268435457")])).unwrap_err();
        assert!(refused.fault().is(Code::OpPayloadTooLarge));
        assert!(fits(&headers(&[(CONTENT_LENGTH, "268435456")])).is_ok());
    }
}
