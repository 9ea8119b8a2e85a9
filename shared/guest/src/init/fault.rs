//! What an errno means to the caller.

use std::io;

use nimbus_guest::protocol::GuestFault;
use rustix::io::Errno;

/// The fault of a system call on `path`.
pub(crate) fn at(path: &str, what: &str, error: impl Into<io::Error>) -> GuestFault {
    io_fault(what, error).with("path", path)
}

/// The fault of a system call. `what` completes "could not".
pub(crate) fn io_fault(what: &str, error: impl Into<io::Error>) -> GuestFault {
    let error = error.into();
    let errno = Errno::from_io_error(&error);
    let (code, why) = match errno {
        Some(Errno::NOENT) => ("op.not_found", "there is no such file or directory"),
        Some(Errno::EXIST) => ("op.already_exists", "it exists already"),
        Some(Errno::ACCESS | Errno::PERM) => ("auth.permission_denied", "the sandbox' user may not"),
        Some(Errno::ROFS) => ("auth.permission_denied", "the file system is read-only"),
        Some(Errno::NOTDIR) => ("op.conflict", "a part of the path is not a directory"),
        Some(Errno::ISDIR) => ("op.conflict", "it is a directory"),
        Some(Errno::NOTEMPTY) => ("op.conflict", "the directory is not empty"),
        Some(Errno::LOOP) => (
            "op.conflict",
            "the path leads through a link that is not followed",
        ),
        Some(Errno::XDEV) => ("op.conflict", "the two lie on different file systems"),
        Some(Errno::BUSY | Errno::TXTBSY) => ("op.conflict", "it is in use"),
        Some(Errno::NXIO) => ("op.conflict", "it is a special file"),
        Some(Errno::NAMETOOLONG) => ("op.invalid_input", "the name is too long"),
        Some(Errno::INVAL) => ("op.invalid_input", "the file system does not take this"),
        Some(Errno::NOSPC | Errno::DQUOT) => ("rate.resource_exhausted", "the disk is full"),
        Some(Errno::FBIG) => ("rate.resource_exhausted", "the file is too large"),
        Some(Errno::NFILE | Errno::MFILE) => ("rate.resource_exhausted", "too many files are open"),
        Some(Errno::NOMEM) => ("rate.resource_exhausted", "there is no memory left"),
        Some(Errno::AGAIN) => ("rate.resource_exhausted", "there are too many processes"),
        _ => {
            return GuestFault::new("service.internal", format!("could not {what}: {error}"));
        }
    };
    let fault = GuestFault::new(code, format!("could not {what}: {why}"));
    match errno {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => fault.with("resource", "disk"),
        Some(Errno::NFILE | Errno::MFILE) => fault.with("resource", "files"),
        Some(Errno::NOMEM) => fault.with("resource", "memory"),
        Some(Errno::AGAIN) => fault.with("resource", "pids"),
        _ => fault,
    }
}

/// `op.invalid_input`, naming the field.
pub(crate) fn invalid(field: &str, message: impl Into<String>) -> GuestFault {
    GuestFault::new("op.invalid_input", message).with("field", field)
}

/// `op.conflict`.
pub(crate) fn conflict(message: impl Into<String>) -> GuestFault {
    GuestFault::new("op.conflict", message)
}

/// A thread did not come back.
pub(crate) fn lost(_: tokio::task::JoinError) -> GuestFault {
    GuestFault::new("service.internal", "the work was lost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_catalogue() {
        for errno in 1..134 {
            let fault = io_fault("look", io::Error::from_raw_os_error(errno));
            assert!(nimbus_errors::Code::find(&fault.code).is_some(), "{fault}");
        }
        let full = io_fault("write", Errno::NOSPC);
        assert_eq!(full.code, "rate.resource_exhausted");
        assert_eq!(full.detail.get("resource").map(String::as_str), Some("disk"));
    }
}
