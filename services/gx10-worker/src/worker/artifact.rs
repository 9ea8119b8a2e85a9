//! What a job leaves in its folder for artifacts: packed when it has ended, kept on disk until it is sent.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use nimbus_gpu_wire::{ARTIFACTS_DIR, MAX_CHUNK, Outcome};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::{StreamReader, SyncIoBridge};
use tracing::{info, warn};

use crate::engine::EngineError;
use crate::link::{Kind, LinkError, Pause};
use crate::worker::Worker;

/// Unpacked, artifacts may be this many times as large as packed: emptiness packs well, and reading takes
/// time.
const UNPACKED_TIMES: u64 = 100;

/// What packing gave.
#[derive(Debug, PartialEq, Eq)]
enum Packed {
    Nothing,
    Some {
        bytes: u64,
        sha256: String,
    },
    /// There is something, but it is not kept.
    Not(String),
}

/// Packs what the container left, and says so in the outcome.
pub(crate) async fn pack(worker: &Worker, job: &str, name: &str, limit: u64, outcome: &mut Outcome) {
    let Ok(path) = worker.state.artifact_path(job) else {
        return;
    };
    let mut pause = Pause::default();
    let packed = loop {
        match fetch(worker, name, &path, limit).await {
            Ok(packed) => break packed,
            Err(EngineError::Missing { .. }) => break Packed::Nothing,
            Err(EngineError::Away { .. }) => pause.wait().await,
            Err(error) => break Packed::Not(error.to_string()),
        }
    };
    match packed {
        Packed::Nothing => {}
        Packed::Some { bytes, sha256 } => {
            info!(gpu.job = job, bytes, "packed {bytes} bytes of artifacts");
            outcome.artifact_bytes = Some(bytes);
            outcome.artifact_sha256 = Some(sha256);
        }
        Packed::Not(note) => {
            warn!(gpu.job = job, "the artifacts are not kept: {note}");
            outcome.artifact_note = Some(note);
        }
    }
    if outcome.artifact_bytes.is_none() {
        discard(&path).await;
    }
}

async fn discard(path: &Path) {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!("{} stays behind: {error}", path.display());
        }
        _ => {}
    }
}

async fn fetch(worker: &Worker, name: &str, path: &Path, limit: u64) -> Result<Packed, EngineError> {
    let pieces = worker.engine.archive(name, ARTIFACTS_DIR).await?;
    let mut pieces = Box::pin(pieces.peekable());
    // A failure of the call itself comes before the first byte.
    if let Some(Err(error)) = pieces.as_mut().peek().await {
        return Err(error.clone());
    }
    let reader = StreamReader::new(pieces.map(|piece| piece.map_err(io::Error::other)));
    let bridge = SyncIoBridge::new(reader);
    let path = path.to_owned();
    let packed = tokio::task::spawn_blocking(move || write(bridge, path, limit))
        .await
        .expect("packing does not panic");
    packed.or_else(|error| match error {
        Failure::Engine(error) => Err(EngineError::Away {
            call: "archive",
            detail: error.to_string(),
        }),
        Failure::Disk(error) if error.kind() == io::ErrorKind::StorageFull => {
            Ok(Packed::Not("no space is left on the box to pack them".to_owned()))
        }
        Failure::Disk(error) => Ok(Packed::Not(format!("they could not be packed: {error}"))),
    })
}

enum Failure {
    Engine(io::Error),
    Disk(io::Error),
}

/// Packs a tar archive into `path` and puts it on disk for good.
fn write(archive: impl Read, path: PathBuf, limit: u64) -> Result<Packed, Failure> {
    let file = File::create(&path).map_err(Failure::Disk)?;
    let sink = Sink {
        file,
        digest: Sha256::new(),
        written: 0,
        limit,
    };
    let mut tee = Tee {
        from: archive,
        to: GzEncoder::new(sink, Compression::fast()),
        read: 0,
        trouble: None,
    };
    let told = has_content(&mut tee);
    let Tee {
        to, read, trouble, ..
    } = tee;
    if let Some(error) = trouble {
        return too_large(&error, limit).map_or(Err(Failure::Disk(error)), |note| Ok(Packed::Not(note)));
    }
    let has_content = told.map_err(Failure::Engine)?;
    if read > limit.saturating_mul(UNPACKED_TIMES) {
        return Ok(Packed::Not(note(limit)));
    }
    let sink = match to.finish() {
        Ok(sink) => sink,
        Err(error) => {
            return too_large(&error, limit).map_or(Err(Failure::Disk(error)), |note| Ok(Packed::Not(note)));
        }
    };
    sink.file.sync_all().map_err(Failure::Disk)?;
    if !has_content {
        return Ok(Packed::Nothing);
    }
    Ok(Packed::Some {
        bytes: sink.written,
        sha256: hex::encode(sink.digest.finalize()),
    })
}

/// Reads an archive to its end; whether it has more than the folder itself.
fn has_content<R: Read, W: Write>(tee: &mut Tee<R, W>) -> io::Result<bool> {
    let mut found = false;
    let mut archive = tar::Archive::new(&mut *tee);
    for entry in archive.entries()? {
        let name = entry?.path_bytes().into_owned();
        found |= !matches!(name.as_slice(), b"." | b"./");
    }
    // What fills the last block.
    io::copy(tee, &mut io::sink())?;
    Ok(found)
}

#[derive(Debug, thiserror::Error)]
#[error("too large")]
struct TooLarge;

fn too_large(error: &io::Error, limit: u64) -> Option<String> {
    error.get_ref()?.is::<TooLarge>().then(|| note(limit))
}

fn note(limit: u64) -> String {
    format!(
        "they are more than the {} MiB that are kept of a job",
        limit >> 20
    )
}

/// A reader whose bytes are written elsewhere, too.
struct Tee<R, W> {
    from: R,
    to: W,
    read: u64,
    /// Why they could not be written: to the reader's user that is an error like any.
    trouble: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.read += u64::try_from(count).unwrap_or(u64::MAX);
        if let Err(error) = self.to.write_all(buffer.get(..count).unwrap_or_default()) {
            let said = io::Error::other(error.to_string());
            self.trouble = Some(error);
            return Err(said);
        }
        Ok(count)
    }
}

/// A file that is measured while it is written, and does not get too large.
struct Sink {
    file: File,
    digest: Sha256,
    written: u64,
    limit: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.written + length > self.limit {
            return Err(io::Error::other(TooLarge));
        }
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.written += length;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Sends what was packed, from where the server's end is. What it does not take is noted in the outcome.
pub(crate) async fn send(worker: &Worker, job: &str, outcome: &mut Outcome) {
    let Some(total) = outcome.artifact_bytes else {
        return;
    };
    let sent = match worker.state.artifact_path(job) {
        Ok(path) => send_file(worker, job, &path, total).await,
        Err(_) => Ok(()),
    };
    if let Err(note) = sent {
        warn!(gpu.job = job, "the artifacts are not kept: {note}");
        outcome.artifact_bytes = None;
        outcome.artifact_sha256 = None;
        outcome.artifact_note = Some(note);
    }
}

async fn send_file(worker: &Worker, job: &str, path: &Path, total: u64) -> Result<(), String> {
    let gone = |error: io::Error| format!("what was packed of them cannot be read: {error}");
    let mut file = tokio::fs::File::open(path).await.map_err(gone)?;
    let mut at = 0;
    let mut still = 0;
    while at < total {
        file.seek(io::SeekFrom::Start(at)).await.map_err(gone)?;
        let mut chunk = vec![0; usize::try_from(total - at).unwrap_or(MAX_CHUNK).min(MAX_CHUNK)];
        file.read_exact(&mut chunk).await.map_err(gone)?;
        match worker
            .links
            .insist_chunk(Kind::Artifact, job, at, Bytes::from(chunk))
            .await
        {
            Ok(ack) if ack.end >= total => return Ok(()),
            Ok(ack) if ack.capped => return Err("Nimbus keeps no more of a job".to_owned()),
            Ok(ack) if ack.end <= at => {
                still += 1;
                if still > 10 {
                    return Err("Nimbus does not take them".to_owned());
                }
                at = ack.end;
            }
            Ok(ack) => {
                still = 0;
                at = ack.end;
            }
            Err(LinkError::Refused { detail, .. }) => return Err(detail),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        // As engines name the folder itself.
        header.as_gnu_mut().unwrap().name[..2].copy_from_slice(b"./");
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len().try_into().unwrap());
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn packed(archive: &[u8], limit: u64) -> (Packed, Vec<u8>) {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz").into_std_path_buf();
        let Ok(packed) = write(archive, path.clone(), limit) else {
            panic!("it could not be written")
        };
        (packed, std::fs::read(path).unwrap())
    }

    #[test]
    fn what_is_packed_is_what_was_there() {
        let archive = tar_of(&[("model.pt", &[7; 100_000]), ("log/a", b"x")]);
        let (packed, file) = packed(&archive, 1 << 20);
        let Packed::Some { bytes, sha256 } = packed else {
            panic!("{packed:?}")
        };
        assert_eq!(bytes, file.len() as u64);
        assert_eq!(sha256, hex::encode(Sha256::digest(&file)));
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(file.as_slice())
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, archive);
    }

    #[test]
    fn an_empty_folder_is_nothing_and_too_much_is_refused() {
        assert_eq!(packed(&tar_of(&[]), 1 << 20).0, Packed::Nothing);
        let noise: Vec<u8> = (0..200_000u32)
            .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1])
            .collect();
        assert!(matches!(
            packed(&tar_of(&[("a", &noise)]), 10_000).0,
            Packed::Not(_)
        ));
        // Nothing but zeros: packed it would fit.
        assert!(matches!(
            packed(&tar_of(&[("a", &vec![0; 2 << 20])]), 16 << 10).0,
            Packed::Not(_)
        ));
    }
}
