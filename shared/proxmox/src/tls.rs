//! Certificates of nodes, mostly self-signed.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::config::TlsPolicy;
use crate::error::ProxmoxError;

/// Sets up certificate checks as the policy says.
pub(crate) fn apply(
    builder: reqwest::ClientBuilder,
    policy: &TlsPolicy,
) -> Result<reqwest::ClientBuilder, ProxmoxError> {
    Ok(match policy {
        TlsPolicy::System => builder,
        TlsPolicy::Insecure => builder.tls_danger_accept_invalid_certs(true),
        TlsPolicy::CaFile(path) => {
            let refuse = |reason: String| ProxmoxError::Config {
                what: "authority file",
                reason,
            };
            let pem = std::fs::read(path).map_err(|e| refuse(format!("{}: {e}", path.display())))?;
            let certs = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|e| refuse(format!("{}: {e}", path.display())))?;
            if certs.is_empty() {
                return Err(refuse(format!("{}: no certificate in it", path.display())));
            }
            builder.tls_certs_only(certs)
        }
        TlsPolicy::Fingerprint(text) => {
            let verifier = Pinned {
                sha256: fingerprint(text)?,
                provider: Arc::new(aws_lc_rs::default_provider()),
            };
            let config = rustls::ClientConfig::builder_with_provider(verifier.provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|e| ProxmoxError::Config {
                    what: "fingerprint",
                    reason: e.to_string(),
                })?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            builder.tls_backend_preconfigured(config)
        }
    })
}

/// Whether a request failed because of the peer's certificate, which no repetition helps.
pub(crate) fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return matches!(tls, rustls::Error::InvalidCertificate(_));
    }
    // An I/O error hides what it wraps from `source`.
    match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().is_some_and(|inner| is_distrust(inner)),
        None => error.source().is_some_and(is_distrust),
    }
}

fn fingerprint(text: &str) -> Result<[u8; 32], ProxmoxError> {
    let digits: String = text.trim().chars().filter(|c| *c != ':').collect();
    let mut bytes = [0; 32];
    hex::decode_to_slice(&digits, &mut bytes).map_err(|_| ProxmoxError::Config {
        what: "fingerprint",
        reason: format!("expected 64 hexadecimal digits (SHA-256), got {text:?}"),
    })?;
    Ok(bytes)
}

/// Accepts one certificate, whoever signed it.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if <[u8; 32]>::from(Sha256::digest(end_entity)) == self.sha256 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    // The pin replaces the chain of trust only: the peer must still prove that it has the key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_with_and_without_colons() {
        let plain = "AB".repeat(32);
        let colons = vec!["ab"; 32].join(":");
        assert_eq!(fingerprint(&plain).unwrap(), [0xab; 32]);
        assert_eq!(fingerprint(&colons).unwrap(), [0xab; 32]);
        for bad in ["", "abcd", &"zz".repeat(32), &"ab".repeat(33)] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }
}
