//! The commands for who runs an installation: backups, bus credentials, settings.

pub(crate) mod backup;
pub(crate) mod bus;
pub(crate) mod settings;
