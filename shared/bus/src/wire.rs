//! Bytes of requests, replies and work items: postcard, with nothing left over.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not the wanted message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They do not follow the type's layout.
    #[error("the bytes do not fit")]
    Layout(#[source] postcard::Error),
    /// They go on after the message: a newer sender has more fields.
    #[error("{0} bytes are left over")]
    Leftovers(usize),
}

/// The message's bytes.
///
/// # Errors
/// Types that postcard cannot carry: sequences of unknown length, flattened or untagged ones.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, postcard::Error> {
    postcard::to_stdvec(message).map(Bytes::from)
}

/// The message of these bytes.
///
/// An old reader would silently drop what a newer sender has appended, so leftovers are an error.
///
/// # Errors
/// Bytes of another layout, or more of them than the message has.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(DecodeError::Layout)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(DecodeError::Leftovers(rest.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_left_over_are_refused() {
        let bytes = encode(&(7_u32, "seven".to_owned())).unwrap();
        assert_eq!(decode::<(u32, String)>(&bytes).unwrap(), (7, "seven".to_owned()));
        assert!(matches!(decode::<u32>(&bytes), Err(DecodeError::Leftovers(6))));
        assert!(matches!(
            decode::<(u32, String, String)>(&bytes),
            Err(DecodeError::Layout(_))
        ));
    }
}
