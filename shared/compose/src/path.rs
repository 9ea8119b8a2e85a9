//! Paths as text: joined and tidied without looking at the disk.

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};

/// `path` seen from `base`, without `.` and `..`. A leading `~` is left for the one who has the home.
pub(crate) fn join(base: &Utf8Path, path: &str) -> Utf8PathBuf {
    if path == "~" || path.starts_with("~/") {
        return path.into();
    }
    let mut out = Utf8PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Utf8Component::CurDir => {}
            Utf8Component::ParentDir => {
                if !out.pop() {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    out
}

/// `path` seen from `base`, if it lies below it.
pub(crate) fn relative(base: &Utf8Path, path: &Utf8Path) -> Option<Utf8PathBuf> {
    path.strip_prefix(base).ok().map(Utf8Path::to_owned)
}

/// Whether the source of a mount is a path, and not the name of a volume.
pub(crate) fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidy() {
        let base = Utf8Path::new("/srv/app");
        assert_eq!(join(base, "./data/../conf"), "/srv/app/conf");
        assert_eq!(join(base, "../x"), "/srv/x");
        assert_eq!(join(base, "/etc/x"), "/etc/x");
        assert_eq!(join(base, "~/x"), "~/x");
        assert_eq!(join(base, "."), "/srv/app");
        assert_eq!(relative(base, Utf8Path::new("/srv/app/a/b")).unwrap(), "a/b");
        assert!(relative(base, Utf8Path::new("/srv/apple")).is_none());
    }
}
