//! Messages of a stream: one byte of kind, the number in eight bytes, then what the kind needs.
//! Numbers are little-endian and count every message of a direction from 0.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::reason::EndReason;
use crate::wire;

/// Most bytes of one message. Several times smaller than what nats-server takes (1 MiB), so that
/// streams share a connection fairly, and large enough that the cost of a message does not matter.
pub const CHUNK: usize = 64 * 1024;
/// Bytes that may be under way and not read yet, in each direction.
pub const WINDOW: u64 = 1024 * 1024;
/// What a message costs beside its bytes, so that a window of single bytes is not a million messages.
pub(crate) const OVERHEAD: u64 = 64;
/// Bytes before the content.
pub(crate) const HEAD: usize = 9;

const DATA: u8 = 0;
const CREDIT: u8 = 1;
const FIN: u8 = 2;
const END: u8 = 3;
const ALIVE: u8 = 4;

/// One message, without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Bytes.
    Data(Bytes),
    /// How much the receiver of this may have sent since the beginning.
    Credit(u64),
    /// No more bytes come.
    Fin,
    /// Nothing more comes.
    End(EndReason),
    /// A sign of life.
    Alive,
}

/// What `bytes` of content cost of the window.
pub(crate) fn cost(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(OVERHEAD)
}

/// A buffer for content, with room for the head before it.
pub(crate) fn chunk(room: usize) -> BytesMut {
    let mut chunk = BytesMut::with_capacity(HEAD + room);
    chunk.put_bytes(0, HEAD);
    chunk
}

/// Bytes of content in such a buffer.
pub(crate) fn content(chunk: &BytesMut) -> usize {
    chunk.len().saturating_sub(HEAD)
}

/// Writes the head of a buffer made by [`chunk`].
pub(crate) fn seal(mut chunk: BytesMut, number: u64) -> Bytes {
    if let Some(mut head) = chunk.get_mut(..HEAD) {
        head.put_u8(DATA);
        head.put_u64_le(number);
    }
    chunk.freeze()
}

impl Frame {
    pub(crate) fn encode(&self, number: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD + 8);
        let kind = match self {
            Self::Data(_) => DATA,
            Self::Credit(_) => CREDIT,
            Self::Fin => FIN,
            Self::End(_) => END,
            Self::Alive => ALIVE,
        };
        out.put_u8(kind);
        out.put_u64_le(number);
        match self {
            Self::Data(bytes) => out.put_slice(bytes),
            Self::Credit(allowed) => out.put_u64_le(*allowed),
            // Two texts always encode; without them the reason is merely unknown.
            Self::End(reason) => out.put_slice(&wire::encode(reason).unwrap_or_default()),
            Self::Fin | Self::Alive => {}
        }
        out.freeze()
    }

    /// The message and its number; `None` for what is none.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<(u64, Self)> {
        if bytes.len() < HEAD {
            return None;
        }
        let kind = bytes.get_u8();
        let number = bytes.get_u64_le();
        let frame = match kind {
            DATA if bytes.len() <= CHUNK => Self::Data(bytes),
            CREDIT if bytes.len() == 8 => Self::Credit(bytes.get_u64_le()),
            FIN if bytes.is_empty() => Self::Fin,
            END => Self::End(
                wire::decode(&bytes)
                    .unwrap_or_else(|_| EndReason::broken("the other end did not say why in a way we know")),
            ),
            ALIVE if bytes.is_empty() => Self::Alive,
            _ => return None,
        };
        Some((number, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_its_bytes_and_nonsense_is_none() {
        for frame in [
            Frame::Data(Bytes::from_static(b"x")),
            Frame::Credit(WINDOW),
            Frame::Fin,
            Frame::End(EndReason::new("expired", "the lease is over")),
            Frame::Alive,
        ] {
            assert_eq!(Frame::decode(frame.encode(7)), Some((7, frame)));
        }
        let mut chunk = chunk(4);
        chunk.put_slice(b"four");
        assert_eq!(content(&chunk), 4);
        let expected = (3, Frame::Data(Bytes::from_static(b"four")));
        assert_eq!(Frame::decode(seal(chunk, 3)), Some(expected));
        let mut unknown = BytesMut::from(&Frame::Alive.encode(0)[..]);
        unknown[0] = 9;
        let mut long = BytesMut::from(&Frame::Fin.encode(0)[..]);
        long.put_u8(0);
        for bad in [Bytes::new(), unknown.freeze(), long.freeze()] {
            assert_eq!(Frame::decode(bad), None);
        }
    }
}
