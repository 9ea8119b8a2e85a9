//! Who may call: an API token, or the ticket of a login.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::ApiError;

/// Tickets are good for so many seconds, as with PVE.
const TICKET_LIFE: u64 = 7200;
const USER: &str = "root@pam";

/// The credentials the simulator accepts.
pub(crate) struct Credentials {
    pub(crate) token_id: String,
    pub(crate) token_secret: SecretString,
    /// Password of `root@pam`; nobody can log in without one.
    pub(crate) password: Option<SecretString>,
    /// Signs tickets.
    pub(crate) key: [u8; 32],
}

/// Who called.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) token: Option<String>,
}

/// Whether two texts are equal, in a time that does not tell where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    // Hashed first, so that not even the lengths can be compared.
    Sha256::digest(a).ct_eq(&Sha256::digest(b)).into()
}

impl Credentials {
    /// Finds out who calls.
    pub(crate) fn caller(&self, headers: &HeaderMap, changes: bool, now: u64) -> Result<Caller, ApiError> {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = header.and_then(|text| text.strip_prefix("PVEAPIToken=")) {
            let (id, secret) = token.split_once('=').unwrap_or((token, ""));
            let good = same(id, &self.token_id) & same(secret, self.token_secret.expose_secret());
            if !good {
                return Err(ApiError::unauthorized("Authentication failed!"));
            }
            let (user, token) = self.token_id.split_once('!').unwrap_or((&self.token_id, ""));
            return Ok(Caller {
                user: user.to_owned(),
                token: Some(token.to_owned()),
            });
        }
        let cookies = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let ticket = cookies
            .flat_map(|line| line.split(';'))
            .find_map(|pair| pair.trim().strip_prefix("PVEAuthCookie="));
        let Some(ticket) = ticket else {
            return Err(ApiError::unauthorized("No ticket"));
        };
        let ticket = percent_encoding::percent_decode_str(ticket)
            .decode_utf8_lossy()
            .into_owned();
        if !self.ticket_is_good(&ticket, now) {
            return Err(ApiError::unauthorized("invalid PVE ticket"));
        }
        let csrf = headers
            .get("csrfpreventiontoken")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if changes && !same(csrf, &self.csrf(&ticket)) {
            return Err(ApiError::unauthorized("Permission denied - invalid csrf token"));
        }
        Ok(Caller {
            user: USER.to_owned(),
            token: None,
        })
    }

    /// Checks a password; answers user, ticket and CSRF token.
    pub(crate) fn login(
        &self,
        user: &str,
        realm: Option<&str>,
        password: &str,
        now: u64,
    ) -> Result<(String, String, String), ApiError> {
        let user = match realm {
            Some(realm) if !user.contains('@') => format!("{user}@{realm}"),
            _ => user.to_owned(),
        };
        let known = self
            .password
            .as_ref()
            .is_some_and(|known| same(known.expose_secret(), password));
        // A valid ticket is accepted for a password: that is how clients renew it.
        if user != USER || !(known || self.ticket_is_good(password, now)) {
            return Err(ApiError::unauthorized("authentication failure"));
        }
        let ticket = self.ticket(now);
        let csrf = self.csrf(&ticket);
        Ok((user, ticket, csrf))
    }

    fn ticket(&self, now: u64) -> String {
        let body = format!("PVE:{USER}:{now:08X}");
        let signature = self.sign(&body);
        format!("{body}::{signature}")
    }

    fn ticket_is_good(&self, ticket: &str, now: u64) -> bool {
        let Some((body, signature)) = ticket.split_once("::") else {
            return false;
        };
        let issued = body
            .rsplit(':')
            .next()
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let fresh =
            issued.is_some_and(|issued| issued <= now + 300 && now < issued.saturating_add(TICKET_LIFE));
        same(signature, &self.sign(body)) & fresh
    }

    fn csrf(&self, ticket: &str) -> String {
        self.sign(&format!("csrf {ticket}"))
    }

    fn sign(&self, text: &str) -> String {
        // Key on both sides, against extension of the hash.
        let hash = Sha256::new()
            .chain_update(self.key)
            .chain_update(text)
            .chain_update(self.key)
            .finalize();
        hex::encode(hash)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            token_id: "root@pam!nimbus".to_owned(),
            token_secret: "secret".to_owned().into(),
            password: Some("hunter2".to_owned().into()),
            key: [7; 32],
        }
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )])
    }

    #[test]
    fn tokens() {
        let credentials = credentials();
        let caller = credentials
            .caller(
                &with("authorization", "PVEAPIToken=root@pam!nimbus=secret"),
                true,
                0,
            )
            .unwrap();
        assert_eq!(
            (caller.user.as_str(), caller.token.as_deref()),
            ("root@pam", Some("nimbus"))
        );
        for bad in [
            "PVEAPIToken=root@pam!nimbus=secre",
            "PVEAPIToken=root@pam!other=secret",
            "PVEAPIToken=",
            "Bearer x",
        ] {
            assert_eq!(
                credentials
                    .caller(&with("authorization", bad), false, 0)
                    .unwrap_err()
                    .status,
                401,
                "{bad}"
            );
        }
    }

    #[test]
    fn tickets() {
        let credentials = credentials();
        assert!(credentials.login("root@pam", None, "wrong", 10).is_err());
        assert!(credentials.login("guest@pam", None, "hunter2", 10).is_err());
        let (user, ticket, csrf) = credentials.login("root", Some("pam"), "hunter2", 10).unwrap();
        assert_eq!(user, "root@pam");
        let mut headers = with("cookie", &format!("a=b; PVEAuthCookie={ticket}"));
        assert!(credentials.caller(&headers, false, 20).is_ok());
        assert!(credentials.caller(&headers, false, 10 + TICKET_LIFE).is_err());
        assert!(
            credentials.caller(&headers, true, 20).is_err(),
            "a change needs the CSRF token"
        );
        headers.insert("csrfpreventiontoken", HeaderValue::from_str(&csrf).unwrap());
        assert!(credentials.caller(&headers, true, 20).is_ok());
        let forged = with(
            "cookie",
            &format!("PVEAuthCookie={}", ticket.replace("root", "toor")),
        );
        assert!(credentials.caller(&forged, false, 20).is_err());
    }
}
