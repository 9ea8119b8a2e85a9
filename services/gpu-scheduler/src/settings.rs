//! How GPUs are set up.

use nimbus_proto::auth::Secret;
use nimbus_proto::event::GpuSettingsChanged;
use nimbus_proto::gpu::{Endpoint, Injection, PutSettingsRequest, Settings};
use nimbus_store::{Store, StoreError, Tx, both, execute, reading, sqlx};

use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::rows::{locking, read_workers};

/// What the sealed key of the endpoint belongs to.
const KEY: &str = "gpu_settings/1/api_key";
/// The most jobs that a quota may allow.
const QUOTA: u32 = 100_000;

/// The row of settings, without what pairing keeps there.
#[derive(Clone, Debug, sqlx_macros::FromRow)]
pub(crate) struct SettingsRow {
    pub enabled: i64,
    pub base_url: String,
    pub inference_model: String,
    pub api_key: Option<String>,
    pub job_quota: i64,
}

const READ: &str =
    "SELECT enabled, base_url, inference_model, api_key, job_quota FROM gpu_settings WHERE id = 1";

pub(crate) async fn read_settings(store: &Store) -> Result<SettingsRow, StoreError> {
    reading!(store, |c| sqlx::query_as(READ).fetch_one(c).await)
}

/// To be changed in this transaction.
pub(crate) async fn read_settings_in(tx: &mut Tx) -> Result<SettingsRow, StoreError> {
    let sql = locking(tx, READ);
    both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_one(c)
        .await)
}

/// The sealed key of the box that serves at an address.
async fn key_of_box(tx: &mut Tx, base_url: &str) -> Result<Option<String>, StoreError> {
    const SQL: &str = "SELECT inference_key FROM gpu_worker
        WHERE base_url = $1 AND base_url <> '' ORDER BY paired_at DESC, name LIMIT 1";
    let found: Option<Option<String>> = both!(tx, |c| sqlx::query_scalar(SQL)
        .bind(base_url)
        .fetch_optional(c)
        .await)?;
    Ok(found.flatten())
}

/// The base of an endpoint as it is kept: without a slash or `/v1` at its end.
fn base_url(text: &str) -> Result<String, GpuError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    let wrong = || {
        GpuError::invalid(
            "base_url",
            "an address such as http://10.0.0.9:8000, without user or query",
        )
    };
    let url: reqwest::Url = text.parse().map_err(|_| wrong())?;
    let fine = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !fine {
        return Err(wrong());
    }
    let base = url.as_str().trim_end_matches('/');
    Ok(base
        .strip_suffix("/v1")
        .unwrap_or(base)
        .trim_end_matches('/')
        .to_owned())
}

impl Plane {
    pub(crate) async fn settings(&self) -> Result<Settings, GpuError> {
        let row = read_settings(&self.store).await?;
        let mut workers = read_workers(&self.store).await?;
        // The last one is the newest.
        workers.sort_by_key(|worker| worker.paired_at);
        let workers = workers
            .iter()
            .map(crate::rows::WorkerRow::name)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Settings {
            enabled: row.enabled != 0,
            configured: !workers.is_empty() || !row.base_url.is_empty(),
            base_url: row.base_url,
            inference_model: row.inference_model,
            job_quota: u32::try_from(row.job_quota).unwrap_or(QUOTA),
            workers,
        })
    }

    pub(crate) async fn put_settings(&self, request: PutSettingsRequest) -> Result<Settings, GpuError> {
        const PUT: &str = "UPDATE gpu_settings SET enabled = $1, base_url = $2, inference_model = $3, api_key = $4 WHERE id = 1";
        const PUT_QUOTA: &str = "UPDATE gpu_settings SET job_quota = $1 WHERE id = 1";
        let base_url = base_url(&request.base_url)?;
        let quota = request.job_quota.map(i64::from);
        if quota.is_some_and(|quota| quota > i64::from(QUOTA)) {
            return Err(GpuError::invalid("job_quota", format!("at most {QUOTA}")));
        }
        let model = request.inference_model.trim().to_owned();
        if model.len() > 256 {
            return Err(GpuError::invalid("inference_model", "at most 256 bytes"));
        }
        let key = request.api_key.map(|key| self.seal_key(&key)).transpose()?;
        let (plane, enabled) = (self.clone(), request.enabled);
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    let before = read_settings_in(tx).await?;
                    let key = match key {
                        Some(key) => key,
                        None if before.base_url == base_url => before.api_key,
                        // A key is not shown to another address than the one it was made for.
                        None => key_of_box(tx, &base_url).await?,
                    };
                    execute!(
                        tx,
                        sqlx::query(PUT)
                            .bind(i64::from(enabled))
                            .bind(base_url)
                            .bind(model)
                            .bind(key)
                    )?;
                    if let Some(quota) = quota {
                        execute!(tx, sqlx::query(PUT_QUOTA).bind(quota))?;
                    }
                    plane.tell(tx, &GpuSettingsChanged { enabled }).await
                })
            })
            .await?;
        self.probe.forget();
        self.follow_up(After::default());
        self.settings().await
    }

    /// The key as it is stored; none for an empty one, which stands for "asks for no key".
    pub(crate) fn seal_key(&self, key: &Secret) -> Result<Option<String>, GpuError> {
        let text = key.reveal().trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > 512 || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(GpuError::invalid(
                "api_key",
                "at most 512 visible ASCII characters",
            ));
        }
        Ok(Some(self.sealer.seal(text.as_bytes(), KEY)?))
    }

    /// Where requests to the model go; none while GPUs are off or nothing is served.
    pub(crate) async fn endpoint(&self) -> Result<Option<Endpoint>, GpuError> {
        let row = read_settings(&self.store).await?;
        if row.enabled == 0 || row.base_url.is_empty() {
            return Ok(None);
        }
        let api_key = match &row.api_key {
            Some(sealed) => {
                let opened = self.sealer.open(sealed, KEY)?;
                Some(Secret::new(
                    std::str::from_utf8(&opened).map_err(GpuError::damaged)?,
                ))
            }
            None => None,
        };
        Ok(Some(Endpoint {
            base_url: row.base_url,
            api_key,
            model: row.inference_model,
        }))
    }

    /// What machines are told; none while there is nothing to tell of.
    pub(crate) async fn injection(&self) -> Result<Option<Injection>, GpuError> {
        let settings = self.settings().await?;
        if !settings.enabled || !settings.configured {
            return Ok(None);
        }
        Ok(Some(Injection {
            model: Some(settings.inference_model)
                .filter(|model| !model.is_empty() && !settings.base_url.is_empty()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_kept_without_its_version() {
        for (given, kept) in [
            ("", ""),
            ("http://10.0.0.9:8000", "http://10.0.0.9:8000"),
            ("http://10.0.0.9:8000/v1/", "http://10.0.0.9:8000"),
            (" https://gpu.example/api/ ", "https://gpu.example/api"),
        ] {
            assert_eq!(base_url(given).unwrap(), kept);
        }
        for bad in ["gpu", "ftp://x", "http://u:p@x", "http://x/?a=1", "file:///etc"] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }
}
