//! What people ask for: checks, then one transaction that writes the row, takes the quota slot and
//! starts the saga. Nothing outside is touched before that transaction is committed.

use nimbus_bus::{Identity, Key, trace};
use nimbus_model::{MachineId, OperationId, Timestamp};
use nimbus_proto::event::{MachineChanged, MachineCreated, OperationProgressed};
use nimbus_proto::machine::{
    CreateRequest, KeyChoice, MachineStatus, Operation, OperationKind, OperationState, PowerAction,
    PowerRequest, PrivateKey,
};
use nimbus_proto::{auth::Secret, work};
use nimbus_store::Tx;
use sha2::{Digest, Sha256};

use crate::error::MachineError;
use crate::keys;
use crate::machine::store::NewMachine;
use crate::machine::{self, store as machines};
use crate::operation::store::{self as operations, NewOperation};
use crate::operation::{OperationRow, steps};
use crate::sagas::{self, Params};
use crate::service::Provisioner;

/// Told to those who ask for a public SSH endpoint: the machine comes all the same.
const NO_TUNNELS: &str = "public SSH endpoints are not set up on this installation";

/// Everything a new operation is made of.
struct Order {
    id: OperationId,
    kind: OperationKind,
    identity: Identity,
    machine: MachineId,
    hostname: String,
    request: Option<(Key, String)>,
    key_name: Option<String>,
    private_key: Option<String>,
    at: Timestamp,
    trace_parent: Option<String>,
}

impl Provisioner {
    /// Orders a machine.
    pub(crate) async fn create(
        &self,
        identity: &Identity,
        key: Option<Key>,
        request: CreateRequest,
    ) -> Result<Operation, MachineError> {
        self.client()?;
        let inner = self.inner();
        if request.tier.admin_only() && !identity.admin {
            return Err(MachineError::TierRefused { tier: request.tier });
        }
        if let KeyChoice::Public(text) = &request.key {
            keys::check_public(text)?;
        }
        let asked = key.map(|key| (key, fingerprint("create", &request)));
        if let Some(known) = self.answered(identity, asked.as_ref()).await? {
            return Ok(known);
        }

        let id = OperationId::fresh();
        let machine = MachineId::fresh();
        let (ssh_pubkey, key_name, private_key) = match &request.key {
            KeyChoice::Public(text) => (keys::check_public(text)?, None, None),
            KeyChoice::Generate => {
                let pair = keys::generate(&request.hostname)?;
                let sealed = inner
                    .sealer
                    .seal(pair.private.as_bytes(), &id.to_string())
                    .map_err(|error| MachineError::Damaged {
                        what: "a fresh key",
                        reason: error.to_string(),
                    })?;
                (pair.public, Some(pair.name), Some(sealed))
            }
        };
        let at = inner.clock.now();
        let limit = if identity.admin {
            i64::MAX
        } else {
            i64::from(inner.config.member_max_machines)
        };
        let new = NewMachine {
            id: machine,
            owner: identity.user,
            tenant: identity.tenant,
            hostname: request.hostname.to_string(),
            tier: request.tier.key(),
            os: request.os.key(),
            key_name: key_name.clone(),
            ssh_pubkey,
            tunnel_error: request.public_tunnel.then(|| NO_TUNNELS.to_owned()),
            operation: id,
            at,
        };
        let order = Order {
            id,
            kind: OperationKind::Provision,
            identity: identity.clone(),
            machine,
            hostname: request.hostname.to_string(),
            request: asked,
            key_name,
            private_key,
            at,
            trace_parent: trace::current(),
        };
        let this = self.clone();
        self.place_order(order, move |tx| {
            Box::pin(async move {
                let Some(row) = machines::insert(tx, &new).await? else {
                    return Err(MachineError::HostnameTaken {
                        hostname: new.hostname,
                    });
                };
                if !machines::take_slot(tx, new.owner, limit).await? {
                    return Err(MachineError::QuotaReached {
                        limit: u32::try_from(limit).unwrap_or(u32::MAX),
                    });
                }
                this.inner()
                    .news
                    .tell(tx, &MachineCreated { machine: row.view()? })
                    .await
            })
        })
        .await
    }

    /// Deletes a machine; while it is being deleted, the operation that does.
    pub(crate) async fn delete(
        &self,
        identity: &Identity,
        key: Option<Key>,
        id: MachineId,
    ) -> Result<Operation, MachineError> {
        self.client()?;
        let asked = key.map(|key| (key, fingerprint("delete", &id)));
        if let Some(known) = self.answered(identity, asked.as_ref()).await? {
            return Ok(known);
        }
        let row = self.owned(identity, id).await?;
        if let (MachineStatus::Deleting, Some(running)) = (row.status()?, row.operation) {
            return self.operation(identity, running).await;
        }
        let ordered = self
            .change(
                identity,
                asked,
                OperationKind::Delete,
                row.id,
                row.hostname,
                "deleted",
            )
            .await;
        match ordered {
            // Ordered twice at the same moment: one deletion is what both want.
            Err(MachineError::Busy { operation }) => {
                let running = self.operation(identity, operation).await?;
                if running.kind == OperationKind::Delete {
                    Ok(running)
                } else {
                    Err(MachineError::Busy { operation })
                }
            }
            ordered => ordered,
        }
    }

    /// Powers a machine.
    pub(crate) async fn power(
        &self,
        identity: &Identity,
        key: Option<Key>,
        request: PowerRequest,
    ) -> Result<Operation, MachineError> {
        self.client()?;
        let asked = key.map(|key| (key, fingerprint("power", &request)));
        if let Some(known) = self.answered(identity, asked.as_ref()).await? {
            return Ok(known);
        }
        let row = self.owned(identity, request.machine).await?;
        let (kind, done) = match request.action {
            PowerAction::Start => (OperationKind::Start, "started"),
            PowerAction::Shutdown => (OperationKind::Shutdown, "shut down"),
            PowerAction::Stop => (OperationKind::Stop, "stopped"),
            PowerAction::Reboot => (OperationKind::Reboot, "rebooted"),
        };
        self.change(identity, asked, kind, row.id, row.hostname, done)
            .await
    }

    /// Starts an operation on a machine that has none running.
    async fn change(
        &self,
        identity: &Identity,
        request: Option<(Key, String)>,
        kind: OperationKind,
        machine: MachineId,
        hostname: String,
        done: &'static str,
    ) -> Result<Operation, MachineError> {
        let id = OperationId::fresh();
        let at = self.inner().clock.now();
        let order = Order {
            id,
            kind,
            identity: identity.clone(),
            machine,
            hostname,
            request,
            key_name: None,
            private_key: None,
            at,
            trace_parent: trace::current(),
        };
        let this = self.clone();
        self.place_order(order, move |tx| {
            Box::pin(async move {
                let row = machines::lock(tx, machine)
                    .await?
                    .ok_or(MachineError::NotFound(machine))?;
                if let Some(operation) = row.operation {
                    // A deletion does what taking back could not, and may be ordered in between.
                    let delete = kind == OperationKind::Delete;
                    if !(delete && sagas::stuck::is_stuck(tx, operation).await?) {
                        return Err(MachineError::Busy { operation });
                    }
                }
                let before = row.status()?;
                let refused = || MachineError::WrongState {
                    status: before.to_string(),
                    action: done,
                };
                let after = if kind == OperationKind::Delete {
                    machine::on(before, machine::Event::Delete).map_err(|_| refused())?
                } else if row.vmid.is_none() || before == MachineStatus::Failed {
                    return Err(refused());
                } else {
                    before
                };
                let message = row.error_msg.as_deref();
                if let Some(changed) = machines::set_state(tx, machine, after, Some(id), message, at).await? {
                    this.inner()
                        .news
                        .tell(
                            tx,
                            &MachineChanged {
                                machine: changed.view()?,
                            },
                        )
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Writes an operation and its saga together with `effect`, and wakes a worker.
    async fn place_order<F>(&self, order: Order, effect: F) -> Result<Operation, MachineError>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> futures::future::BoxFuture<'t, Result<(), MachineError>>
            + Send
            + 'static,
    {
        let inner = self.inner();
        let (id, identity, asked) = (order.id, order.identity.clone(), order.request.clone());
        let this = self.clone();
        let written = inner
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let inner = this.inner();
                    if let Some((key, hash)) = &order.request
                        && !operations::remember(
                            tx,
                            order.identity.user,
                            key.as_str(),
                            hash,
                            order.id,
                            order.at,
                        )
                        .await?
                    {
                        return Err(MachineError::KeyReused);
                    }
                    effect(tx).await?;
                    let row = operations::insert(
                        tx,
                        &NewOperation {
                            id: order.id,
                            kind: order.kind,
                            owner: order.identity.user,
                            machine: order.machine,
                            hostname: order.hostname,
                            steps: sagas::json(&steps(order.kind))?,
                            key_name: order.key_name,
                            private_key: order.private_key,
                            at: order.at,
                            trace_parent: order.trace_parent,
                        },
                    )
                    .await?;
                    sagas::begin(
                        inner,
                        tx,
                        order.id,
                        order.kind,
                        &Params {
                            machine: order.machine,
                        },
                    )
                    .await?;
                    inner
                        .news
                        .tell(
                            tx,
                            &OperationProgressed {
                                operation: row.view()?,
                            },
                        )
                        .await?;
                    row.view()
                })
            })
            .await;
        let operation = match written {
            Ok(operation) => operation,
            // The same request at the same moment: answer it as the one that was first.
            Err(MachineError::KeyReused) => {
                return self
                    .answered(&identity, asked.as_ref())
                    .await?
                    .ok_or(MachineError::KeyReused);
            }
            Err(error) => return Err(error),
        };
        inner.news.outbox.nudge();
        // If this is lost the sweep finds the operation; it only takes longer.
        if let Err(error) = inner.bus.enqueue::<work::Operate>(&id, &id.to_string()).await {
            tracing::warn!(operation.id = %id, cause = %nimbus_errors::chain(&error), "could not wake a worker");
        }
        Ok(operation)
    }

    /// The operation that this key made before, if its request was the same.
    async fn answered(
        &self,
        identity: &Identity,
        request: Option<&(Key, String)>,
    ) -> Result<Option<Operation>, MachineError> {
        let Some((key, hash)) = request else {
            return Ok(None);
        };
        let Some((kept, operation)) =
            operations::remembered(&self.inner().store, identity.user, key.as_str()).await?
        else {
            return Ok(None);
        };
        if kept != *hash {
            return Err(MachineError::KeyReused);
        }
        self.operation(identity, operation).await.map(Some)
    }

    /// One of the caller's machines.
    pub(crate) async fn owned(
        &self,
        identity: &Identity,
        id: MachineId,
    ) -> Result<machine::MachineRow, MachineError> {
        machines::find(&self.inner().store, id)
            .await?
            .filter(|row| row.owner == identity.user)
            .ok_or(MachineError::NotFound(id))
    }

    async fn owned_operation(
        &self,
        identity: &Identity,
        id: OperationId,
    ) -> Result<OperationRow, MachineError> {
        operations::find(&self.inner().store, id)
            .await?
            .filter(|row| row.owner == identity.user)
            .ok_or(MachineError::OperationNotFound(id))
    }

    /// One of the caller's operations.
    pub(crate) async fn operation(
        &self,
        identity: &Identity,
        id: OperationId,
    ) -> Result<Operation, MachineError> {
        self.owned_operation(identity, id).await?.view()
    }

    /// Hands out a generated private key, once.
    pub(crate) async fn claim_key(
        &self,
        identity: &Identity,
        id: OperationId,
    ) -> Result<PrivateKey, MachineError> {
        let inner = self.inner();
        let row = self.owned_operation(identity, id).await?;
        let (Some(sealed), Some(key_name)) = (row.private_key.clone(), row.key_name.clone()) else {
            return Err(MachineError::KeyClaimed);
        };
        if row.view()?.state != OperationState::Succeeded {
            return Err(MachineError::WrongState {
                status: row.state,
                action: "asked for its key before it succeeded",
            });
        }
        let damaged = |error: String| MachineError::Damaged {
            what: "a kept private key",
            reason: error,
        };
        let opened = inner
            .sealer
            .open(&sealed, &id.to_string())
            .map_err(|error| damaged(error.to_string()))?;
        let private_key = String::from_utf8(opened.to_vec()).map_err(|error| damaged(error.to_string()))?;
        let mut tx = inner.store.begin().await?;
        if operations::claim_key(&mut tx, id, identity.user, &sealed)
            .await?
            .is_none()
        {
            return Err(MachineError::KeyClaimed);
        }
        tx.commit().await?;
        Ok(PrivateKey {
            key_name,
            private_key: Secret::new(private_key),
        })
    }
}

/// What makes two requests with one key the same.
fn fingerprint<T: serde::Serialize>(what: &str, request: &T) -> String {
    let mut digest = Sha256::new();
    digest.update(what.as_bytes());
    digest.update(serde_json::to_vec(request).unwrap_or_default());
    hex::encode(digest.finalize())
}
