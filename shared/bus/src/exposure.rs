//! The server inside Nimbus, reached by other computers: an authority of its own and TLS for everybody.
//!
//! ```text
//! bus/tls/authority.key ──signs──▶ authority.pem   kept; a box that was paired believes it
//!                       └─signs──▶ server.pem      made at every start, for the names of that day
//! ```
//! A server speaks TLS to all of its clients or to none, so the services of this process do too.

use std::net::{IpAddr, SocketAddr};

use camino::{Utf8Path, Utf8PathBuf};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::credential::write_private;
use crate::error::BusError;
use crate::server_config::ServerTls;

/// Where other computers reach the server inside Nimbus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Address and port to listen on. Port 0 lets the server pick one, which it keeps while it lives.
    pub listen: SocketAddr,
    /// What other computers call this one: names and addresses for its certificate, beside the address
    /// above and those of the loopback.
    pub names: Vec<String>,
}

/// The files that the server proves itself with.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Whom clients have to believe.
    pub authority: Utf8PathBuf,
    /// What the server shows.
    pub server: ServerTls,
}

impl Exposure {
    /// Listening on this address, under no further names.
    #[must_use]
    pub const fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            names: Vec::new(),
        }
    }

    /// How the configuration names where to listen; its port is filled in later.
    pub(crate) fn listen_template(&self) -> String {
        match self.listen.ip() {
            IpAddr::V4(ip) => format!("{ip}:@PORT@"),
            IpAddr::V6(ip) => format!("[{ip}]:@PORT@"),
        }
    }

    /// The port, if it was named.
    pub(crate) fn port(&self) -> Option<u16> {
        Some(self.listen.port()).filter(|port| *port != 0)
    }

    /// Where clients on this computer reach the server.
    pub(crate) fn near(&self) -> String {
        match self.listen.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }
    }

    /// Makes the files: the authority once, the server's certificate anew.
    pub(crate) fn certify(&self, dir: &Utf8Path) -> Result<Files, BusError> {
        std::fs::create_dir_all(dir).map_err(|source| BusError::File {
            what: "create the folder",
            path: dir.to_owned(),
            source,
        })?;
        let params = authority_params();
        let authority = dir.join("authority.pem");
        let key = authority_key(dir, &authority, &params)?;

        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if !self.listen.ip().is_unspecified() {
            names.push(self.listen.ip().to_string());
        }
        names.extend(self.names.iter().cloned());
        names.sort_unstable();
        names.dedup();
        let mut server = CertificateParams::new(names).map_err(|_| BusError::Invalid {
            text: self.names.join(", "),
            wanted: "a list of names and addresses of this computer",
        })?;
        let (from, until) = validity();
        (server.not_before, server.not_after) = (from, until);
        server
            .distinguished_name
            .push(DnType::CommonName, "Nimbus bus server");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let server_key = KeyPair::generate().map_err(refused)?;
        let certificate = server
            .signed_by(&server_key, &Issuer::new(params, key))
            .map_err(refused)?;
        let tls = ServerTls {
            cert_file: dir.join("server.pem"),
            key_file: dir.join("server.key"),
        };
        write_private(&tls.cert_file, &certificate.pem())?;
        write_private(&tls.key_file, &server_key.serialize_pem())?;
        Ok(Files {
            authority,
            server: tls,
        })
    }
}

/// The authority's key; its certificate is made with it, or again if it was lost.
fn authority_key(
    dir: &Utf8Path,
    certificate: &Utf8Path,
    params: &CertificateParams,
) -> Result<KeyPair, BusError> {
    let path = dir.join("authority.key");
    let key = match std::fs::read_to_string(&path) {
        // A damaged one is never replaced: whoever was paired would be shut out.
        Ok(text) => KeyPair::from_pem(&text).map_err(|_| BusError::Identity {
            what: "the key of the bus' certificates",
            place: path.to_string(),
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(refused)?;
            write_private(&path, &key.serialize_pem())?;
            key
        }
        Err(source) => {
            return Err(BusError::File {
                what: "read the key",
                path,
                source,
            });
        }
    };
    if !certificate.exists() {
        let made = params.self_signed(&key).map_err(refused)?;
        write_private(certificate, &made.pem())?;
    }
    Ok(key)
}

/// What the authority's certificate says. The same at every start, because certificates name it.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    let (from, until) = validity();
    (params.not_before, params.not_after) = (from, until);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Nimbus bus authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A box whose clock has lost its battery has to get in too, and nothing here is protected by an end:
/// whoever has the authority's key makes another certificate, and whoever wants another authority removes
/// its files and pairs again.
fn validity() -> (time::OffsetDateTime, time::OffsetDateTime) {
    (date_time_ymd(2000, 1, 1), date_time_ymd(2100, 1, 1))
}

fn refused(error: rcgen::Error) -> BusError {
    BusError::Server {
        what: "certify",
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn exposure(names: &[&str]) -> Exposure {
        Exposure {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Exposure::new("0.0.0.0:0".parse().unwrap())
        }
    }

    #[test]
    fn the_authority_is_made_once_and_kept_private() {
        let dir = camino_tempfile::tempdir().unwrap();
        let read = |files: &Files| std::fs::read_to_string(&files.authority).unwrap();
        let first = exposure(&["bus.example.org"]).certify(dir.path()).unwrap();
        let (authority, server) = (
            read(&first),
            std::fs::read_to_string(&first.server.cert_file).unwrap(),
        );
        let second = exposure(&["10.0.0.7"]).certify(dir.path()).unwrap();
        assert_eq!(read(&second), authority);
        assert_ne!(std::fs::read_to_string(&second.server.cert_file).unwrap(), server);
        for name in ["authority.key", "server.key"] {
            let mode = std::fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_key_is_refused_not_replaced() {
        let dir = camino_tempfile::tempdir().unwrap();
        let key = dir.path().join("authority.key");
        std::fs::write(&key, "x").unwrap();
        assert!(exposure(&[]).certify(dir.path()).is_err());
        assert_eq!(std::fs::read_to_string(&key).unwrap(), "x");
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let dir = camino_tempfile::tempdir().unwrap();
        let error = exposure(&["büs"]).certify(dir.path()).unwrap_err();
        assert!(error.to_string().contains("büs"), "{error}");
    }

    #[test]
    fn where_clients_near_by_connect() {
        let near = |listen: &str| Exposure::new(listen.parse().unwrap()).near();
        assert_eq!(near("0.0.0.0:4222"), "127.0.0.1");
        assert_eq!(near("[::]:4222"), "127.0.0.1");
        assert_eq!(near("10.0.0.7:4222"), "10.0.0.7");
        assert_eq!(near("[fd00::7]:4222"), "[fd00::7]");
    }
}
