//! `nimbus sandbox cp`: files and folders in and out.

use std::io::{Read, Write};

use camino::{Utf8Path, Utf8PathBuf};
use futures::TryStreamExt;
use nimbus_errors::Code;
use reqwest::{Body, Method};
use serde_json::Value;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use crate::client::workloads::{Workloads, text};
use crate::output;
use crate::problem::{Outcome, Problem};

/// What is on the way between the thread that packs and the connection.
const PIPE: usize = 256 * 1024;

/// Copy files or folders into a sandbox, or out of it.
///
/// One of the two is `SANDBOX:/PATH`. A folder that is there gets the copy inside of it; `-` is stdin or
/// stdout.
#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// What to copy.
    #[arg(value_name = "FROM")]
    from: String,
    /// Where to.
    #[arg(value_name = "TO")]
    to: String,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Here(Utf8PathBuf),
    Pipe,
    There { id: String, path: String },
}

impl Place {
    fn parse(text: &str) -> Self {
        if text == "-" {
            return Self::Pipe;
        }
        match text.split_once(':') {
            // A local path with a colon is written with a folder in front.
            Some((id, path)) if !id.is_empty() && !id.contains(['/', '.']) && path.starts_with('/') => {
                Self::There {
                    id: id.to_owned(),
                    path: path.to_owned(),
                }
            }
            _ => Self::Here(text.into()),
        }
    }
}

pub(crate) async fn run(workloads: &Workloads, args: CopyArgs) -> Outcome {
    match (Place::parse(&args.from), Place::parse(&args.to)) {
        (Place::There { id, path }, to @ (Place::Here(_) | Place::Pipe)) => {
            let there = Remote { workloads, id, path };
            fetch(&there, &to).await
        }
        (from @ (Place::Here(_) | Place::Pipe), Place::There { id, path }) => {
            let there = Remote { workloads, id, path };
            bring(&from, &there).await
        }
        _ => Err(Problem::usage(
            "one of the two has to be SANDBOX:/PATH, and only one",
        )),
    }
}

struct Remote<'a> {
    workloads: &'a Workloads,
    id: String,
    path: String,
}

impl Remote<'_> {
    fn told(&self) -> String {
        format!("{}:{}", self.id, self.path)
    }

    fn request(&self, method: Method, kind: &str, path: &str) -> reqwest::RequestBuilder {
        self.workloads
            .unlimited(method, &["sandboxes", &self.id, "files", kind])
            .query(&[("path", path)])
    }

    /// What is at the path; none if nothing is.
    async fn kind(&self) -> Outcome<Option<String>> {
        let what = format!("could not look at {}", self.told());
        let request = self.request(Method::GET, "stat", &self.path);
        match self.workloads.api.resource(request, &what).await {
            Ok(entry) => Ok(text(&entry, "/type")),
            Err(problem) if problem.is(Code::OpNotFound) => {
                // Nothing there, or no such sandbox: the next request tells.
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    }

    /// The path, or one inside of it where it is a folder.
    fn within(&self, is_folder: bool, name: Option<&str>) -> String {
        let path = self.path.trim_end_matches('/');
        match name {
            Some(name) if is_folder || self.path.ends_with('/') => format!("{path}/{name}"),
            _ if path.is_empty() => "/".to_owned(),
            _ => path.to_owned(),
        }
    }
}

fn failed(what: String) -> impl Fn(std::io::Error) -> Problem {
    move |error| Problem::failed(what.clone()).because(&error)
}

/// Out of a sandbox.
async fn fetch(from: &Remote<'_>, to: &Place) -> Outcome {
    let what = format!("could not copy {}", from.told());
    let kind = from.kind().await?;
    let is_folder = kind.as_deref() == Some("dir");
    let request = from.request(
        Method::GET,
        if is_folder { "archive" } else { "content" },
        &from.path,
    );
    let response = from.workloads.api.reach(request, &what).await?;
    let body = response.bytes_stream().map_err(std::io::Error::other);
    let mut reader = StreamReader::new(Box::pin(body));
    let name = Utf8Path::new(&from.path).file_name();
    let target = match to {
        Place::Here(path) if path.is_dir() => path.join(name.unwrap_or_default()),
        Place::Here(path) => path.clone(),
        // A folder becomes a tar archive there.
        Place::Pipe | Place::There { .. } => {
            let mut chunk = vec![0_u8; PIPE];
            loop {
                let length = tokio::io::AsyncReadExt::read(&mut reader, &mut chunk)
                    .await
                    .map_err(failed(what.clone()))?;
                if length == 0 {
                    return Ok(());
                }
                crate::client::stdio::show(true, chunk.get(..length).unwrap_or_default())?;
            }
        }
    };
    let bridge = SyncIoBridge::new(reader);
    let written = tokio::task::spawn_blocking(move || unpack(bridge, &target, is_folder)).await;
    written
        .map_err(|_| Problem::failed(what.clone()).why("the thread that writes was lost"))?
        .map_err(failed(what))
}

fn unpack(mut reader: impl Read, target: &Utf8Path, is_folder: bool) -> std::io::Result<()> {
    if is_folder {
        std::fs::create_dir_all(target)?;
        // Names that lead out of the folder are skipped by the archive's reader.
        return tar::Archive::new(reader).unpack(target);
    }
    // As a whole or not at all.
    let part = Utf8PathBuf::from(format!("{target}.{}.part", std::process::id()));
    let written = std::fs::File::create_new(&part).and_then(|mut file| {
        std::io::copy(&mut reader, &mut file)?;
        file.flush()
    });
    match written.and_then(|()| std::fs::rename(&part, target)) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            Err(error)
        }
    }
}

/// Into a sandbox.
async fn bring(from: &Place, to: &Remote<'_>) -> Outcome {
    let what = format!("could not copy to {}", to.told());
    let (source, name) = match from {
        Place::Here(path) => {
            let name = path
                .canonicalize_utf8()
                .map_err(failed(format!("could not read {path}")))?
                .file_name()
                .map(str::to_owned);
            (Some(path.clone()), name)
        }
        _ => (None, None),
    };
    let is_folder_there = to.kind().await?.as_deref() == Some("dir");
    let target = to.within(is_folder_there, name.as_deref());
    let is_folder_here = source.as_ref().is_some_and(|path| path.is_dir());
    let request = if is_folder_here {
        let (writer, reader) = tokio::io::duplex(PIPE);
        let bridge = SyncIoBridge::new(writer);
        let folder = source.clone().unwrap_or_default();
        // A failure here breaks the archive off, and the other side refuses it.
        let packing = tokio::task::spawn_blocking(move || pack(bridge, &folder));
        let request = to
            .request(Method::PUT, "archive", &target)
            .header(reqwest::header::CONTENT_TYPE, "application/x-tar")
            .body(Body::wrap_stream(ReaderStream::with_capacity(reader, 64 * 1024)));
        let answer = to.workloads.api.resource(request, &what).await;
        let packed = packing
            .await
            .map_err(|_| Problem::failed(what.clone()).why("the thread that reads was lost"))?;
        return match (packed, answer) {
            (Err(error), Err(_)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(failed(what)(error))
            }
            (_, answer) => answer.map(|_| ()),
        };
    } else {
        let request = to
            .request(Method::PUT, "content", &target)
            .query(&[("createParents", "1")])
            .header(reqwest::header::CONTENT_TYPE, "application/octet-stream");
        match &source {
            Some(path) => {
                let file = tokio::fs::File::open(path)
                    .await
                    .map_err(failed(format!("could not read {path}")))?;
                let about = file
                    .metadata()
                    .await
                    .map_err(failed(format!("could not read {path}")))?;
                let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777;
                request
                    .query(&[("mode", format!("{mode:04o}"))])
                    .header(reqwest::header::CONTENT_LENGTH, about.len())
                    .body(Body::wrap_stream(ReaderStream::with_capacity(file, 64 * 1024)))
            }
            None => {
                let input = crate::client::terminal::input();
                let stream = futures::stream::unfold(input, |mut input| async move {
                    let chunk = input.recv().await?;
                    Some((Ok::<_, std::io::Error>(chunk), input))
                });
                request.body(Body::wrap_stream(stream))
            }
        }
    };
    let entry: Value = to.workloads.api.resource(request, &what).await?;
    if let Some(size) = entry.get("size").and_then(Value::as_u64) {
        output::say(format_args!("{size} bytes to {}:{target}", to.id));
    }
    Ok(())
}

fn pack(writer: impl Write, folder: &Utf8Path) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(writer);
    archive.follow_symlinks(false);
    archive.append_dir_all(".", folder)?;
    archive.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let there = |id: &str, path: &str| Place::There {
            id: id.into(),
            path: path.into(),
        };
        assert_eq!(Place::parse("box-01:/tmp/x"), there("box-01", "/tmp/x"));
        assert_eq!(Place::parse("-"), Place::Pipe);
        for here in ["/tmp/a:/b", "./a:/b", "a", "a:b", "a.b:/c", ":/x"] {
            assert_eq!(Place::parse(here), Place::Here(here.into()), "{here}");
        }
    }

    #[test]
    fn a_folder_is_the_same_after_the_way() {
        let dir = camino_tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::write(from.join("sub/file"), "hello").unwrap();
        std::os::unix::fs::symlink("file", from.join("sub/link")).unwrap();
        let mut bytes = Vec::new();
        pack(&mut bytes, &from).unwrap();
        unpack(bytes.as_slice(), &to, true).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("sub/file")).unwrap(), "hello");
        assert_eq!(
            std::fs::read_link(to.join("sub/link")).unwrap().to_str(),
            Some("file")
        );
        unpack(&b"text"[..], &dir.path().join("one"), false).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("one")).unwrap(), "text");
        let left: Vec<_> = dir.path().read_dir_utf8().unwrap().collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }
}
