//! The ground that services stand on: data folder, database, key, bus.

use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use camino::Utf8Path;
use nimbus_auth::BusMint;
use nimbus_bus::{Authority, Bus, ConnectOptions, Credential, EmbeddedNats, EmbeddedOptions, Exposure};
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
        authority: Arc<Authority>,
        /// Where other hosts reach it, if they do.
        public_url: Option<String>,
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
        let exposure = exposure(args)?;
        let failed = |error: nimbus_bus::BusError| Problem::failed("could not start the bus").because(&error);
        let authority = Arc::new(Authority::open(data.join("bus")).map_err(failed)?);
        let options = EmbeddedOptions {
            data_dir: data.to_owned(),
            authority: Some(&authority),
            binary: None,
        };
        let Some(exposure) = exposure else {
            let nats = EmbeddedNats::start(options).await.map_err(failed)?;
            return Ok(Self::Embedded {
                nats,
                authority,
                public_url: None,
            });
        };
        let nats = EmbeddedNats::start_exposed(options, exposure)
            .await
            .map_err(failed)?;
        // Of an address that is not every address, the server's own URL is good elsewhere too.
        let public_url = args
            .bus_public_url
            .as_ref()
            .map_or_else(|| nats.url(), |url| url.as_str().trim_end_matches('/').to_owned());
        Ok(Self::Embedded {
            nats,
            authority,
            public_url: Some(public_url),
        })
    }

    /// What makes credentials for other hosts; empty where they do not reach the bus.
    pub(crate) fn mint(&self) -> Outcome<BusMint> {
        match self {
            Self::Embedded {
                nats,
                authority,
                public_url,
            } => Ok(BusMint {
                authority: Some(Arc::clone(authority)),
                public_url: public_url.clone(),
                ca_pem: nats.ca_file().map(pem).transpose()?,
            }),
            Self::External(args) => {
                let Some(folder) = &args.bus_authority else {
                    return Ok(BusMint::default());
                };
                if !folder.join("authority.json").exists() {
                    return Err(Problem::usage(format!("{folder} has no keys of the bus"))
                        .next(format!("nimbus bus init {folder}")));
                }
                let authority = Authority::open(folder).map_err(|error| {
                    Problem::failed(format!("could not read the keys of the bus in {folder}")).because(&error)
                })?;
                Ok(BusMint {
                    authority: Some(Arc::new(authority)),
                    public_url: args
                        .bus_public_url
                        .as_ref()
                        .map(|url| url.as_str().trim_end_matches('/').to_owned()),
                    ca_pem: args.nats_ca_file.as_deref().map(pem).transpose()?,
                })
            }
        }
    }

    /// Connects a service under its own name and with its own rights.
    pub(crate) async fn connect(&self, service: Service, host: &Hostname, clock: &Clock) -> Outcome<Bus> {
        let user = service.user(host)?;
        let name = user.name.clone();
        let failed = |error: nimbus_bus::BusError| {
            Problem::failed(format!("could not connect {name} to the bus")).because(&error)
        };
        let (url, credential, ca_file) = match self {
            Self::Embedded { nats, authority, .. } => (
                nats.url(),
                Some(authority.mint(&user)),
                nats.ca_file().map(Utf8Path::to_owned),
            ),
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
            Self::Embedded {
                nats,
                public_url: Some(public),
                ..
            } => format!("embedded nats-server on {}, for other hosts {public}", nats.url()),
            Self::Embedded { nats, .. } => format!("embedded nats-server on {}", nats.url()),
            Self::External(args) => args.nats_url.clone().unwrap_or_default(),
        }
    }
}

/// Where other hosts are to reach the embedded server.
fn exposure(args: &BusArgs) -> Outcome<Option<Exposure>> {
    let Some(listen) = args.bus_listen else {
        return match &args.bus_public_url {
            Some(url) => Err(Problem::usage(format!(
                "other hosts are told {url}, and the bus listens on this one only"
            ))
            .next("set --bus-listen, such as 0.0.0.0:4222")),
            None => Ok(None),
        };
    };
    let public = args.bus_public_url.as_ref().and_then(|url| url.host_str());
    if public.is_none() && listen.ip().is_unspecified() {
        return Err(Problem::usage(format!(
            "{listen} is every address of this host, and not what other hosts call it"
        ))
        .next("set --bus-public-url, such as tls://nimbus.example.org:4222"));
    }
    Ok(Some(Exposure {
        listen,
        names: public
            .map(|name| name.trim_matches(['[', ']']).to_owned())
            .into_iter()
            .collect(),
    }))
}

/// The text of a certificate, to be handed out.
fn pem(path: &Utf8Path) -> Outcome<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Problem::failed(format!("could not read {path}")).because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(listen: Option<&str>, public: Option<&str>) -> BusArgs {
        BusArgs {
            nats_url: None,
            nats_creds: None,
            nats_ca_file: None,
            bus_listen: listen.map(|text| text.parse().unwrap()),
            bus_public_url: public.map(|text| text.parse().unwrap()),
            bus_authority: None,
        }
    }

    #[test]
    fn who_listens_for_others_says_what_they_call_it() {
        assert!(exposure(&args(None, None)).unwrap().is_none());
        assert!(exposure(&args(None, Some("tls://a:4222"))).is_err());
        assert!(exposure(&args(Some("0.0.0.0:4222"), None)).is_err());
        let names = |listen, public| exposure(&args(Some(listen), public)).unwrap().unwrap().names;
        assert_eq!(names("0.0.0.0:4222", Some("tls://a.example:4222")), ["a.example"]);
        assert_eq!(names("[::]:4222", Some("tls://[fd00::7]:4222")), ["fd00::7"]);
        assert!(names("10.0.0.7:4222", None).is_empty());
    }
}
