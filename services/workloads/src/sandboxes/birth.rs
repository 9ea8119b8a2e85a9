//! Writing down a new sandbox: quota, host, volumes, record and whoever it is made for, in one
//! transaction.

use std::sync::Arc;
use std::time::Duration;

use nimbus_model::{KeyId, Timestamp};
use nimbus_proto::Secret;
use nimbus_proto::agent::LaunchRequest;
use nimbus_proto::event::{SandboxChanged, ServiceChanged};
use nimbus_proto::workloads::{
    Condition, ConditionKind, Labels, Lifecycle, Profile, Sandbox, SandboxStatus, SecretUse, Truth, Variable,
};
use nimbus_store::{StoreError, Tx, reading, sqlx};
use zeroize::Zeroizing;

use crate::done::{Keyed, Known};
use crate::error::WorkError;
use crate::hosts::place::{Moment, Need, choose};
use crate::hosts::{self, row::Room};
use crate::ids;
use crate::resolve::Resolved;
use crate::sandboxes::record::{self, Record};
use crate::services;
use crate::state::{Seen, condition, plain, ready_condition};
use crate::tenants;
use crate::works::Works;

/// How often another host is tried when one turns out to be full.
const HOSTS: usize = 8;

/// Everything that makes a new sandbox.
pub(crate) struct Birth {
    pub(crate) tenant: String,
    /// What its id begins with.
    pub(crate) name: Option<String>,
    pub(crate) profile: Profile,
    pub(crate) labels: Labels,
    pub(crate) made_by: Option<KeyId>,
    pub(crate) resolved: Resolved,
    pub(crate) image: String,
    pub(crate) purpose: Purpose,
}

/// What a sandbox is made for.
#[derive(Clone)]
pub(crate) enum Purpose {
    /// Its creator, who may have given a key.
    Standalone(Option<Keyed>),
    /// A service, as it was when this was decided.
    Service(Arc<services::row::ServiceRow>),
}

/// A sandbox that was written down.
pub(crate) enum Born {
    /// Just now.
    New(Arc<Record>, Box<LaunchRequest>),
    /// By an earlier request with the same key.
    Before(String),
}

/// What became of writing it.
enum Written {
    New,
    Before(String),
    HostFull,
}

impl Works {
    /// Writes down a new sandbox at the best host that has room for it.
    pub(crate) async fn bear(&self, birth: Birth) -> Result<Born, WorkError> {
        let now = self.now();
        let mut birth = birth;
        let id = ids::sandbox(birth.name.as_deref(), now);
        birth.resolved.born(&id, now);
        self.put_secrets(&birth.tenant, &mut birth.resolved).await?;
        let mut tried: Vec<String> = Vec::new();
        let mut refreshed = false;
        for _ in 0..HOSTS {
            let pinned = self.pinned(&birth).await?;
            let need = Need {
                backend: birth.resolved.shown.backend,
                profile: birth.profile,
                image: &birth.image,
                resources: birth.resolved.shown.resources,
                pinned: pinned.as_deref(),
                not: &tried,
            };
            let moment = Moment {
                now,
                lost_after: self.config.host_lost_after,
            };
            let chosen = match self.hosts.with(|rows| choose(rows, &need, moment, &self.config)) {
                Ok(chosen) => chosen,
                // Another replica may have heard of more.
                Err(WorkError::NoBackend { .. }) if !refreshed => {
                    refreshed = true;
                    self.refresh_hosts().await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let record = Arc::new(self.newborn(&birth, &id, &chosen.host, now));
            match self.write_birth(&birth, Arc::clone(&record), chosen.room).await {
                Ok(Written::New) => {
                    self.hosts
                        .charged(record.host.as_str(), record.resources(), &birth.image);
                    self.sandboxes.put(id, Arc::clone(&record));
                    return Ok(Born::New(record, Box::new(birth.resolved.launch)));
                }
                Ok(Written::Before(outcome)) => return Ok(Born::Before(outcome)),
                Ok(Written::HostFull) => tried.push(record.host.to_string()),
                // A volume has just been mounted elsewhere: look where.
                Err(WorkError::Conflict {
                    reason: "volume_moved",
                    ..
                }) if pinned.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Err(WorkError::NoBackend {
            backend: birth.resolved.shown.backend.into(),
            missing: vec!["room".to_owned()],
        })
    }

    async fn write_birth(
        &self,
        birth: &Birth,
        record: Arc<Record>,
        room: Room,
    ) -> Result<Written, WorkError> {
        // JSON, because what is sealed today is read by the version of tomorrow.
        let launch = Zeroizing::new(
            serde_json::to_vec(&birth.resolved.launch).map_err(WorkError::damaged("a launch"))?,
        );
        let sealed = self.sealer.seal(&launch, &associated(record.id()))?;
        let (works, purpose, volumes) = (
            self.clone(),
            birth.purpose.clone(),
            birth.resolved.volumes.clone(),
        );
        let outcome = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    works
                        .birth_in(tx, &record, &sealed, &purpose, &volumes, room)
                        .await
                })
            })
            .await;
        match outcome {
            // Rolled back as a whole.
            Err(BirthError::HostFull) => Ok(Written::HostFull),
            Err(BirthError::Work(error)) => Err(error),
            Ok(written) => Ok(written),
        }
    }

    async fn birth_in(
        &self,
        tx: &mut Tx,
        record: &Record,
        sealed: &str,
        purpose: &Purpose,
        volumes: &[String],
        room: Room,
    ) -> Result<Written, BirthError> {
        let now = record.shown.created_at;
        match purpose {
            Purpose::Standalone(None) => {}
            Purpose::Standalone(Some(keyed)) => {
                if let Known::Done(outcome) = keyed.take(tx, record.id(), now).await? {
                    return Ok(Written::Before(outcome));
                }
            }
            Purpose::Service(row) => {
                let mut new = services::row::ServiceRow::clone(row);
                new.sandbox = Some(record.id().to_owned());
                new.sandbox_generation = row.generation;
                new.wanted = true;
                new.failure = None;
                new.updated_at = now;
                if !services::row::save(tx, row, &mut new).await? {
                    return Err(WorkError::Raced {
                        what: format!("the service {}", row.name),
                    }
                    .into());
                }
                let service = new.shown(Some(&record.shown));
                self.tell(tx, &ServiceChanged { service }).await?;
                let event = SandboxChanged {
                    sandbox: record.shown.clone(),
                    made_by: record.made_by,
                };
                self.tell(tx, &event).await?;
            }
        }
        tenants::row::charge(tx, record.tenant(), record.resources(), &self.config).await?;
        if !hosts::row::charge(tx, record.host.as_str(), record.resources(), room).await? {
            return Err(BirthError::HostFull);
        }
        record::pin_volumes(tx, record, volumes).await?;
        record::insert(tx, record, sealed).await?;
        Ok(Written::New)
    }

    fn newborn(&self, birth: &Birth, id: &str, host: &nimbus_model::Hostname, now: Timestamp) -> Record {
        let (readiness, health) = plain(Lifecycle::Starting);
        let admitted: Condition = condition(
            ConditionKind::Admitted,
            Truth::True,
            "DefinitionValidated",
            "the definition is valid",
            1,
            now,
        );
        Record {
            made_by: birth.made_by,
            host: host.clone(),
            charged: true,
            stop_reason: None,
            launched: false,
            launch_until: now.after(self.config.launch_lease),
            seen: Seen {
                boot: None,
                sequence: 0,
                at: Timestamp::from_micros(0),
            },
            ended_at: None,
            version: 1,
            shown: Sandbox {
                tenant: birth.tenant.clone(),
                id: id.to_owned(),
                resource_version: Record::word(1),
                created_at: now,
                updated_at: now,
                labels: birth.labels.clone(),
                profile: birth.profile,
                spec: birth.resolved.shown.clone(),
                status: SandboxStatus {
                    lifecycle: Lifecycle::Starting,
                    readiness,
                    health,
                    endpoints: Vec::new(),
                    exit: None,
                    expires_at: birth.resolved.launch.expires_at,
                    image_digest: None,
                    start: None,
                    started_after_us: None,
                    host: Some(host.to_string()),
                    restarts: 0,
                    conditions: vec![admitted, ready_condition(Lifecycle::Starting, now)],
                },
            },
        }
    }

    /// Reads the tenant's secrets into the variables of the launch, after those given in clear.
    async fn put_secrets(&self, tenant: &str, resolved: &mut Resolved) -> Result<(), WorkError> {
        for (index, SecretUse { secret, variable }) in resolved.secrets.iter().enumerate() {
            let value = self.secret(tenant, secret).await?.ok_or_else(|| {
                WorkError::invalid(
                    format!("spec.process.secrets[{index}].secret"),
                    format!("there is no secret {secret} in this tenant"),
                )
            })?;
            resolved.launch.process.env.push(Variable {
                name: variable.clone(),
                value: Secret::new(value.as_str()),
            });
        }
        Ok(())
    }

    /// The host that the volumes are on, if they are on one; they must all be there.
    async fn pinned(&self, birth: &Birth) -> Result<Option<String>, WorkError> {
        let mut pinned = None;
        for volume in &birth.resolved.volumes {
            let found: Option<(Option<String>, i64)> = reading!(&self.store, |c| sqlx::query_as(
                "SELECT host, deleting FROM workloads_volume WHERE tenant = $1 AND name = $2"
            )
            .bind(&birth.tenant)
            .bind(volume)
            .fetch_optional(c)
            .await)?;
            match found {
                None => {
                    return Err(WorkError::invalid(
                        "spec.mounts",
                        format!("there is no volume {volume} in this tenant"),
                    ));
                }
                Some((_, 1)) => {
                    return Err(WorkError::conflict(
                        "volume_deleting",
                        format!("the volume {volume} is being removed"),
                    ));
                }
                Some((None, _)) => {}
                Some((Some(host), _)) => match &pinned {
                    Some(other) if *other != host => {
                        return Err(WorkError::conflict(
                            "volumes_apart",
                            format!(
                                "the volumes are on {other} and on {host}; one sandbox cannot mount both"
                            ),
                        ));
                    }
                    _ => pinned = Some(host),
                },
            }
        }
        Ok(pinned)
    }
}

/// What a launch is sealed for.
pub(crate) fn associated(id: &str) -> String {
    format!("workloads_sandbox/{id}")
}

/// Undoes the transaction, also where another host is tried next.
enum BirthError {
    HostFull,
    Work(WorkError),
}

impl From<WorkError> for BirthError {
    fn from(error: WorkError) -> Self {
        Self::Work(error)
    }
}

impl From<StoreError> for BirthError {
    fn from(error: StoreError) -> Self {
        Self::Work(error.into())
    }
}

/// How long its creator waits for a sandbox to begin.
pub(crate) const BEGIN: Duration = Duration::from_secs(8);
