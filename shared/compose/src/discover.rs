//! Which files make up a project, and what it is called.

use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

use crate::error::ComposeError;
use crate::path;

/// Longest readable part of a project's key.
const SLUG: usize = 48;

/// Finds the files: those that are named, those of `COMPOSE_FILE`, else the nearest at or above `cwd`.
///
/// A repository is the end of the search: what lies above it belongs to something else.
///
/// # Errors
/// [`ComposeError::NotFound`], or [`ComposeError::Ambiguous`] where two names of old are side by side.
pub fn discover(
    cwd: &Utf8Path,
    named: &[Utf8PathBuf],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Utf8PathBuf>, ComposeError> {
    if !named.is_empty() {
        return Ok(named.iter().map(|file| path::join(cwd, file.as_str())).collect());
    }
    if let Some(list) = variable("COMPOSE_FILE").filter(|list| !list.is_empty()) {
        let separator = variable("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty());
        let files = list
            .split(separator.as_deref().unwrap_or(":"))
            .filter(|file| !file.is_empty());
        return Ok(files.map(|file| path::join(cwd, file)).collect());
    }
    for directory in cwd.ancestors() {
        if let Some(files) = in_directory(directory)? {
            return Ok(files);
        }
        if directory.join(".git").exists() {
            break;
        }
    }
    Err(ComposeError::NotFound {
        start: cwd.to_owned(),
    })
}

fn in_directory(directory: &Utf8Path) -> Result<Option<Vec<Utf8PathBuf>>, ComposeError> {
    for (name, over) in [
        ("compose.yaml", "compose.override.yaml"),
        ("compose.yml", "compose.override.yml"),
    ] {
        let file = directory.join(name);
        if file.is_file() {
            let mut files = vec![file];
            files.extend(Some(directory.join(over)).filter(|file| file.is_file()));
            return Ok(Some(files));
        }
    }
    let first = directory.join("docker-compose.yaml");
    let second = directory.join("docker-compose.yml");
    let (file, over) = match (first.is_file(), second.is_file()) {
        (true, true) => return Err(ComposeError::Ambiguous { first, second }),
        (true, false) => (first, "docker-compose.override.yaml"),
        (false, true) => (second, "docker-compose.override.yml"),
        (false, false) => return Ok(None),
    };
    let mut files = vec![file];
    files.extend(Some(directory.join(over)).filter(|file| file.is_file()));
    Ok(Some(files))
}

/// A name in lower case, everything but letters and digits a dash, none of them in front, behind or twice.
pub fn slug(text: &str, longest: usize) -> String {
    let mut out = String::new();
    for letter in text.chars().flat_map(char::to_lowercase) {
        if letter.is_ascii_alphanumeric() {
            out.push(letter);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() >= longest {
            break;
        }
    }
    out.truncate(out.trim_end_matches('-').len());
    if out.is_empty() { "nimbus".to_owned() } else { out }
}

/// What tells a project from others of its name: the readable name and where its first file lies.
pub(crate) fn key(name: &str, file: &Utf8Path) -> String {
    let file = file.canonicalize_utf8().unwrap_or_else(|_| file.to_owned());
    let digest = hex::encode(Sha256::digest(file.as_str()));
    let short: String = digest.chars().take(12).collect();
    format!("{}-{short}", slug(name, SLUG))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn the_nearest_file_up_to_the_repository() {
        let dir = camino_tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize_utf8().unwrap();
        let deep = root.join("repo/a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir(root.join("repo/.git")).unwrap();
        std::fs::write(root.join("compose.yaml"), "").unwrap();
        assert!(matches!(
            discover(&deep, &[], &none),
            Err(ComposeError::NotFound { .. })
        ));
        std::fs::write(root.join("repo/docker-compose.yml"), "").unwrap();
        assert_eq!(
            discover(&deep, &[], &none).unwrap(),
            [root.join("repo/docker-compose.yml")]
        );
        std::fs::write(root.join("repo/docker-compose.yaml"), "").unwrap();
        assert!(matches!(
            discover(&deep, &[], &none),
            Err(ComposeError::Ambiguous { .. })
        ));
        for name in ["compose.yaml", "compose.override.yaml", "compose.yml"] {
            std::fs::write(root.join("repo").join(name), "").unwrap();
        }
        assert_eq!(
            discover(&deep, &[], &none).unwrap(),
            [
                root.join("repo/compose.yaml"),
                root.join("repo/compose.override.yaml")
            ]
        );
    }

    #[test]
    fn what_is_named_wins() {
        let cwd = Utf8Path::new("/srv");
        let variable = |name: &str| match name {
            "COMPOSE_FILE" => Some("a.yaml;../b.yaml".to_owned()),
            "COMPOSE_PATH_SEPARATOR" => Some(";".to_owned()),
            _ => None,
        };
        assert_eq!(discover(cwd, &[], &variable).unwrap(), ["/srv/a.yaml", "/b.yaml"]);
        assert_eq!(
            discover(cwd, &["x.yaml".into()], &variable).unwrap(),
            ["/srv/x.yaml"]
        );
    }

    #[test]
    fn names_and_keys() {
        assert_eq!(slug("My__App 2!", 48), "my-app-2");
        assert_eq!(slug("…", 48), "nimbus");
        assert_eq!(slug(&"a-".repeat(40), 5), "a-a-a");
        let key = key("My App", Utf8Path::new("/nowhere/compose.yaml"));
        assert!(
            key.starts_with("my-app-") && key.len() == "my-app-".len() + 12,
            "{key}"
        );
    }
}
