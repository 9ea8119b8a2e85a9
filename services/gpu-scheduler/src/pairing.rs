//! How a box becomes a worker, and how it stops being one.
//!
//! ```text
//!  administrator ─ create_pairing ─▶ token, 5 minutes, only the newest
//!  box           ─ register(token) ─▶ worker token, inference key, credential for the bus
//!  administrator ─ unpair ─▶ the row is gone: nothing the box says counts any more
//! ```

use std::net::IpAddr;
use std::time::Duration;

use nimbus_gpu_wire::{BusAccess, JOBS_STREAM, Registered, Registration};
use nimbus_model::{Hostname, JobId, Timestamp};
use nimbus_proto::auth::{BusUser, MintBus, Secret};
use nimbus_proto::event::{GpuSettingsChanged, GpuWorkerRemoved};
use nimbus_proto::gpu::{Pairing, PairingRequest, Unpaired};
use nimbus_store::{StoreError, Tx, both, execute, reading, sqlx};
use tracing::{debug, info, warn};

use crate::error::GpuError;
use crate::plane::{After, Plane};
use crate::queue::DEFAULT_POOL;
use crate::rows::{JobRow, job_columns, lock_job, lock_worker, lock_workers, locking, read_worker};
use crate::secret::{fresh, hash};
use crate::settings::read_settings_in;

/// How long a pairing token is good.
const GOOD: Duration = Duration::from_secs(300);
/// What cancelled jobs say.
const UNPAIRED: &str = "cancelled at GX10 unpair";

const USED: GpuError = GpuError::Pairing {
    reason: "the pairing token is not valid: it was used, or replaced by a newer one",
};
const EXPIRED: GpuError = GpuError::Pairing {
    reason: "the pairing token is older than five minutes",
};
const OTHER: GpuError = GpuError::Pairing {
    reason: "the pairing token is for another box",
};

/// The open pairing.
#[derive(sqlx_macros::FromRow)]
struct Open {
    pairing: Option<String>,
    pairing_until: Option<Timestamp>,
    pairing_worker: Option<String>,
}

const OPEN: &str = "SELECT pairing, pairing_until, pairing_worker FROM gpu_settings WHERE id = 1";

impl Open {
    fn check(&self, token: &Secret, now: Timestamp) -> Result<(), GpuError> {
        if self.pairing.is_none() || self.pairing != hash(token) {
            return Err(USED);
        }
        if self.pairing_until.is_none_or(|until| until <= now) {
            return Err(EXPIRED);
        }
        Ok(())
    }
}

/// A registration in its checked form.
struct Newcomer {
    token: Secret,
    name: Hostname,
    address: IpAddr,
    model: String,
    port: u16,
}

impl Newcomer {
    fn of(registration: Registration) -> Result<Self, GpuError> {
        let first = registration.hostname.trim().to_ascii_lowercase();
        let first = first.split('.').next().unwrap_or_default();
        let name: Hostname = first
            .parse()
            .map_err(|error: nimbus_model::HostnameError| GpuError::invalid("hostname", error.to_string()))?;
        let address: IpAddr = registration
            .ip
            .trim()
            .parse()
            .map_err(|_| GpuError::invalid("ip", "the address under which Nimbus reaches the box"))?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(GpuError::invalid(
                "ip",
                format!("{address} is not the address of a box"),
            ));
        }
        let model = registration.model.trim().to_owned();
        if model.len() > 256 {
            return Err(GpuError::invalid("model", "at most 256 bytes"));
        }
        if registration.port == 0 {
            return Err(GpuError::invalid("port", "1 to 65535"));
        }
        Ok(Self {
            token: Secret::new(registration.pairing_token),
            name,
            address,
            model,
            port: registration.port,
        })
    }

    /// Its inference endpoint; empty when it serves no model.
    fn base_url(&self) -> String {
        if self.model.is_empty() {
            return String::new();
        }
        match self.address {
            IpAddr::V4(address) => format!("http://{address}:{}", self.port),
            IpAddr::V6(address) => format!("http://[{address}]:{}", self.port),
        }
    }
}

impl Plane {
    pub(crate) async fn create_pairing(&self, request: PairingRequest) -> Result<Pairing, GpuError> {
        const SET: &str =
            "UPDATE gpu_settings SET pairing = $1, pairing_until = $2, pairing_worker = $3 WHERE id = 1";
        if let Some(worker) = &request.worker
            && read_worker(&self.store, worker.as_str()).await?.is_none()
        {
            return Err(GpuError::no_worker(worker));
        }
        let token = fresh::<24>()?;
        let (hash, until) = (hash(&token), self.clock.now().after(GOOD));
        let worker = request.worker.map(|worker| worker.to_string());
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(tx, sqlx::query(SET).bind(hash).bind(until).bind(worker))?;
                    Ok::<_, GpuError>(())
                })
            })
            .await?;
        Ok(Pairing {
            token,
            expires_in_s: u32::try_from(GOOD.as_secs()).unwrap_or(u32::MAX),
        })
    }

    pub(crate) async fn check_pairing(&self, token: &Secret) -> Result<(), GpuError> {
        let open: Open = reading!(&self.store, |c| sqlx::query_as(OPEN).fetch_one(c).await)?;
        open.check(token, self.clock.now())
    }

    /// Makes a box a worker. One that was one before keeps its pool, its standing and its job.
    pub(crate) async fn register(&self, registration: Registration) -> Result<Registered, GpuError> {
        let newcomer = Newcomer::of(registration)?;
        // Both before the token is used up by this: they can fail.
        let (worker_token, inference_key) = (fresh::<32>()?, fresh::<24>()?);
        let bus_name = bus_name(&newcomer.name, &fresh::<8>()?)?;
        let name = newcomer.name.clone();
        let base_url = newcomer.base_url();
        let (plane, token, key) = (self.clone(), worker_token.clone(), inference_key.clone());
        let known = bus_name.clone();
        let before = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    plane
                        .register_in(tx, newcomer, &token, &key, known.as_str())
                        .await
                })
            })
            .await?;
        self.probe.forget();
        self.follow_up(After::default());
        info!(gpu.worker = %name, "{name} is paired");
        if let Some(before) = before {
            self.forget_consumer(&before).await;
        }
        let bus = self.access(&bus_name).await;
        Ok(Registered {
            worker_id: name.to_string(),
            worker_token: worker_token.reveal().to_owned(),
            base_url,
            inference_api_key: inference_key.reveal().to_owned(),
            bus,
        })
    }

    async fn forget_consumer(&self, bus_name: &str) {
        if let Err(error) = self.bus.delete_consumer(JOBS_STREAM, bus_name).await {
            // Nothing is stored for it any more.
            debug!("the consumer {bus_name} stays: {error}");
        }
    }

    /// A credential for the bus, where it has this name; none where the bus cannot be reached, and then the box uses HTTP.
    async fn access(&self, name: &Hostname) -> Option<BusAccess> {
        let minted = self.bus.call::<MintBus>(&BusUser::GpuWorker(name.clone())).await;
        match minted {
            Ok(Some(minted)) => {
                if let Err(error) = self.ensure_consumer(name.as_str(), DEFAULT_POOL).await {
                    warn!(gpu.worker = %name, "the consumer of {name} is made with its first job: {error}");
                }
                Some(BusAccess {
                    url: minted.url,
                    ca_pem: minted.ca_pem,
                    credentials: minted.credentials.reveal().to_owned(),
                })
            }
            Ok(None) => None,
            Err(fault) => {
                warn!(gpu.worker = %name, "{name} gets no credential for the bus and uses HTTP: {fault}");
                None
            }
        }
    }

    async fn register_in(
        &self,
        tx: &mut Tx,
        newcomer: Newcomer,
        token: &Secret,
        key: &Secret,
        bus_name: &str,
    ) -> Result<Option<String>, GpuError> {
        const CLOSE: &str = "UPDATE gpu_settings SET pairing = NULL, pairing_until = NULL, pairing_worker = NULL, enabled = 1 WHERE id = 1";
        const PAIR: &str = "INSERT INTO gpu_worker (name, pool, state, standing, token, address, model, base_url, paired_at, inference_key, bus_name)
            VALUES ($1, $2, 'new', 'active', $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (name) DO UPDATE SET state = 'new', token = excluded.token, address = excluded.address,
                model = excluded.model, base_url = excluded.base_url, link = '', paired_at = excluded.paired_at, inference_key = excluded.inference_key,
                bus_name = excluded.bus_name";
        let sql = locking(tx, OPEN);
        let open: Open = both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_one(c)
            .await)?;
        let now = self.clock.now();
        open.check(&newcomer.token, now)?;
        let name = newcomer.name.as_str();
        if open.pairing_worker.as_deref().is_some_and(|only| only != name) {
            return Err(OTHER);
        }
        let base_url = newcomer.base_url();
        let used = read_settings_in(tx).await?.base_url;
        // One that somebody uses is not replaced unasked, unless it is this box under another address.
        let before = lock_worker(tx, name).await?;
        let serves = used.is_empty() || before.as_ref().is_some_and(|before| before.base_url == used);
        let key = if base_url.is_empty() {
            None
        } else {
            self.seal_key(key)?
        };
        execute!(tx, sqlx::query(CLOSE))?;
        execute!(
            tx,
            sqlx::query(PAIR)
                .bind(name)
                .bind(DEFAULT_POOL)
                .bind(hash(token))
                .bind(newcomer.address.to_string())
                .bind(&newcomer.model)
                .bind(&base_url)
                .bind(now)
                .bind(&key)
                .bind(bus_name)
        )?;
        if !base_url.is_empty() && (serves || used == base_url) {
            use_endpoint(tx, &base_url, &newcomer.model, key.as_deref()).await?;
        } else if serves && !used.is_empty() {
            use_another_box(tx).await?;
        }
        if let Some(row) = lock_worker(tx, name).await? {
            self.tell_worker(tx, &row).await?;
        }
        self.tell(tx, &GpuSettingsChanged { enabled: true }).await?;
        Ok(before.map(|before| before.bus_name))
    }

    /// Forgets one box, or all of them. What they run is cancelled; without any box left so is what
    /// waits.
    pub(crate) async fn unpair(&self, worker: Option<Hostname>) -> Result<Unpaired, GpuError> {
        let plane = self.clone();
        let (unpaired, consumers, after) = self
            .store
            .write(move |tx| Box::pin(async move { plane.unpair_in(tx, worker).await }))
            .await?;
        self.probe.forget();
        self.follow_up(after);
        for bus_name in consumers {
            self.forget_consumer(&bus_name).await;
        }
        Ok(unpaired)
    }

    async fn unpair_in(
        &self,
        tx: &mut Tx,
        only: Option<Hostname>,
    ) -> Result<(Unpaired, Vec<String>, After), GpuError> {
        const REMOVE: &str = "DELETE FROM gpu_worker WHERE name = $1";
        const QUEUED: &str = concat!("SELECT ", job_columns!(), " FROM gpu_job WHERE state = 'queued'");
        const CLOSE: &str = "UPDATE gpu_settings SET pairing = NULL, pairing_until = NULL, pairing_worker = NULL, enabled = $1 WHERE id = 1";
        let mut after = After::default();
        let mut unpaired = Unpaired {
            cancelled_jobs: 0,
            workers: vec![],
        };
        // In the order of a registration, which also has both.
        let settings = read_settings_in(tx).await?;
        let (gone, left): (Vec<_>, Vec<_>) = lock_workers(tx)
            .await?
            .into_iter()
            .partition(|row| only.as_ref().is_none_or(|only| only.as_str() == row.name));
        if let Some(only) = &only
            && gone.is_empty()
        {
            return Err(GpuError::no_worker(only));
        }
        for row in &gone {
            let job: Option<JobId> = row.job;
            if let Some(job) = job
                && let Some(job) = lock_job(tx, job).await?
                && job.worker.as_deref() == Some(row.name.as_str())
                && job.state == "running"
            {
                self.cancel_in(tx, job, Some(UNPAIRED), &mut after).await?;
                unpaired.cancelled_jobs += 1;
            }
            execute!(tx, sqlx::query(REMOVE).bind(&row.name))?;
            let worker = row.name()?;
            self.tell(
                tx,
                &GpuWorkerRemoved {
                    worker: worker.clone(),
                },
            )
            .await?;
            unpaired.workers.push(worker);
            info!(gpu.worker = row.name, "{} is unpaired", row.name);
        }
        if left.is_empty() {
            let sql = locking(tx, QUEUED);
            let queued: Vec<JobRow> = both!(tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql))
                .fetch_all(c)
                .await)?;
            for job in queued {
                self.cancel_in(tx, job, Some(UNPAIRED), &mut after).await?;
                unpaired.cancelled_jobs += 1;
            }
        }
        let served = gone
            .iter()
            .any(|row| !row.base_url.is_empty() && row.base_url == settings.base_url);
        let enabled = !left.is_empty() && settings.enabled != 0;
        execute!(tx, sqlx::query(CLOSE).bind(i64::from(enabled)))?;
        if served || left.is_empty() {
            use_another_box(tx).await?;
        }
        self.tell(tx, &GpuSettingsChanged { enabled }).await?;
        let consumers = gone.into_iter().map(|row| row.bus_name).collect();
        Ok((unpaired, consumers, after))
    }
}

/// What the bus shall call a box: another name for each pairing, because a credential for a name is good for as long
/// as the name is.
fn bus_name(name: &Hostname, fresh: &Secret) -> Result<Hostname, GpuError> {
    // A DNS label has 63 characters.
    let short: String = name.as_str().chars().take(46).collect();
    format!("{short}-{}", fresh.reveal())
        .parse()
        .map_err(GpuError::damaged)
}

/// Makes the endpoint of a box the one that is used.
async fn use_endpoint(tx: &mut Tx, base_url: &str, model: &str, key: Option<&str>) -> Result<(), StoreError> {
    const USE: &str =
        "UPDATE gpu_settings SET base_url = $1, inference_model = $2, api_key = $3 WHERE id = 1";
    execute!(tx, sqlx::query(USE).bind(base_url).bind(model).bind(key))?;
    Ok(())
}

/// The box in use serves no more: of those that do, the one that was paired last takes its place.
async fn use_another_box(tx: &mut Tx) -> Result<(), StoreError> {
    let next = serving_box(tx).await?.unwrap_or_default();
    use_endpoint(tx, &next.base_url, &next.model, next.inference_key.as_deref()).await
}

/// What a box serves.
#[derive(Default, sqlx_macros::FromRow)]
struct Serving {
    base_url: String,
    model: String,
    inference_key: Option<String>,
}

async fn serving_box(tx: &mut Tx) -> Result<Option<Serving>, StoreError> {
    const SQL: &str = "SELECT base_url, model, inference_key FROM gpu_worker
        WHERE base_url <> '' ORDER BY paired_at DESC, name LIMIT 1";
    both!(tx, |c| sqlx::query_as(SQL).fetch_optional(c).await)
}
#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration {
            pairing_token: "00ff".into(),
            hostname: "GX10-a1.lan".into(),
            ip: "10.0.0.9".into(),
            model: "m".into(),
            port: 8000,
        }
    }

    #[test]
    fn a_box_is_named_by_the_first_part_of_its_hostname() {
        let newcomer = Newcomer::of(registration()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(newcomer.name.as_str(), "gx10-a1");
        assert_eq!(newcomer.base_url(), "http://10.0.0.9:8000");
        let six = Newcomer::of(Registration {
            ip: "fd00::9".into(),
            ..registration()
        });
        assert_eq!(
            six.map(|box_| box_.base_url()).ok().as_deref(),
            Some("http://[fd00::9]:8000")
        );
        let none = Newcomer::of(Registration {
            model: " ".into(),
            ..registration()
        });
        assert_eq!(none.map(|box_| box_.base_url()).ok().as_deref(), Some(""));
    }

    #[test]
    fn a_box_without_name_or_address_is_refused() {
        for (hostname, ip, port) in [
            ("", "10.0.0.9", 8000),
            ("a_b", "10.0.0.9", 8000),
            ("gx10", "", 8000),
            ("gx10", "0.0.0.0", 8000),
            ("gx10", "gpu.lan", 8000),
            ("gx10", "10.0.0.9", 0),
        ] {
            let wrong = Registration {
                hostname: hostname.into(),
                ip: ip.into(),
                port,
                ..registration()
            };
            assert!(Newcomer::of(wrong).is_err(), "{hostname} {ip} {port}");
        }
    }
    #[test]
    fn each_pairing_has_a_name_of_its_own_on_the_bus() {
        let long: Hostname = "a".repeat(63).parse().unwrap_or_else(|error| panic!("{error}"));
        let given =
            bus_name(&long, &Secret::new("00ff00ff00ff00ff")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(given.as_str().len(), 63);
        assert!(given.as_str().ends_with("a-00ff00ff00ff00ff"));
    }
}
