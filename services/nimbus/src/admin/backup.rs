//! `nimbus backup` and `nimbus restore`: the SQLite file of a single host.

use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_store::DatabaseUrl;
use nimbus_store::sqlx::{self, ConnectOptions, Connection};

use crate::output;
use crate::problem::{Outcome, Problem};
use crate::server::args::DataArgs;
use crate::server::boot;

/// Copy the database to a file, also while the server runs.
///
/// The copy is of one moment. The encryption key is not in it: keep the data folder's encryption.key, or
/// what NIMBUS_ENCRYPTION_KEY holds, in another place.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// Where to write the copy.
    file: Utf8PathBuf,

    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Put a backup in the database's place. The server must not run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup.
    file: Utf8PathBuf,

    /// Replace the database that is there, without asking.
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    pub(crate) data: DataArgs,
}

pub(crate) async fn backup(args: BackupArgs) -> Outcome {
    let database = sqlite(&args.data, "pg_dump")?;
    let what = format!("could not back up {database}");
    if !database.exists() {
        return Err(Problem::failed(what)
            .why("there is no such file")
            .next("name the data folder with --data-dir"));
    }
    if args.file.exists() && !args.force {
        return Err(Problem::refused(format!("{} exists", args.file)).next("add --force to replace it"));
    }
    let fresh = Utf8PathBuf::from(format!("{}.{}.new", args.file, std::process::id()));
    let copied = copy(&database, &fresh).await.and_then(|()| {
        finish(&fresh, &args.file).map_err(|error| Problem::failed(what.clone()).because(&error))
    });
    if copied.is_err() {
        // What is left of a failed copy is of no use; that it cannot be removed would hide why it failed.
        let _ = std::fs::remove_file(&fresh);
    }
    copied?;
    let size = std::fs::metadata(&args.file).map_or(0, |file| file.len());
    output::say(format_args!(
        "Backed {database} up to {} ({} KiB).",
        args.file,
        size.div_ceil(1024)
    ));
    Ok(())
}

/// A consistent copy of one moment: `VACUUM INTO` reads in one transaction, beside the server's.
async fn copy(database: &Utf8Path, target: &Utf8Path) -> Outcome {
    let failed =
        |error: sqlx::Error| Problem::failed(format!("could not back up {database}")).because(&error);
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(database)
        .busy_timeout(std::time::Duration::from_secs(30))
        .connect()
        .await
        .map_err(failed)?;
    sqlx::query("VACUUM INTO $1")
        .bind(target.as_str())
        .execute(&mut connection)
        .await
        .map_err(failed)?;
    connection.close().await.map_err(failed)
}

fn finish(fresh: &Utf8Path, target: &Utf8Path) -> std::io::Result<()> {
    let file = std::fs::File::open(fresh)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.sync_all()?;
    std::fs::rename(fresh, target)?;
    // The rename is only lasting once the folder is on disk.
    let folder = target
        .parent()
        .filter(|folder| !folder.as_str().is_empty())
        .unwrap_or(Utf8Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

pub(crate) async fn restore(args: RestoreArgs) -> Outcome {
    let database = sqlite(&args.data, "psql or pg_restore")?;
    let replaces = database.exists();
    if replaces {
        output::confirm(
            &format!("Replace {database} by the backup {}", args.file),
            args.yes,
        )?;
    }
    if let Some(folder) = database.parent().filter(|folder| !folder.as_str().is_empty()) {
        boot::data_dir(folder)?;
    }
    nimbus_store::restore(&args.file, &database, replaces)
        .await
        .map_err(|error| Problem::failed(format!("could not restore {}", args.file)).because(&error))?;
    output::say(format_args!("Restored {} to {database}.", args.file));
    Ok(())
}

fn sqlite(data: &DataArgs, tool: &str) -> Outcome<Utf8PathBuf> {
    match data.database() {
        DatabaseUrl::Sqlite(path) => Ok(path),
        url @ DatabaseUrl::Postgres(_) => Err(Problem::usage(format!("{url} is not a single file"))
            .next(format!("use {tool}, which comes with PostgreSQL"))),
    }
}
