//! The init inside of this crate.

/// The init that was compressed into this crate; empty when there was none at build time.
const COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nimbus-guest.zst"));

/// The static init as an ELF file, if this build carries one.
#[must_use]
pub fn init_binary() -> Option<Vec<u8>> {
    if COMPRESSED.is_empty() {
        return None;
    }
    zstd::stream::decode_all(COMPRESSED).ok()
}
