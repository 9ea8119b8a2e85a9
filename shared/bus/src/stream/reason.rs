//! The name of a stream, and why one ended.

use serde::{Deserialize, Serialize};

/// The name of one stream: 128 random bits, so that nobody guesses another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamId([u8; 16]);

impl StreamId {
    /// A new name.
    #[must_use]
    pub fn fresh() -> Self {
        // A v4 UUID has six fixed bits; turned round, random bits of another one cover them.
        let mut bytes = *uuid::Uuid::new_v4().as_bytes();
        for (byte, other) in bytes.iter_mut().zip(uuid::Uuid::new_v4().as_bytes().iter().rev()) {
            *byte ^= other;
        }
        Self(bytes)
    }

    /// The name with exactly these bytes, as samples need.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Why a stream ended before both its directions did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the stream has ended: {message} ({code})")]
pub struct EndReason {
    /// A word for programs, such as `expired` or `stream.broken`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
}

impl EndReason {
    /// The code of a stream that an end let go of without a word.
    pub const DROPPED: &str = "stream.dropped";
    /// The code of a stream that lost bytes, its connection, or its other end.
    pub const BROKEN: &str = "stream.broken";

    /// A reason.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }

    pub(crate) fn dropped() -> Self {
        Self::new(Self::DROPPED, "the other end let go of it")
    }

    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self::new(Self::BROKEN, message)
    }

    /// Whether the stream broke, rather than being ended on purpose: resuming can help.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.code == Self::BROKEN
    }
}
