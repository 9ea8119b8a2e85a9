//! Volumes: named data of a tenant that lies on the host that first mounted it.

use nimbus_bus::{Action, Caller, Key, On};
use nimbus_errors::Code;
use nimbus_model::{Hostname, Timestamp};
use nimbus_proto::agent;
use nimbus_proto::workloads::{Named, Volume};
use nimbus_store::{both, execute, reading, sqlx};

use crate::error::WorkError;
use crate::validate;
use crate::works::{Works, allow, audit};

/// Volumes that a tenant may have.
const MOST: i64 = 100;

type Row = (String, Option<String>, Timestamp, i64);

const OF_TENANT: &str =
    "SELECT name, host, created_at, deleting FROM workloads_volume WHERE tenant = $1 ORDER BY name";
const MOUNTS: &str = "SELECT volume, sandbox FROM workloads_mount WHERE tenant = $1 ORDER BY volume, sandbox";

impl Works {
    pub(crate) async fn ensure_volume(&self, caller: &Caller, of: &Named) -> Result<Volume, WorkError> {
        let tenant = self.open_tenant(&caller.identity, &of.tenant).await?;
        allow(&caller.identity, Action::DataWrite, &tenant, On::tenant())?;
        validate::volume_name("name", &of.name)?;
        let (named, now) = (of.clone(), self.now());
        let made = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let (others,): (i64,) = both!(tx, |c| sqlx::query_as(
                        "SELECT COUNT(*) FROM workloads_volume WHERE tenant = $1 AND name <> $2"
                    )
                    .bind(&named.tenant)
                    .bind(&named.name)
                    .fetch_one(c)
                    .await)?;
                    if others >= MOST {
                        return Err(WorkError::Quota {
                            dimension: "volumes",
                            limit: u64::try_from(MOST).unwrap_or(0),
                            used: u64::try_from(others).unwrap_or(0),
                            requested: 1,
                        });
                    }
                    let made = execute!(
                        tx,
                        sqlx::query(
                            "INSERT INTO workloads_volume (tenant, name, created_at) VALUES ($1, $2, $3)
                             ON CONFLICT (tenant, name) DO NOTHING"
                        )
                        .bind(&named.tenant)
                        .bind(&named.name)
                        .bind(now)
                    )?;
                    Ok::<_, WorkError>(made == 1)
                })
            })
            .await?;
        if made {
            audit(caller, "volumes.create", &of.tenant, &of.name);
        }
        let (volume, deleting) = self.find_volume(of).await?.ok_or_else(|| unknown(of))?;
        if deleting {
            return Err(going(of));
        }
        Ok(volume)
    }

    async fn volumes(&self, tenant: &str) -> Result<Vec<(Volume, bool)>, WorkError> {
        let rows: Vec<Row> = reading!(&self.store, |c| sqlx::query_as(OF_TENANT)
            .bind(tenant)
            .fetch_all(c)
            .await)?;
        let mounts: Vec<(String, String)> = reading!(&self.store, |c| sqlx::query_as(MOUNTS)
            .bind(tenant)
            .fetch_all(c)
            .await)?;
        Ok(rows
            .into_iter()
            .map(|(name, host, created_at, deleting)| {
                let used_by = mounts
                    .iter()
                    .filter(|(volume, _)| *volume == name)
                    .map(|(_, sandbox)| sandbox.clone())
                    .collect();
                let volume = Volume {
                    name,
                    host,
                    created_at,
                    used_by,
                };
                (volume, deleting != 0)
            })
            .collect())
    }

    async fn find_volume(&self, of: &Named) -> Result<Option<(Volume, bool)>, WorkError> {
        let all = self.volumes(&of.tenant).await?;
        Ok(all.into_iter().find(|(volume, _)| volume.name == of.name))
    }

    pub(crate) async fn list_volumes(&self, caller: &Caller, tenant: &str) -> Result<Vec<Volume>, WorkError> {
        let owner = self.tenant(&caller.identity, tenant).await?;
        allow(&caller.identity, Action::DataRead, &owner, On::tenant())?;
        let all = self.volumes(tenant).await?;
        Ok(all.into_iter().map(|(volume, _)| volume).collect())
    }

    pub(crate) async fn delete_volume(&self, caller: &Caller, of: &Named) -> Result<(), WorkError> {
        let tenant = self.tenant(&caller.identity, &of.tenant).await?;
        allow(&caller.identity, Action::DataWrite, &tenant, On::tenant())?;
        self.remove_volume(of).await?;
        audit(caller, "volumes.delete", &of.tenant, &of.name);
        Ok(())
    }

    /// Removes a volume with its data. From the first step on it cannot be mounted any more; a host
    /// that does not answer leaves it so, and the removal is to be asked for again.
    pub(crate) async fn remove_volume(&self, of: &Named) -> Result<(), WorkError> {
        let named = of.clone();
        let fenced = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(
                        tx,
                        sqlx::query(
                            "UPDATE workloads_volume SET deleting = 1 WHERE tenant = $1 AND name = $2
                             AND NOT EXISTS (SELECT 1 FROM workloads_mount WHERE tenant = $1 AND volume = $2)"
                        )
                        .bind(&named.tenant)
                        .bind(&named.name)
                    )
                })
            })
            .await?;
        let (volume, _) = self.find_volume(of).await?.ok_or_else(|| unknown(of))?;
        if fenced == 0 {
            return Err(WorkError::conflict(
                "mounted",
                format!(
                    "the volume {} is mounted by {}",
                    of.name,
                    volume.used_by.join(", ")
                ),
            ));
        }
        if let Some(host) = volume
            .host
            .as_deref()
            .and_then(|host| host.parse::<Hostname>().ok())
        {
            let removed = self
                .bus
                .call::<agent::RemoveVolume>(of)
                .at(&host)
                .key(Key::new(format!("{}/{}", of.tenant, of.name)))
                .await;
            match removed {
                Ok(()) => {}
                Err(fault) if fault.is(Code::OpNotFound) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        let named = of.clone();
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(
                        tx,
                        sqlx::query(
                            "DELETE FROM workloads_volume WHERE tenant = $1 AND name = $2 AND deleting = 1"
                        )
                        .bind(&named.tenant)
                        .bind(&named.name)
                    )
                })
            })
            .await?;
        Ok(())
    }

    /// The names of a tenant's volumes.
    pub(crate) async fn volume_names(&self, tenant: &str) -> Result<Vec<String>, WorkError> {
        let all = self.volumes(tenant).await?;
        Ok(all.into_iter().map(|(volume, _)| volume.name).collect())
    }
}

fn unknown(of: &Named) -> WorkError {
    WorkError::NotFound {
        kind: "volume",
        tenant: Some(of.tenant.clone()),
        name: of.name.clone(),
    }
}

fn going(of: &Named) -> WorkError {
    WorkError::conflict(
        "volume_deleting",
        format!("the volume {} is being removed", of.name),
    )
}
