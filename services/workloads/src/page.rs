//! Parts of lists: limits and tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nimbus_proto::workloads::{Listing, Page};
use sha2::{Digest, Sha256};

use crate::error::WorkError;

/// The largest page, and the one when nothing is said.
const LIMIT: u32 = 100;
const HASH: usize = 8;

/// A page that was asked for, with its token read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) limit: u32,
    /// Only what comes after this key.
    pub(crate) after: String,
    pub(crate) label: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) state: Option<String>,
    hash: [u8; HASH],
}

impl Wanted {
    /// Reads `page` of the list `kind` of `tenant`.
    pub(crate) fn read(kind: &str, tenant: &str, page: &Page) -> Result<Self, WorkError> {
        if page.label_value.is_some() && page.label_key.is_none() {
            return Err(WorkError::invalid("labelValue", "it needs a labelKey beside it"));
        }
        let hash = filter_hash(kind, tenant, page);
        let after = match &page.page_token {
            None => String::new(),
            Some(token) => {
                let wrong = || {
                    WorkError::invalid(
                        "pageToken",
                        "it is not from an earlier page of the same list with the same filters",
                    )
                };
                let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
                let (seen, key) = bytes.split_first_chunk::<HASH>().ok_or_else(wrong)?;
                if *seen != hash {
                    return Err(wrong());
                }
                String::from_utf8(key.to_vec()).map_err(|_| wrong())?
            }
        };
        Ok(Self {
            limit: page.limit.unwrap_or(LIMIT).clamp(1, LIMIT),
            after,
            label: page.label_key.clone(),
            value: page.label_value.clone(),
            state: page.state.clone(),
            hash,
        })
    }

    /// The listing of `items`, of which `remaining` more match. `key` and `version` tell of one item.
    pub(crate) fn listing<T>(
        &self,
        items: Vec<T>,
        remaining: u64,
        key: impl Fn(&T) -> &str,
        version: impl Fn(&T) -> &str,
    ) -> Listing<T> {
        let mut state = Sha256::new().chain_update(remaining.to_be_bytes());
        for item in &items {
            state.update(key(item));
            state.update([0]);
            state.update(version(item));
            state.update([0]);
        }
        let next_page_token = items
            .last()
            .filter(|_| remaining > 0)
            .map(|last| URL_SAFE_NO_PAD.encode([self.hash.as_slice(), key(last).as_bytes()].concat()));
        Listing {
            resource_version: hex::encode(state.finalize().get(..HASH).unwrap_or_default()),
            limit: self.limit,
            next_page_token,
            remaining,
            items,
        }
    }
}

fn filter_hash(kind: &str, tenant: &str, page: &Page) -> [u8; HASH] {
    let mut state = Sha256::new();
    for part in [
        Some(kind),
        Some(tenant),
        page.label_key.as_deref(),
        page.label_value.as_deref(),
        page.state.as_deref(),
    ] {
        state.update([u8::from(part.is_some())]);
        let part = part.unwrap_or_default();
        state.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        state.update(part);
    }
    let mut out = [0; HASH];
    for (to, from) in out.iter_mut().zip(state.finalize()) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(token: Option<String>, label: Option<&str>) -> Page {
        Page {
            page_token: token,
            label_key: label.map(str::to_owned),
            ..Page::default()
        }
    }

    #[test]
    fn a_token_is_good_for_its_own_filters_only() {
        let wanted = Wanted::read("sandboxes", "a", &page(None, Some("team"))).unwrap();
        let listing = wanted.listing(vec!["one".to_owned()], 1, |s| s, |s| s);
        let token = listing.next_page_token;
        assert_eq!(
            Wanted::read("sandboxes", "a", &page(token.clone(), Some("team")))
                .unwrap()
                .after,
            "one"
        );
        for (kind, tenant, label) in [
            ("services", "a", Some("team")),
            ("sandboxes", "b", Some("team")),
            ("sandboxes", "a", Some("other")),
            ("sandboxes", "a", None),
        ] {
            assert!(Wanted::read(kind, tenant, &page(token.clone(), label)).is_err());
        }
        assert!(Wanted::read("sandboxes", "a", &page(Some("%%".into()), None)).is_err());
    }

    #[test]
    fn the_last_page_has_no_token() {
        let wanted = Wanted::read("s", "a", &page(None, None)).unwrap();
        let listing = wanted.listing(vec!["one".to_owned()], 0, |s| s, |s| s);
        assert_eq!(listing.next_page_token, None);
    }

    #[test]
    fn a_value_without_its_label_is_refused() {
        let wrong = Page {
            label_value: Some("x".into()),
            ..Page::default()
        };
        assert!(Wanted::read("s", "a", &wrong).is_err());
    }

    proptest! {
        #[test]
        fn limits_are_clamped(limit in proptest::option::of(any::<u32>())) {
            let wanted = Wanted::read("s", "a", &Page { limit, ..Page::default() }).unwrap();
            prop_assert!((1..=100).contains(&wanted.limit));
        }
    }
}
