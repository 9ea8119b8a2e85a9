//! The ground that services stand on: data folder, database, key, bus.

use std::os::unix::fs::DirBuilderExt;

use camino::Utf8Path;
use nimbus_bus::{Authority, Bus, ConnectOptions, Credential, EmbeddedNats, EmbeddedOptions};
use nimbus_model::{Clock, Hostname};
use nimbus_store::{Database, DatabaseUrl, Sealer};

use super::Service;
use super::args::{BusArgs, DataArgs};
use crate::problem::{Outcome, Problem};

/// Makes the data folder, readable by its owner only.
pub(crate) fn data_dir(path: &Utf8Path) -> Outcome {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Problem::failed(format!("could not make the data folder {path}")).because(&error))
}

/// Opens the database. A SQLite file is locked, so that a second process on it fails here.
pub(crate) async fn database(args: &DataArgs) -> Outcome<Database> {
    let url = args.database();
    if let DatabaseUrl::Sqlite(path) = &url
        && let Some(folder) = path.parent().filter(|folder| !folder.as_str().is_empty())
    {
        data_dir(folder)?;
    }
    Database::open(&url)
        .await
        .map_err(|error| Problem::failed(format!("could not open {url}")).because(&error))
}

/// Loads the key that seals secrets.
pub(crate) fn sealer(args: &DataArgs) -> Outcome<Sealer> {
    Sealer::load(&args.key_file(), args.encryption_key.as_ref())
        .map_err(|error| Problem::failed("could not load the encryption key").because(&error))
}

/// The bus of this process: its own server, or one elsewhere.
#[derive(Debug)]
pub(crate) enum Ground {
    /// The server inside this program.
    Embedded {
        /// The server.
        nats: EmbeddedNats,
        /// Makes credentials for it.
        authority: Box<Authority>,
    },
    /// A server that others run.
    External(BusArgs),
}

impl Ground {
    /// Starts the embedded server, unless there is another to use.
    pub(crate) async fn open(args: &BusArgs, data: &Utf8Path) -> Outcome<Self> {
        if args.nats_url.is_some() {
            return Ok(Self::External(args.clone()));
        }
        let failed = |error: nimbus_bus::BusError| Problem::failed("could not start the bus").because(&error);
        let authority = Box::new(Authority::open(data.join("bus")).map_err(failed)?);
        let options = EmbeddedOptions {
            data_dir: data.to_owned(),
            authority: Some(&authority),
            binary: None,
        };
        let nats = EmbeddedNats::start(options).await.map_err(failed)?;
        Ok(Self::Embedded { nats, authority })
    }

    /// Connects a service under its own name and with its own rights.
    pub(crate) async fn connect(&self, service: Service, host: &Hostname, clock: &Clock) -> Outcome<Bus> {
        let user = service.user(host)?;
        let name = user.name.clone();
        let failed = |error: nimbus_bus::BusError| {
            Problem::failed(format!("could not connect {name} to the bus")).because(&error)
        };
        let (url, credential, ca_file) = match self {
            Self::Embedded { nats, authority } => (nats.url(), Some(authority.mint(&user)), None),
            Self::External(args) => {
                let credential = match &args.nats_creds {
                    Some(folder) => {
                        let path = folder.join(format!("{}.creds", service.name()));
                        Some(Credential::from_creds_file(&path).map_err(failed)?)
                    }
                    None => None,
                };
                (
                    args.nats_url.clone().unwrap_or_default(),
                    credential,
                    args.nats_ca_file.clone(),
                )
            }
        };
        let options = ConnectOptions {
            url,
            name: name.clone(),
            credential,
            ca_file,
            clock: clock.clone(),
        };
        Bus::connect(options).await.map_err(failed)
    }

    /// Ends the embedded server; call it after the services have left.
    pub(crate) async fn close(&self) {
        if let Self::Embedded { nats, .. } = self {
            nats.stop().await;
        }
    }

    /// In words, for the summary.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Embedded { nats, .. } => format!("embedded nats-server on {}", nats.url()),
            Self::External(args) => args.nats_url.clone().unwrap_or_default(),
        }
    }
}
