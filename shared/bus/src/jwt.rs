//! NATS JWTs: the statements by which an operator names accounts and an account names users.
//!
//! `base64url(header).base64url(claims).base64url(ed25519 signature)` without padding; the layout of
//! the claims is that of <https://github.com/nats-io/jwt>, version 2.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nimbus_model::Timestamp;
use nkeys::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha512_256};

/// How long, in nanoseconds, a service may answer a request that it got: longer than any method runs.
const ANSWER_WITHIN_NS: u64 = 300_000_000_000;

/// The operator's statement about itself.
pub(crate) fn operator(operator: &KeyPair, system: &str, now: Timestamp) -> String {
    let nats = json!({ "type": "operator", "version": 2, "system_account": system });
    sign(operator, &operator.public_key(), "nimbus", now, None, &nats)
}

/// The operator's statement about an account; with `storage` it may use JetStream.
pub(crate) fn account(
    operator: &KeyPair,
    account: &str,
    name: &str,
    storage: bool,
    now: Timestamp,
) -> String {
    let mut limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1
    });
    if let (true, Some(limits)) = (storage, limits.as_object_mut()) {
        for what in ["mem_storage", "disk_storage", "streams", "consumer"] {
            limits.insert(what.to_owned(), json!(-1));
        }
    }
    let nats = json!({
        "type": "account", "version": 2, "limits": limits,
        "default_permissions": { "pub": {}, "sub": {} }
    });
    sign(operator, account, name, now, None, &nats)
}

/// The account's statement about a user and its rights.
pub(crate) fn user(
    account: &KeyPair,
    user: &str,
    name: &str,
    (publish, subscribe): (&[String], &[String]),
    now: Timestamp,
    expires: Option<Timestamp>,
) -> String {
    let nats = json!({
        "type": "user", "version": 2,
        "pub": allow(publish), "sub": allow(subscribe),
        "subs": -1, "data": -1, "payload": -1,
        "resp": { "max": 1, "ttl": ANSWER_WITHIN_NS }
    });
    sign(account, user, name, now, expires, &nats)
}

/// The server reads an empty list as "everything", so nothing is said as a denial.
fn allow(subjects: &[String]) -> Value {
    if subjects.is_empty() {
        json!({ "deny": [">"] })
    } else {
        json!({ "allow": subjects })
    }
}

fn sign(
    issuer: &KeyPair,
    subject: &str,
    name: &str,
    now: Timestamp,
    expires: Option<Timestamp>,
    nats: &Value,
) -> String {
    let mut claims = json!({
        "iat": now.micros() / 1_000_000, "iss": issuer.public_key(), "sub": subject, "name": name, "jti": "", "nats": nats
    });
    if let (Some(expires), Some(claims)) = (expires, claims.as_object_mut()) {
        claims.insert("exp".to_owned(), json!(expires.micros() / 1_000_000));
    }
    let id = data_encoding::BASE32_NOPAD.encode(&Sha512_256::digest(claims.to_string()));
    if let Some(claims) = claims.as_object_mut() {
        claims.insert("jti".to_owned(), json!(id));
    }
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let said = format!(
        "{}.{}",
        encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })),
        encode(&claims)
    );
    let signature = issuer
        .sign(said.as_bytes())
        .expect("the issuer's key pair was made from a seed");
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_signs_what_is_said() {
        let (account, holder) = (KeyPair::new_account(), KeyPair::new_user());
        let token = user(
            &account,
            &holder.public_key(),
            "ippool",
            (&["a.b".to_owned()], &[]),
            Timestamp::from_micros(5_000_000),
            None,
        );
        let (said, signature) = token.rsplit_once('.').unwrap();
        account
            .verify(said.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
            .unwrap();
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(said.split_once('.').unwrap().1).unwrap())
                .unwrap();
        assert_eq!(claims["iat"], 5);
        assert_eq!(claims["nats"]["pub"]["allow"][0], "a.b");
        assert_eq!(
            claims["nats"]["sub"]["deny"][0], ">",
            "no subject must not mean every subject"
        );
    }
}
