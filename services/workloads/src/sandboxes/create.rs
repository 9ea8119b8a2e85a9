//! Creating a standalone sandbox.

use std::sync::Arc;

use nimbus_bus::{Action, Caller, Key};
use nimbus_proto::workloads::{CreateSandboxRequest, Owner, Sandbox};
use tokio::time::Instant;

use super::birth::{BEGIN, Birth, Born, Purpose};
use crate::done::Keyed;
use crate::error::WorkError;
use crate::resolve::{For, resolve};
use crate::sandboxes::record;
use crate::validate::{self, Scene};
use crate::works::{Works, allow_some, audit};

impl Works {
    pub(crate) async fn create_sandbox(
        &self,
        caller: &Caller,
        key: Option<&Key>,
        request: CreateSandboxRequest,
    ) -> Result<Sandbox, WorkError> {
        let received = Instant::now();
        let identity = &caller.identity;
        let tenant = self.open_tenant(identity, &request.tenant).await?;
        allow_some(identity, Action::SandboxesCreate, &tenant)?;
        let scene = Scene {
            tenant: &tenant.id,
            service: None,
            policy: tenant.policy,
            cap: tenant.quota.limit,
            at: "spec",
        };
        let image = validate::sandbox(&request.spec, scene)?;
        validate::labels("labels", &request.labels)?;
        let keyed = Keyed::of(self, key, &tenant.id, "create_sandbox", &request)?;
        let resolved = resolve(
            &request.spec,
            &image,
            For {
                tenant: &tenant.id,
                service: None,
                profile: request.profile,
                defaults: self.config.sandbox_defaults(request.profile),
            },
        );
        let birth = Birth {
            tenant: request.tenant,
            name: match request.spec.owner {
                Owner::Standalone { display_name } => display_name,
                Owner::Service { .. } => None,
            },
            profile: request.profile,
            labels: request.labels,
            made_by: identity.key.as_ref().map(|key| key.id),
            resolved,
            image: image.to_string(),
            purpose: Purpose::Standalone(keyed),
        };
        let (record, launch) = match self.bear(birth).await? {
            Born::New(record, launch) => (record, launch),
            Born::Before(id) => {
                let record = record::find(&self.store, &id).await?;
                return record
                    .map(|record| record.shown)
                    .ok_or_else(|| WorkError::no_sandbox(&tenant.id, &id));
            }
        };
        audit(caller, "sandboxes.create", &tenant.id, record.id());
        // The launch goes on when the caller does not wait for it.
        let (told, answer) = tokio::sync::oneshot::channel();
        let (works, launched) = (self.clone(), Arc::clone(&record));
        self.aside("launching a sandbox", async move {
            let outcome = works.launch(launched, *launch, Some(received)).await;
            let _ = told.send(outcome);
            Ok(())
        });
        match tokio::time::timeout(BEGIN, answer).await {
            Ok(Ok(outcome)) => Ok(outcome?.shown.clone()),
            // It takes longer, or the service stops: the record tells what becomes of it.
            Ok(Err(_)) | Err(_) => Ok(record.shown.clone()),
        }
    }
}
