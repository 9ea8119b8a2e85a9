//! Files and archives as streams.

use bytes::Bytes;
use tokio::io::{ReadHalf, WriteHalf};

use super::{GuestError, GuestStream};
use crate::frame::{self, FrameReader};
use crate::protocol::{Chunk, Finished, MAX_CHUNK, OpenedContent, Written};

/// A file or archive that is read.
#[derive(Debug)]
pub struct Download<S> {
    reader: FrameReader<S>,
    content: Option<OpenedContent>,
    ended: bool,
}

impl<S: GuestStream> Download<S> {
    /// Continues on a stream on which `Opened::Content` (or, for an archive, `Opened::Ready`) was
    /// answered.
    pub fn new(stream: S, content: Option<OpenedContent>) -> Self {
        Self {
            reader: FrameReader::new(stream),
            content,
            ended: false,
        }
    }

    /// What will be sent; `None` for an archive.
    #[must_use]
    pub fn content(&self) -> Option<&OpenedContent> {
        self.content.as_ref()
    }

    /// The next part, at most [`MAX_CHUNK`]; `None` once all of it is here. Cancel safe.
    ///
    /// # Errors
    /// [`GuestError`]; a stream that breaks off is never taken for a complete one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GuestError> {
        if self.ended {
            return Ok(None);
        }
        match self.reader.next::<Chunk>().await {
            Ok(Some(Chunk::Data(bytes))) => Ok(Some(bytes)),
            Ok(Some(Chunk::End)) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Some(Chunk::Fault(fault))) => Err(GuestError::Fault(fault)),
            Ok(None) => Err(GuestError::Ended),
            Err(error) => Err(GuestError::Broken(error)),
        }
    }

    /// All of it, if it is not more than `limit` bytes.
    ///
    /// # Errors
    /// [`GuestError`]; the fault `op.payload_too_large`.
    pub async fn collect(mut self, limit: usize) -> Result<Vec<u8>, GuestError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(GuestError::Fault(
                    crate::protocol::GuestFault::new(
                        "op.payload_too_large",
                        "the content is larger than the limit",
                    )
                    .with("limitBytes", limit),
                ));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

/// A file or archive that is written. Dropping it before [`Upload::finish`] leaves a file as it was; of
/// an archive, what was unpacked by then stays.
#[derive(Debug)]
pub struct Upload<S> {
    reader: FrameReader<ReadHalf<S>>,
    writer: WriteHalf<S>,
}

impl<S: GuestStream> Upload<S> {
    /// Continues on a stream on which `Opened::Ready` was answered.
    pub fn new(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: FrameReader::new(reader),
            writer,
        }
    }

    /// Sends a part of any size. Not cancel safe.
    ///
    /// # Errors
    /// [`GuestError`]; the fault `rate.resource_exhausted` if the disk is full.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), GuestError> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(MAX_CHUNK));
            self.write(&Chunk::Data(part)).await?;
        }
        Ok(())
    }

    /// Says that this was all and waits until it is in place.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn finish(mut self) -> Result<Written, GuestError> {
        self.write(&Chunk::End).await?;
        self.finished().await
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<(), GuestError> {
        match frame::write(&mut self.writer, chunk).await {
            Ok(()) => Ok(()),
            // The init gave up and says why before it closes.
            Err(broken) => match self.finished().await {
                Err(GuestError::Fault(fault)) => Err(GuestError::Fault(fault)),
                _ => Err(GuestError::Broken(broken)),
            },
        }
    }

    async fn finished(&mut self) -> Result<Written, GuestError> {
        match self.reader.next::<Finished>().await {
            Ok(Some(Ok(written))) => Ok(written),
            Ok(Some(Err(fault))) => Err(GuestError::Fault(fault)),
            Ok(None) => Err(GuestError::Ended),
            Err(error) => Err(GuestError::Broken(error)),
        }
    }
}
