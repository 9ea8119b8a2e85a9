//! Users, sessions, tenants and tokens: who somebody is, and what proves it.
//!
//! ```text
//!  password ─▶ session (cookie, days) ─┐
//!                                      ├─▶ access token (Ed25519 JWT, minutes) ─▶ every service
//!  personal access token (scripts) ────┤
//!  API key (programs, by grants) ──────┤
//!  admin token (a file) ───────────────┤
//!  token inside a machine (GPUs only) ─┘
//! ```
//!
//! Stored are Argon2id hashes of passwords and SHA-256 hashes of secrets; the signing key is sealed.
//! Any number of replicas may run on one database.

mod account;
pub mod admin;
mod auth;
mod bus_mint;
mod check;
mod config;
mod error;
mod join;
mod key;
mod machine_token;
mod methods;
mod password;
mod secret;
mod session;
mod signing;
mod store;
mod store_key;
mod store_machine;
mod throttle;
mod token;

use std::sync::Arc;

use nimbus_service::{Ctx, OnError, Outbox, RunError};
use nimbus_store::{Migration, migrations};

pub use bus_mint::BusMint;
pub use config::{AuthConfig, AuthConfigError};

use crate::auth::Auth;
use crate::signing::Signer;

const MIGRATIONS: &[Migration] = migrations![
    "0001_init" => include_str!("../migrations/0001_init.sql"),
    "0002_outbox" => "CREATE TABLE auth_outbox (id TEXT PRIMARY KEY, body TEXT NOT NULL, created_at BIGINT NOT NULL);",
    "0003_key" => include_str!("../migrations/0003_key.sql"),
    "0004_machine_token" => include_str!("../migrations/0004_machine_token.sql"),
    "0005_join_token" => include_str!("../migrations/0005_join_token.sql"),
];

/// Serves until `ctx.stop` fires. Ready once every subscription is live. `mint` makes credentials for the bus.
///
/// # Errors
/// Settings that cannot be; no encryption key, or another one than the signing key was sealed under;
/// a database or bus that fails while starting.
pub async fn run(ctx: Ctx, config: AuthConfig, mint: BusMint) -> Result<(), RunError> {
    config
        .validate()
        .map_err(|error| RunError::other("the settings of sign-in cannot be used", error))?;
    let store = ctx.store("auth", MIGRATIONS).await?;
    let sealer = ctx.sealer("auth")?;
    ctx.bus.ensure_streams().await?;
    let outbox = Outbox::new(store.clone(), "auth_outbox");
    outbox.relay(&ctx.tasks, &ctx.bus, "auth.outbox");

    let failed = |error| RunError::other("could not open the accounts", error);
    let signer = Signer::open(&store, &sealer, &ctx.clock).await.map_err(failed)?;
    let mut auth = Auth::new(store, outbox, ctx.clock.clone(), signer, &config);
    auth.mint = mint;
    if let Some(path) = &config.admin_token_file {
        auth.admin = admin::Holder::open(path.clone(), ctx.clock.clone())
            .map_err(|error| RunError::other("the admin token's file cannot be used", error))?;
    }
    auth.ensure_admin().await.map_err(failed)?;

    let (verifier, bus) = (Arc::clone(&auth.verifier), ctx.bus.clone());
    ctx.tasks.spawn("auth.revocations", OnError::Restart, move || {
        let (verifier, bus) = (Arc::clone(&verifier), bus.clone());
        async move { Ok(verifier.follow_revocations_on(&bus).await?) }
    });
    let (cleaning, bus) = (auth.clone(), ctx.bus.clone());
    ctx.tasks.spawn("auth.purge", OnError::Restart, move || {
        cleaning.clone().keep_clean(bus.clone())
    });

    let serving = methods::serve(&ctx.bus.with_verifier(auth.verifier.clone()), &auth).await?;
    ctx.ready().await;
    serving.stop().await;
    Ok(())
}
