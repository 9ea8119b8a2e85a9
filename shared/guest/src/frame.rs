//! Frames: a length (u32, little endian) and a postcard value.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::MAX_FRAME;

/// A stream that does not speak frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed.
    #[error("the connection to the guest failed")]
    Io(#[source] std::io::Error),
    /// The connection ended inside of a frame.
    #[error("the connection to the guest ended inside of a frame")]
    Truncated,
    /// A frame is larger than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is larger than {MAX_FRAME}")]
    TooLarge(usize),
    /// A frame does not hold what was expected.
    #[error("a frame could not be understood")]
    Malformed(#[source] postcard::Error),
}

/// The bytes of one frame.
///
/// # Errors
/// [`FrameError::TooLarge`]; nothing of this crate's own making is.
pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, FrameError> {
    let mut frame = BytesMut::new();
    append(&mut frame, value)?;
    Ok(frame.freeze())
}

/// Appends one frame to `to`, which is empty after an error.
///
/// # Errors
/// [`FrameError::TooLarge`]; nothing of this crate's own making is.
pub fn append<T: Serialize>(to: &mut BytesMut, value: &T) -> Result<(), FrameError> {
    let begin = to.len();
    let mut out = Encoded(std::mem::take(to));
    out.0.put_u32_le(0);
    let mut all =
        postcard::serialize_with_flavor::<T, Encoded, BytesMut>(value, out).map_err(FrameError::Malformed)?;
    let length = all.len().saturating_sub(begin + 4);
    match u32::try_from(length) {
        Ok(short) if length <= MAX_FRAME => {
            if let Some(mut head) = all.get_mut(begin..begin + 4) {
                head.put_u32_le(short);
            }
            *to = all;
            Ok(())
        }
        _ => Err(FrameError::TooLarge(length)),
    }
}

struct Encoded(BytesMut);

impl postcard::ser_flavors::Flavor for Encoded {
    type Output = BytesMut;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<BytesMut> {
        Ok(self.0)
    }
}

/// The value of a frame's payload, which it must fill.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(FrameError::Malformed(postcard::Error::DeserializeUnexpectedEnd)),
        Err(error) => Err(FrameError::Malformed(error)),
    }
}

/// Writes one frame and flushes. Not cancel safe: a frame that was begun has to be ended.
///
/// # Errors
/// [`FrameError`].
pub async fn write<W, T>(to: &mut W, value: &T) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    let frame = encode(value)?;
    to.write_all(&frame).await.map_err(FrameError::Io)?;
    to.flush().await.map_err(FrameError::Io)
}

/// Reads one frame and not a byte more, for a stream that carries something else afterwards; `None` if
/// it ends before. Not cancel safe.
///
/// # Errors
/// [`FrameError`].
pub async fn read<R, T>(from: &mut R) -> Result<Option<T>, FrameError>
where
    R: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    let mut head = [0; 4];
    let mut have = 0;
    while let Some(rest) = head.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match from.read(rest).await.map_err(FrameError::Io)? {
            0 if have == 0 => return Ok(None),
            0 => return Err(FrameError::Truncated),
            more => have += more,
        }
    }
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(FrameError::TooLarge(length));
    }
    let mut payload = vec![0; length];
    match from.read_exact(&mut payload).await {
        Ok(_) => decode(&payload).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
        Err(error) => Err(FrameError::Io(error)),
    }
}

/// Reads frames; keeps what arrived of a frame that is not complete.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> Self {
        Self {
            from,
            buffer: BytesMut::new(),
        }
    }

    /// The next frame; `None` if the stream ends between two. Cancel safe.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(payload) = self.take()? {
                return decode(&payload).map(Some);
            }
            self.buffer.reserve(READ);
            if self
                .from
                .read_buf(&mut self.buffer)
                .await
                .map_err(FrameError::Io)?
                == 0
            {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(FrameError::TooLarge(length));
        }
        if self.buffer.len() - 4 < length {
            self.buffer.reserve(length);
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Room for one read: small, as every connection that waits keeps it.
const READ: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Chunk, MAX_CHUNK};

    #[tokio::test]
    async fn frames_arrive_in_pieces_and_together() {
        let sent = [
            Chunk::Data(Bytes::from(vec![7; MAX_CHUNK])),
            Chunk::Data(Bytes::new()),
            Chunk::End,
        ];
        let mut bytes = BytesMut::new();
        for chunk in &sent {
            bytes.extend_from_slice(&encode(chunk).unwrap());
        }
        for step in [1, 3, 4096, bytes.len()] {
            let (mut near, far) = tokio::io::duplex(step);
            let bytes = bytes.clone();
            let writer = async move { near.write_all(&bytes).await.unwrap() };
            let reader = async {
                let mut reader = FrameReader::new(far);
                for chunk in &sent {
                    assert_eq!(reader.next::<Chunk>().await.unwrap().as_ref(), Some(chunk));
                }
                assert!(reader.next::<Chunk>().await.unwrap().is_none());
            };
            tokio::join!(writer, reader);
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let read = async |bytes: &'static [u8]| FrameReader::new(bytes).next::<Chunk>().await;
        assert!(matches!(
            read(&[255, 255, 255, 255]).await,
            Err(FrameError::TooLarge(_))
        ));
        assert!(matches!(read(&[2, 0, 0, 0, 1]).await, Err(FrameError::Truncated)));
        assert!(matches!(
            read(&[1, 0, 0, 0, 9]).await,
            Err(FrameError::Malformed(_))
        ));
        assert!(matches!(
            read(&[2, 0, 0, 0, 1, 0]).await,
            Err(FrameError::Malformed(_))
        ));
    }
}
