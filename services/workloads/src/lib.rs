//! Tenants, services, sandboxes and sessions.

mod config;

use nimbus_service::{Ctx, RunError};

pub use config::WorkloadsConfig;

/// Serves until `ctx.stop` fires. Ready once every subscription is live; no host need be there.
///
/// # Errors
/// A database or bus that fails while starting.
pub async fn run(ctx: Ctx, config: WorkloadsConfig) -> Result<(), RunError> {
    drop(config);
    ctx.ready().await;
    Ok(())
}
