//! Files of the host, changed so that a reader sees all of one or nothing of it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

use crate::error::{NodeError, io as at};

/// The text of a file; `None` if there is none. Bytes that are no text are shown as such.
pub(crate) fn read(path: &Utf8Path) -> Result<Option<String>, NodeError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(at("read", path)(source)),
    }
}

fn beside(path: &Utf8Path, word: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}.{word}"))
}

/// Writes a file whole, by a rename.
pub(crate) fn write(path: &Utf8Path, text: &str, mode: u32) -> Result<(), NodeError> {
    let fresh = beside(path, "nimbus-new");
    let written = create(&fresh, mode).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    });
    written.map_err(|source| {
        let _ = std::fs::remove_file(&fresh);
        at("write", path)(source)
    })
}

fn create(path: &Utf8Path, mode: u32) -> io::Result<File> {
    // One that was left behind would keep its mode, and could be a link.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // Past the umask.
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    Ok(file)
}

/// Copies a program beside its place; [`keep`] and [`swap`] put it there.
pub(crate) fn stage(from: &Utf8Path, place: &Utf8Path) -> Result<Utf8PathBuf, NodeError> {
    let fresh = beside(place, "new");
    let copied = File::open(from).and_then(|mut source| {
        let mut file = create(&fresh, 0o755)?;
        io::copy(&mut source, &mut file)?;
        file.sync_all()
    });
    match copied {
        Ok(()) => Ok(fresh),
        Err(source) => {
            let _ = std::fs::remove_file(&fresh);
            Err(at("copy the program to", fresh)(source))
        }
    }
}

/// A second name for what is at its place, so that the place is never empty.
pub(crate) fn keep(place: &Utf8Path) -> Result<Utf8PathBuf, NodeError> {
    let old = beside(place, "old");
    match std::fs::remove_file(&old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at("remove", old)(error));
        }
        _ => {}
    }
    std::fs::hard_link(place, &old).map_err(at("keep", place))?;
    Ok(old)
}

/// Puts a staged file at its place; whoever runs the old one goes on with it.
pub(crate) fn swap(staged: &Utf8Path, place: &Utf8Path) -> Result<(), NodeError> {
    std::fs::rename(staged, place).map_err(at("replace", place))
}

/// Makes a folder and those above it; the ones that were not there, lowest first.
pub(crate) fn make_folder(path: &Utf8Path, mode: u32) -> Result<Vec<Utf8PathBuf>, NodeError> {
    let missing: Vec<Utf8PathBuf> = path
        .ancestors()
        .take_while(|folder| !folder.as_str().is_empty() && !folder.exists())
        .map(Utf8Path::to_owned)
        .collect();
    for folder in missing.iter().rev() {
        let mode = if folder == path { mode } else { 0o755 };
        DirBuilder::new()
            .mode(mode)
            .create(folder)
            .and_then(|()| std::fs::set_permissions(folder, PermissionsExt::from_mode(mode)))
            .map_err(at("make the folder", folder))?;
    }
    Ok(missing)
}

/// Removes a file; whether there was one.
pub(crate) fn remove(path: &Utf8Path) -> Result<bool, NodeError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(at("remove", path)(source)),
    }
}

/// Removes a folder if nothing is in it.
pub(crate) fn remove_empty(path: &Utf8Path) -> bool {
    std::fs::remove_dir(path).is_ok()
}

/// The SHA-256 of a file; `None` if there is none.
pub(crate) fn digest(path: &Utf8Path) -> Result<Option<String>, NodeError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(at("read", path)(source)),
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(at("read", path))?;
        if read == 0 {
            return Ok(Some(hex::encode(hash.finalize())));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_programs_swapped() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert_eq!((read(&path).unwrap(), digest(&path).unwrap()), (None, None));
        write(&path, "one", 0o600).unwrap();
        write(&path, "two", 0o644).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );

        let new = dir.path().join("b");
        write(&new, "new", 0o600).unwrap();
        let staged = stage(&new, &path).unwrap();
        let old = keep(&path).unwrap();
        swap(&staged, &path).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("new"));
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
        swap(&old, &path).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(
            dir.path().read_dir_utf8().unwrap().count(),
            2,
            "nothing is left over"
        );
    }

    #[test]
    fn folders_that_were_made_are_told() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert_eq!(
            make_folder(&path, 0o700).unwrap(),
            [path.clone(), dir.path().join("a")]
        );
        assert_eq!(make_folder(&path, 0o700).unwrap(), Vec::<Utf8PathBuf>::new());
        assert!(!remove_empty(&dir.path().join("a")) && remove_empty(&path));
    }
}
