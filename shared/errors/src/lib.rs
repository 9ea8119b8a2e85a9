//! The error catalogue of Nimbus, as data.
//!
//! A [`Code`] is the stable name of one kind of failure; [`Code::entry`] says which HTTP status it
//! has, whether the same request can succeed later, and what its reader can do. Every service maps
//! its own error enum onto codes with [`Coded`]; a [`Fault`] is what crosses the bus; the gateway
//! makes its JSON envelope from it. `GET /api/errors` and `docs/errors.md` are made from the same
//! table, so a code that is not here cannot be answered.

mod catalog;
mod fault;

pub use catalog::{Action, Code, Entry, Severity};
pub use fault::{Coded, Fault, chain};

/// The catalogue as a Markdown page, checked in as `docs/errors.md`.
#[must_use]
pub fn catalog_page() -> String {
    use std::fmt::Write;
    let mut page = String::from(
        "# Error catalogue\n\nGenerated from `shared/errors/src/catalog.rs` by `make generate`; `GET /api/errors` serves the same table.\n\n\
         | Code | HTTP | Retry | Severity | Meaning | What to do |\n|---|---|---|---|---|---|\n",
    );
    for entry in Code::all().map(Code::entry) {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            entry.code,
            entry.http_status,
            if entry.retryable { "yes" } else { "no" },
            entry.severity.as_str(),
            entry.meaning,
            entry.remedy
        );
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_of_the_catalogue_is_checked_in() {
        let now = super::catalog_page();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("NIMBUS_GENERATE").is_some() {
            std::fs::write(&path, &now).expect("the source tree is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == now,
            "docs/errors.md is not what the code says: run `make generate`"
        );
    }
}
