//! The tokens inside machines: one each, for GPUs only, ended with the machine.
//!
//! The provisioner asks for them over the bus, where nobody else may; what they are exchanged for names
//! the machine beside its owner, and the edge lets it reach nothing but the GPU plane.

use std::time::Duration;

use nimbus_bus::{Identity, Scope};
use nimbus_model::{MachineId, TenantId, TokenId, UserId};
use nimbus_proto::auth::{Exchanged, MachineTokenRequest, Secret};
use nimbus_proto::event::CredentialRevoked;

use crate::auth::Auth;
use crate::error::AuthError;
use crate::store_machine::{self, NewMachineToken};
use crate::{secret, store};

/// How exact the time of the last use is: a write per use would cost more than it tells.
const USE_GRAIN: Duration = Duration::from_secs(60);

impl Auth {
    /// Makes the token of a machine. One it had before is good no more.
    pub(crate) async fn create_machine_token(
        &self,
        request: MachineTokenRequest,
    ) -> Result<Secret, AuthError> {
        let MachineTokenRequest { owner, machine } = request;
        if operators_tenant(owner).is_none() && store::user(&self.store, owner).await?.is_none() {
            return Err(AuthError::NotFound { what: "user" });
        }
        let secret = secret::machine()?;
        let secret_hash = secret::hash(&secret).ok_or(AuthError::BadCredential)?;
        let new = NewMachineToken {
            machine,
            token: TokenId::fresh(),
            secret_hash: &secret_hash,
            user: owner,
            at: self.clock.now(),
        };
        let mut tx = self.store.begin().await?;
        let before = store_machine::delete(&mut tx, machine).await?;
        if let Some((token, user)) = before {
            // The machine goes on: only what was made from the old token is refused.
            self.tell(&mut tx, &ended(user, token, None)).await?;
        }
        store_machine::insert(&mut tx, &new).await?;
        self.commit(tx).await?;
        if let Some((token, _)) = before {
            self.refuse_token(token);
        }
        tracing::info!(machine.id = %machine, token.id = %new.token, user.id = %owner, "made the token of {machine}");
        Ok(secret)
    }

    /// Ends the token of a machine, if it has one.
    pub(crate) async fn revoke_machine_token(&self, machine: MachineId) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        let Some((token, user)) = store_machine::delete(&mut tx, machine).await? else {
            tx.rollback().await?;
            return Ok(());
        };
        self.tell(&mut tx, &ended(user, token, Some(machine))).await?;
        self.commit(tx).await?;
        self.refuse_token(token);
        tracing::info!(machine.id = %machine, token.id = %token, "revoked the token of {machine}");
        Ok(())
    }

    /// An access token for the machine with this secret: its owner's, for GPUs only.
    pub(crate) async fn exchange_machine_token(&self, secret: &Secret) -> Result<Exchanged, AuthError> {
        let hash = secret::hash(secret).ok_or(AuthError::BadCredential)?;
        let live = store_machine::live(&self.store, &hash)
            .await?
            .ok_or(AuthError::BadCredential)?;
        let tenant = live
            .tenant
            .or_else(|| operators_tenant(live.user))
            .ok_or(AuthError::BadCredential)?;
        let now = self.clock.now();
        if live.last_used_at.is_none_or(|at| now.since(at) >= USE_GRAIN) {
            let mut tx = self.store.begin().await?;
            store_machine::touch(&mut tx, live.token, now).await?;
            tx.commit().await?;
        }
        let identity = Identity {
            user: live.user,
            tenant,
            admin: false,
            scopes: vec![Scope::Gpu],
            session: None,
            token: Some(live.token),
            key: None,
            machine: Some(live.machine),
        };
        self.signer.sign(identity, None)
    }
}

/// The tenant of the operator, who owns machines without having registered.
fn operators_tenant(user: UserId) -> Option<TenantId> {
    let operator = Identity::operator();
    (operator.user == user).then_some(operator.tenant)
}

const fn ended(user: UserId, token: TokenId, machine: Option<MachineId>) -> CredentialRevoked {
    CredentialRevoked {
        user,
        session: None,
        token: Some(token),
        key: None,
        machine,
    }
}
