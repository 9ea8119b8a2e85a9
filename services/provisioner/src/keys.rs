//! SSH keys: brought or generated.

use nimbus_model::Hostname;
use ssh_key::{Algorithm, LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::error::MachineError;

/// The longest public key that is taken, in bytes; an RSA key of 16384 bits has about 2.8 KB.
const PUBLIC_MAX: usize = 16 * 1024;

/// A fresh pair.
pub(crate) struct Generated {
    /// `authorized_keys` line.
    pub(crate) public: String,
    /// OpenSSH PEM, without a passphrase.
    pub(crate) private: Zeroizing<String>,
    /// What its file should be called.
    pub(crate) name: String,
}

/// Checks a public key line that a caller brings, and trims it.
///
/// One key only: PVE would take several lines, but nobody expects a second key to get in unseen.
pub(crate) fn check_public(text: &str) -> Result<String, MachineError> {
    let invalid = |message: String| MachineError::Invalid {
        field: "ssh_pubkey",
        message,
    };
    let line = text.trim();
    if line.is_empty() {
        return Err(invalid(
            "the key is empty; paste the line of your .pub file".into(),
        ));
    }
    if line.len() > PUBLIC_MAX {
        return Err(invalid(format!(
            "the key has {} bytes; at most {PUBLIC_MAX} are taken",
            line.len()
        )));
    }
    if line.contains("PRIVATE KEY") {
        return Err(invalid(
            "this is a private key; paste the public one, from the file that ends in .pub".into(),
        ));
    }
    if line.lines().count() > 1 || line.chars().any(char::is_control) {
        return Err(invalid("give exactly one key, on one line".into()));
    }
    let key = PublicKey::from_openssh(line).map_err(|error| {
        invalid(format!(
            "not an OpenSSH public key (\"ssh-ed25519 AAAA… name\"): {error}"
        ))
    })?;
    match key.algorithm() {
        Algorithm::Dsa => Err(invalid(
            "DSA keys are refused by today's SSH servers; use Ed25519".into(),
        )),
        _ => Ok(line.to_owned()),
    }
}

/// Makes an Ed25519 pair (RFC 8709) for a machine.
pub(crate) fn generate(hostname: &Hostname) -> Result<Generated, MachineError> {
    let name = format!("nimbus-{hostname}");
    let failed = |error: ssh_key::Error| MachineError::Damaged {
        what: "a fresh key",
        reason: error.to_string(),
    };
    let mut seed = Zeroizing::new([0u8; 32]);
    rand::fill(seed.as_mut_slice());
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let mut key = PrivateKey::from(pair);
    key.set_comment(name.clone());
    let public = key.public_key().to_openssh().map_err(failed)?;
    let private = key.to_openssh(LineEnding::LF).map_err(failed)?;
    Ok(Generated {
        public,
        private: Zeroizing::new(private.to_string()),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_pair_belongs_together_and_is_taken_as_a_brought_one() {
        let pair = generate(&"web-1".parse().unwrap()).unwrap();
        let private = PrivateKey::from_openssh(pair.private.as_str()).unwrap();
        assert_eq!(private.public_key().to_openssh().unwrap(), pair.public);
        assert!(!private.is_encrypted());
        assert_eq!(
            check_public(&format!("  {}\n", pair.public)).unwrap(),
            pair.public
        );
        assert_eq!(pair.name, "nimbus-web-1");
        assert_ne!(generate(&"web-1".parse().unwrap()).unwrap().public, pair.public);
    }

    #[test]
    fn what_is_not_one_public_key_is_refused_with_a_reason() {
        let pair = generate(&"a".parse().unwrap()).unwrap();
        let two = format!("{}\n{}", pair.public, pair.public);
        for (text, reason) in [
            ("", "empty"),
            ("hello", "not an OpenSSH public key"),
            (pair.private.as_str(), "private key"),
            (two.as_str(), "one line"),
            ("ssh-ed25519 !!!", "not an OpenSSH public key"),
            (&"x".repeat(20_000), "bytes"),
        ] {
            let error = check_public(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:.20}: {error}");
        }
    }
}
