//! What programs and their makers can read about this server, from the server itself.
//!
//! `llms.txt` (the llmstxt.org proposal) is made from the table of pages below and the first lines of
//! each page; the pages are those of `docs/`. The table of capabilities is data, and its page is made from it.

mod capability;

use std::fmt::Write;

use rust_embed::RustEmbed;

pub(crate) use capability::{CAPABILITIES, Capability, Probes, Status};

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../../docs"]
#[include = "*.md"]
#[exclude = "decisions/*"]
#[exclude = "images/*"]
struct Docs;

/// The pages that are served, by chapter, in the order to read them.
const CHAPTERS: &[(&str, &[&str])] = &[
    ("Quickstart", &["quickstart"]),
    (
        "Use",
        &[
            "sandboxes",
            "services",
            "compose",
            "sessions",
            "isolation",
            "machines",
            "gpu",
        ],
    ),
    ("SDK", &["sdk", "python", "mcp", "cli"]),
    ("Errors", &["errors"]),
    ("Capabilities", &["capabilities"]),
    (
        "Operate",
        &[
            "configuration",
            "operate",
            "node",
            "gpu-box",
            "deploy",
            "runbooks",
            "log-reference",
            "bus",
            "benchmarks",
        ],
    ),
];

/// One page.
pub(crate) struct Page {
    /// Its name without `.md`.
    pub(crate) name: &'static str,
    /// Its Markdown.
    pub(crate) text: String,
}

impl Page {
    /// The page of this name, if it is one that is served.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let name = pages().find(|page| *page == name)?;
        let file = Docs::get(&format!("{name}.md"))?;
        let text = String::from_utf8(file.data.into_owned()).ok()?;
        Some(Self { name, text })
    }

    /// Its heading.
    fn title(&self) -> &str {
        let heading = self.text.lines().find_map(|line| line.strip_prefix("# "));
        heading.unwrap_or(self.name)
    }

    /// Its first sentence.
    fn about(&self) -> String {
        let paragraph: Vec<&str> = self
            .text
            .lines()
            .skip_while(|line| line.is_empty() || line.starts_with('#'))
            .take_while(|line| !line.is_empty())
            .collect();
        let paragraph = paragraph.join(" ");
        match paragraph.split_once(". ") {
            Some((sentence, _)) => format!("{sentence}."),
            None => paragraph,
        }
    }
}

fn pages() -> impl Iterator<Item = &'static str> {
    CHAPTERS.iter().flat_map(|(_, pages)| pages.iter().copied())
}

/// `/llms.txt`: what there is, with links relative to this server.
pub(crate) fn llms() -> String {
    let mut text = String::from(
        "# Nimbus\n\n> A small cloud on your own hardware: isolated sandboxes, services and sessions over HTTP in milliseconds, \
         virtual machines on Proxmox VE, and GPU boxes for jobs and language models.\n",
    );
    for (chapter, pages) in CHAPTERS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n## {chapter}\n");
        for page in pages.iter().filter_map(|name| Page::find(name)) {
            let _ = writeln!(
                text,
                "- [{}](/docs/{}.md): {}",
                page.title(),
                page.name,
                page.about()
            );
        }
        if *chapter == "SDK" {
            text.push_str(
                "\n## API\n\n- [OpenAPI 3.1](/openapi.json): every route with its shapes, made from the handlers.\n\
                 - [The same, to read](/api/docs): one page of HTML without scripts.\n",
            );
        }
        if *chapter == "Errors" {
            text.push_str("- [Catalogue](/api/errors): every code as JSON.\n");
        }
        if *chapter == "Capabilities" {
            text.push_str("- [This server's](/api/capabilities): the same table as JSON, with what is usable here now.\n");
        }
    }
    text
}

/// `/llms-full.txt`: every page, one after the other.
pub(crate) fn llms_full() -> String {
    let mut text = String::new();
    for page in pages().filter_map(Page::find) {
        let _ = write!(
            text,
            "# {}\n\nSource: /docs/{}.md\n\n{}\n",
            page.title(),
            page.name,
            page.text.trim()
        );
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_there_with_a_title_and_a_sentence() {
        for name in pages() {
            let page = Page::find(name).unwrap_or_else(|| panic!("docs/{name}.md is missing"));
            assert_ne!(page.title(), name, "docs/{name}.md begins with a heading");
            let about = page.about();
            assert!(
                about.len() > 20 && !about.contains('|'),
                "docs/{name}.md: {about:?}"
            );
        }
    }

    #[test]
    fn every_page_of_the_folder_is_listed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("readable").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
                assert!(
                    pages().any(|page| page == name),
                    "docs/{name}.md is in no chapter"
                );
            }
        }
    }

    #[test]
    fn only_listed_pages_are_served() {
        for name in ["../README", "decisions/0001-nats-in-the-binary", "", "nothing"] {
            assert!(Page::find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_whole_fits_into_a_mebibyte() {
        assert!(llms_full().len() <= 1 << 20);
        let index = llms();
        assert!(index.starts_with("# Nimbus\n\n> "));
        assert_eq!(index.lines().filter(|line| line.starts_with("# ")).count(), 1);
    }

    #[test]
    fn the_page_of_the_capabilities_is_checked_in() {
        let now = capability::page();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/capabilities.md");
        if std::env::var_os("NIMBUS_GENERATE").is_some() {
            std::fs::write(&path, &now).expect("the source tree is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == now,
            "docs/capabilities.md is not what the code says: run `make generate`"
        );
    }
}
