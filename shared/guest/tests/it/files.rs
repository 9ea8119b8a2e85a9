use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::{Context, Result};
use bytes::Bytes;
use nimbus_guest::protocol::{EntryKind, Precondition, Range, Written};
use nimbus_guest::{Guest, GuestError};

use crate::world::{Init, refusal};

async fn read(guest: &Guest, path: &str, range: Range) -> Result<Vec<u8>, GuestError> {
    guest.read_file(path, range).await?.collect(1 << 30).await
}

async fn write(
    guest: &Guest,
    path: &str,
    must: Precondition,
    bytes: &'static [u8],
) -> Result<Written, GuestError> {
    let mut upload = guest.write_file(path, None, false, must).await?;
    upload.send(Bytes::from_static(bytes)).await?;
    upload.finish().await
}

#[tokio::test]
async fn a_file_is_written_whole_read_in_parts_and_guarded_by_its_etag() -> Result<()> {
    let init = Init::start().await?;
    let guest = &init.guest;
    let path = init.path("a/b/file.txt").to_string();
    assert_eq!(
        refusal(write(guest, &path, Precondition::None, b"x").await),
        "op.not_found"
    );
    let mut upload = guest
        .write_file(&path, Some(0o640), true, Precondition::Absent)
        .await?;
    upload.send(Bytes::from_static(b"0123456789")).await?;
    let written = upload.finish().await?;
    assert!(written.created);
    assert_eq!((written.entry.size, written.entry.mode), (10, 0o640));

    assert_eq!(read(guest, &path, Range::All).await?, b"0123456789");
    assert_eq!(read(guest, &path, Range::Last(3)).await?, b"789");
    assert_eq!(
        read(
            guest,
            &path,
            Range::From {
                offset: 2,
                length: Some(3)
            }
        )
        .await?,
        b"234"
    );
    assert_eq!(
        read(
            guest,
            &path,
            Range::From {
                offset: 8,
                length: Some(30)
            }
        )
        .await?,
        b"89"
    );
    let behind = Range::From {
        offset: 11,
        length: None,
    };
    assert_eq!(refusal(read(guest, &path, behind).await), "op.invalid_input");

    let old = init.control().await?.stat(&path, true).await?;
    assert_eq!(old, written.entry);
    let stale = Precondition::Match(vec!["other".into()]);
    assert_eq!(
        refusal(write(guest, &path, stale, b"x").await),
        "op.precondition_failed"
    );
    assert_eq!(
        refusal(write(guest, &path, Precondition::Absent, b"x").await),
        "op.precondition_failed"
    );
    let fresh = Precondition::Match(vec![old.etag.clone()]);
    let again = write(guest, &path, fresh.clone(), b"new").await?;
    assert!(!again.created);
    assert_ne!(again.entry.etag, old.etag);
    // The permissions of what it replaces.
    assert_eq!(again.entry.mode, 0o640);
    assert_eq!(
        refusal(write(guest, &path, fresh, b"x").await),
        "op.precondition_failed"
    );
    assert_eq!(std::fs::read(&path)?, b"new");
    let gone = init.path("a/none").to_string();
    assert_eq!(
        refusal(write(guest, &gone, Precondition::Present, b"x").await),
        "op.precondition_failed"
    );
    Ok(())
}

#[tokio::test]
async fn a_write_that_breaks_off_changes_nothing() -> Result<()> {
    let init = Init::start().await?;
    let path = init.path("file");
    std::fs::write(&path, "old")?;
    let mut upload = init
        .guest
        .write_file(path.as_str(), None, false, Precondition::None)
        .await?;
    upload.send(Bytes::from_static(b"half of")).await?;
    drop(upload);
    let dir = init.dir.path().as_std_path().to_owned();
    crate::world::eventually(async || {
        let drafts = std::fs::read_dir(&dir)?
            .filter(|entry| {
                entry
                    .as_ref()
                    .is_ok_and(|e| e.file_name().to_string_lossy().starts_with(".nimbus-"))
            })
            .count();
        Ok((drafts == 0).then_some(()))
    })
    .await?;
    assert_eq!(std::fs::read(&path)?, b"old");

    // What changed meanwhile is not overwritten.
    let etag = init.control().await?.stat(path.as_str(), true).await?.etag;
    let must = Precondition::Match(vec![etag]);
    let upload = init.guest.write_file(path.as_str(), None, false, must).await?;
    std::fs::write(&path, "other")?;
    assert_eq!(refusal(upload.finish().await), "op.precondition_failed");
    Ok(())
}

#[tokio::test]
async fn a_large_file_goes_both_ways() -> Result<()> {
    let init = Init::start().await?;
    let bytes: Vec<u8> = (0..5_000_001_u32)
        .map(|n| u8::try_from(n % 249).unwrap())
        .collect();
    let path = init.path("large").to_string();
    let mut upload = init
        .guest
        .write_file(&path, None, false, Precondition::None)
        .await?;
    upload.send(bytes.clone().into()).await?;
    upload.finish().await?;
    assert!(read(&init.guest, &path, Range::All).await? == bytes);
    Ok(())
}

#[tokio::test]
async fn special_files_and_the_kernels_are_refused() -> Result<()> {
    let init = Init::start().await?;
    let guest = &init.guest;
    let pipe = init.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        pipe.as_std_path(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )?;
    for path in [
        pipe.as_str(),
        "/dev/zero",
        "/proc/self/mem",
        "/proc/self/environ",
        init.dir.path().as_str(),
    ] {
        assert_eq!(
            refusal(read(guest, path, Range::All).await),
            "op.conflict",
            "{path}"
        );
    }
    // A descriptor of the init is behind this name.
    let magic = refusal(read(guest, "/proc/self/fd/0", Range::All).await);
    assert_eq!(magic, "op.conflict");
    assert_eq!(
        refusal(write(guest, pipe.as_str(), Precondition::None, b"x").await),
        "op.conflict"
    );
    let dir = init.dir.path().as_str();
    assert_eq!(
        refusal(write(guest, dir, Precondition::None, b"x").await),
        "op.conflict"
    );
    for path in ["relative", "", "/a\0b"] {
        assert_eq!(
            refusal(read(guest, path, Range::All).await),
            "op.invalid_input",
            "{path:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn links_are_followed_and_written_through() -> Result<()> {
    let init = Init::start().await?;
    let (real, link, broken) = (init.path("real"), init.path("link"), init.path("broken"));
    std::fs::write(&real, "real")?;
    symlink("real", &link)?;
    symlink("made", &broken)?;
    let guest = &init.guest;
    assert_eq!(read(guest, link.as_str(), Range::All).await?, b"real");
    write(guest, link.as_str(), Precondition::None, b"through").await?;
    assert_eq!(std::fs::read(&real)?, b"through");
    assert!(
        write(guest, broken.as_str(), Precondition::Absent, b"new")
            .await?
            .created
    );
    assert_eq!(std::fs::read(init.path("made"))?, b"new");
    let mut control = init.control().await?;
    assert_eq!(control.stat(link.as_str(), false).await?.kind, EntryKind::Symlink);
    assert_eq!(control.stat(link.as_str(), true).await?.kind, EntryKind::File);
    symlink("round", init.path("round"))?;
    assert_eq!(
        refusal(read(guest, init.path("round").as_str(), Range::All).await),
        "op.conflict"
    );
    Ok(())
}

#[tokio::test]
async fn a_directory_is_listed_by_pages_made_moved_and_removed() -> Result<()> {
    let init = Init::start().await?;
    let mut control = init.control().await?;
    let dir = init.path("dir").to_string();
    let made = control.mkdir(&format!("{dir}/sub/"), Some(0o700), true).await?;
    assert_eq!((made.kind, made.mode), (EntryKind::Dir, 0o700));
    assert_eq!(
        refusal(control.mkdir(&dir, None, false).await),
        "op.already_exists"
    );
    control.mkdir(&dir, None, true).await?;
    for name in ["c", "a", "b", "d"] {
        std::fs::write(format!("{dir}/{name}"), name)?;
    }
    let names =
        |page: Vec<nimbus_guest::protocol::Entry>| page.into_iter().map(|e| e.name).collect::<Vec<_>>();
    let (page, more) = control.list(&dir, None, 2).await?;
    assert_eq!((names(page), more), (vec!["a".to_owned(), "b".into()], true));
    let (page, more) = control.list(&dir, Some("b".into()), 3).await?;
    assert_eq!(
        (names(page), more),
        (vec!["c".to_owned(), "d".into(), "sub".into()], false)
    );
    assert_eq!(refusal(control.list(&dir, None, 0).await), "op.invalid_input");
    assert_eq!(
        refusal(control.list(&format!("{dir}/a"), None, 9).await),
        "op.conflict"
    );

    let (a, b) = (format!("{dir}/a"), format!("{dir}/b"));
    assert_eq!(refusal(control.rename(&a, &b, false).await), "op.already_exists");
    assert_eq!(control.rename(&a, &b, true).await?.size, 1);
    assert_eq!(std::fs::read(&b)?, b"a");
    assert_eq!(refusal(control.rename(&a, &b, true).await), "op.not_found");

    assert_eq!(refusal(control.remove(&dir, false).await), "op.conflict");
    // A link in it is removed, not what it leads to.
    let outside = init.path("outside");
    std::fs::create_dir(&outside)?;
    std::fs::write(outside.join("kept"), "")?;
    symlink(&outside, format!("{dir}/link"))?;
    control.remove(&dir, true).await?;
    assert_eq!(refusal(control.stat(&dir, true).await), "op.not_found");
    assert!(outside.join("kept").exists());
    assert_eq!(refusal(control.remove("/", true).await), "op.invalid_input");
    assert_eq!(
        refusal(control.remove(&format!("{outside}/.."), true).await),
        "op.invalid_input"
    );
    Ok(())
}

#[tokio::test]
async fn a_directory_travels_as_an_archive() -> Result<()> {
    let init = Init::start().await?;
    let from = init.path("from");
    std::fs::create_dir_all(from.join("sub/empty"))?;
    let long = "long".repeat(40);
    std::fs::write(from.join(&long), vec![7; 200_000])?;
    std::fs::write(from.join("sub/run"), "#!")?;
    std::fs::set_permissions(from.join("sub/run"), PermissionsExt::from_mode(0o755))?;
    std::fs::set_permissions(from.join("sub/empty"), PermissionsExt::from_mode(0o500))?;
    symlink("../elsewhere", from.join("sub/link"))?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        from.join("pipe").as_std_path(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )?;

    let archive = init.guest.tar_out(from.as_str()).await?.collect(1 << 24).await?;
    let to = init.path("deep/to");
    let mut upload = init.guest.tar_in(to.as_str()).await?;
    upload.send(archive.into()).await?;
    let written = upload.finish().await?;
    assert!(written.created && written.entry.kind == EntryKind::Dir);
    assert_eq!(std::fs::read(to.join(&long))?, vec![7; 200_000]);
    assert_eq!(
        std::fs::metadata(to.join("sub/run"))?.permissions().mode() & 0o777,
        0o755
    );
    assert_eq!(
        std::fs::metadata(to.join("sub/empty"))?.permissions().mode() & 0o777,
        0o500
    );
    assert_eq!(
        std::fs::read_link(to.join("sub/link"))?.to_str(),
        Some("../elsewhere")
    );
    assert_eq!(
        std::fs::metadata(to.join(&long))?
            .modified()?
            .elapsed()?
            .as_secs()
            / 3600,
        0
    );
    assert!(!to.join("pipe").exists());

    let one = init
        .guest
        .tar_out(from.join("sub/run").as_str())
        .await?
        .collect(1 << 20)
        .await?;
    let mut read = tar::Archive::new(one.as_slice());
    let names: Vec<_> = read
        .entries()?
        .map(|e| e?.path().map(|p| p.into_owned()))
        .collect::<Result<_, _>>()?;
    assert_eq!(names, [std::path::PathBuf::from("run")]);
    Ok(())
}

#[derive(Clone, Copy)]
enum Item {
    File(&'static str),
    Symlink(&'static str, &'static str),
    Hardlink(&'static str, &'static str),
    Device(&'static str),
}

/// The builder refuses bad names, so they are written into the header by hand.
fn archive(items: &[Item]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        let (name, kind, link, body) = match *item {
            Item::File(name) => (name, tar::EntryType::Regular, "", "body"),
            Item::Symlink(name, to) => (name, tar::EntryType::Symlink, to, ""),
            Item::Hardlink(name, to) => (name, tar::EntryType::Link, to, ""),
            Item::Device(name) => (name, tar::EntryType::Char, "", ""),
        };
        header.set_entry_type(kind);
        header.set_size(u64::try_from(body.len())?);
        let gnu = header.as_gnu_mut().context("made so")?;
        name.bytes().zip(&mut gnu.name).for_each(|(byte, to)| *to = byte);
        link.bytes()
            .zip(&mut gnu.linkname)
            .for_each(|(byte, to)| *to = byte);
        header.set_cksum();
        builder.append(&header, body.as_bytes())?;
    }
    Ok(builder.into_inner()?)
}

#[tokio::test]
async fn an_archive_cannot_write_beside_its_directory() -> Result<()> {
    let init = Init::start().await?;
    let outside = init.path("outside");
    std::fs::create_dir(&outside)?;
    std::fs::write(outside.join("file"), "kept")?;
    let put = async |name: &str, items: &[Item]| -> String {
        let to = init.path(name);
        let mut upload = init.guest.tar_in(to.as_str()).await.unwrap();
        upload.send(archive(items).unwrap().into()).await.unwrap();
        match upload.finish().await {
            Ok(_) => "fine".to_owned(),
            other => refusal(other),
        }
    };
    assert_eq!(
        put("a", &[Item::File("../outside/file")]).await,
        "op.invalid_input"
    );
    assert_eq!(put("b", &[Item::File("/outside/file")]).await, "op.invalid_input");
    assert_eq!(
        put("c", &[Item::Hardlink("x", "../outside/file")]).await,
        "op.invalid_input"
    );
    assert_eq!(put("d", &[Item::Device("null")]).await, "op.conflict");
    // A link out of it leads nowhere while unpacking: it is followed as if the directory were the root.
    assert_eq!(
        put("e", &[Item::Symlink("l", "../outside"), Item::File("l/file")]).await,
        "op.not_found"
    );
    assert_eq!(
        put("f", &[Item::Symlink("l", "/etc/passwd"), Item::File("l")]).await,
        "fine"
    );
    assert_eq!(std::fs::read(init.path("f/l"))?, b"body");
    assert_eq!(
        put("g", &[Item::File("one"), Item::Hardlink("two", "one")]).await,
        "fine"
    );
    assert_eq!(std::fs::read(init.path("g/two"))?, b"body");
    assert_eq!(std::fs::read(outside.join("file"))?, b"kept");
    assert_eq!(std::fs::read_dir(&outside)?.count(), 1);
    Ok(())
}

#[tokio::test]
async fn an_archive_that_breaks_off_or_is_none_is_an_error() -> Result<()> {
    let init = Init::start().await?;
    let path = init.path("to");
    let mut upload = init.guest.tar_in(path.as_str()).await?;
    upload
        .send(
            Bytes::from_static(b"this is no archive, and longer than nothing")
                .repeat(40)
                .into(),
        )
        .await?;
    assert_eq!(refusal(upload.finish().await), "op.invalid_input");
    let whole = archive(&[Item::File("file")])?;
    let mut upload = init.guest.tar_in(path.as_str()).await?;
    upload.send(Bytes::copy_from_slice(&whole[..514])).await?;
    assert_eq!(refusal(upload.finish().await), "op.invalid_input");
    Ok(())
}
