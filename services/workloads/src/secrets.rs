//! Secrets of tenants: sealed at rest, put into sandboxes at their launch, never given out again.

use nimbus_bus::{Action, Caller, On};
use nimbus_model::Timestamp;
use nimbus_proto::workloads::{Named, PutSecretRequest, SecretInfo};
use nimbus_store::{StoreError, both, execute, reading, sqlx};
use zeroize::Zeroizing;

use crate::error::WorkError;
use crate::tenants::row;
use crate::validate;
use crate::works::{Works, allow, audit};

const LONGEST: usize = 32 << 10;
/// Secrets that a tenant may have.
const MOST: i64 = 200;

const PUT: &str = "INSERT INTO workloads_secret (tenant, name, value, version, created_at, updated_at)
    VALUES ($1, $2, $3, 1, $4, $4)
    ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value, version = workloads_secret.version + 1,
        updated_at = excluded.updated_at
    RETURNING name, version, created_at, updated_at";

type Row = (String, i64, Timestamp, Timestamp);

fn info((name, version, created_at, updated_at): Row) -> SecretInfo {
    SecretInfo {
        name,
        version: u64::try_from(version).unwrap_or(0),
        created_at,
        updated_at,
    }
}

impl Works {
    pub(crate) async fn put_secret(
        &self,
        caller: &Caller,
        request: PutSecretRequest,
    ) -> Result<SecretInfo, WorkError> {
        let PutSecretRequest { tenant, name, value } = request;
        let owner = self.open_tenant(&caller.identity, &tenant).await?;
        allow(&caller.identity, Action::DataWrite, &owner, On::tenant())?;
        validate::secret_name("name", &name)?;
        let value = value.reveal();
        if value.len() > LONGEST || value.contains('\0') {
            return Err(WorkError::invalid(
                "value",
                format!("it must have at most {LONGEST} bytes and no NUL byte"),
            ));
        }
        let sealed = self.sealer.seal(value.as_bytes(), &associated(&tenant, &name))?;
        let now = self.now();
        let (of, called) = (tenant.clone(), name.clone());
        let stored = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let (others,): (i64,) = both!(tx, |c| sqlx::query_as(
                        "SELECT COUNT(*) FROM workloads_secret WHERE tenant = $1 AND name <> $2"
                    )
                    .bind(&of)
                    .bind(&called)
                    .fetch_one(c)
                    .await)?;
                    if others >= MOST {
                        return Err(WorkError::Quota {
                            dimension: "secrets",
                            limit: u64::try_from(MOST).unwrap_or(0),
                            used: u64::try_from(others).unwrap_or(0),
                            requested: 1,
                        });
                    }
                    let stored: Row = both!(tx, |c| sqlx::query_as(PUT)
                        .bind(&of)
                        .bind(&called)
                        .bind(&sealed)
                        .bind(now)
                        .fetch_one(c)
                        .await)?;
                    Ok::<_, WorkError>(stored)
                })
            })
            .await?;
        audit(caller, "secrets.put", &tenant, &name);
        Ok(info(stored))
    }

    pub(crate) async fn list_secrets(
        &self,
        caller: &Caller,
        tenant: &str,
    ) -> Result<Vec<SecretInfo>, WorkError> {
        let owner = self.tenant(&caller.identity, tenant).await?;
        allow(&caller.identity, Action::DataRead, &owner, On::tenant())?;
        let rows: Vec<Row> = reading!(&self.store, |c| {
            sqlx::query_as(
            "SELECT name, version, created_at, updated_at FROM workloads_secret WHERE tenant = $1 ORDER BY name"
        )
        .bind(tenant)
        .fetch_all(c)
        .await
        })?;
        Ok(rows.into_iter().map(info).collect())
    }

    pub(crate) async fn delete_secret(&self, caller: &Caller, of: &Named) -> Result<(), WorkError> {
        let owner = self.tenant(&caller.identity, &of.tenant).await?;
        if owner.deleting {
            return Err(row::fenced(&of.tenant));
        }
        allow(&caller.identity, Action::DataWrite, &owner, On::tenant())?;
        let (tenant, name) = (of.tenant.clone(), of.name.clone());
        let deleted = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(
                        tx,
                        sqlx::query("DELETE FROM workloads_secret WHERE tenant = $1 AND name = $2")
                            .bind(tenant)
                            .bind(name)
                    )
                })
            })
            .await
            .map_err(|error: StoreError| WorkError::from(error))?;
        if deleted == 0 {
            return Err(WorkError::NotFound {
                kind: "secret",
                tenant: Some(of.tenant.clone()),
                name: of.name.clone(),
            });
        }
        audit(caller, "secrets.delete", &of.tenant, &of.name);
        Ok(())
    }

    /// The value of a secret, for a launch.
    pub(crate) async fn secret(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Option<Zeroizing<String>>, WorkError> {
        let found: Option<(String,)> = reading!(&self.store, |c| sqlx::query_as(
            "SELECT value FROM workloads_secret WHERE tenant = $1 AND name = $2"
        )
        .bind(tenant)
        .bind(name)
        .fetch_optional(c)
        .await)?;
        let Some((sealed,)) = found else { return Ok(None) };
        let clear = self.sealer.open(&sealed, &associated(tenant, name))?;
        // It was text when it was sealed.
        Ok(std::str::from_utf8(&clear)
            .ok()
            .map(|text| Zeroizing::new(text.to_owned())))
    }
}

fn associated(tenant: &str, name: &str) -> String {
    format!("workloads_secret/{tenant}/{name}")
}
