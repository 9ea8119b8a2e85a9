//! The bus methods: decode, call, answer.

use nimbus_bus::{Bus, Incoming, Scope, Serving};
use nimbus_proto::machine as m;
use nimbus_proto::node as n;
use nimbus_service::RunError;

use crate::error::fault;
use crate::operation::store as operations;
use crate::reconcile;
use crate::service::Provisioner;

/// Serves every method; live when it returns.
pub(crate) async fn serve(bus: &Bus, provisioner: &Provisioner) -> Result<Serving, RunError> {
    macro_rules! on {
        (|$this:ident, $call:ident: $incoming:ty| $body:expr) => {{
            let provisioner = provisioner.clone();
            move |$call: $incoming| {
                let $this = provisioner.clone();
                async move { $body }
            }
        }};
    }
    let serving = bus
        .serve(
            "provisioner",
            env!("CARGO_PKG_VERSION"),
            "Machines: provisioning, placement, power",
        )
        .method::<m::Create, _, _>(on!(|this, call: Incoming<m::Create>| {
            let identity = call.require(Scope::MachinesWrite)?.clone();
            this.create(&identity, call.key, call.request)
                .await
                .map_err(fault)
        }))
        .method::<m::List, _, _>(on!(|this, call: Incoming<m::List>| {
            let identity = call.require(Scope::MachinesRead)?;
            this.list(identity, call.request.clone()).await.map_err(fault)
        }))
        .method::<m::Get, _, _>(on!(|this, call: Incoming<m::Get>| {
            let identity = call.require(Scope::MachinesRead)?;
            this.owned(identity, call.request)
                .await
                .and_then(|row| row.view())
                .map_err(fault)
        }))
        .method::<m::Delete, _, _>(on!(|this, call: Incoming<m::Delete>| {
            let identity = call.require(Scope::MachinesWrite)?.clone();
            this.delete(&identity, call.key, call.request)
                .await
                .map_err(fault)
        }))
        .method::<m::Power, _, _>(on!(|this, call: Incoming<m::Power>| {
            let identity = call.require(Scope::MachinesWrite)?.clone();
            this.power(&identity, call.key, call.request).await.map_err(fault)
        }))
        .method::<m::GetOperation, _, _>(on!(|this, call: Incoming<m::GetOperation>| {
            let identity = call.require(Scope::MachinesRead)?;
            this.operation(identity, call.request).await.map_err(fault)
        }))
        .method::<m::ListOperations, _, _>(on!(|this, call: Incoming<m::ListOperations>| {
            let identity = call.require(Scope::MachinesRead)?;
            let limit = call.request.clamp(1, 500);
            let rows = operations::of_owner(&this.inner().store, identity.user, limit).await?;
            rows.iter().map(|row| row.view().map_err(fault)).collect()
        }))
        .method::<m::ClaimKey, _, _>(on!(|this, call: Incoming<m::ClaimKey>| {
            let identity = call.require(Scope::MachinesWrite)?;
            this.claim_key(identity, call.request).await.map_err(fault)
        }))
        .method::<m::Reconcile, _, _>(on!(|this, call: Incoming<m::Reconcile>| {
            call.require(Scope::Admin)?;
            reconcile::run(&this).await.map_err(fault)
        }))
        .method::<n::ListNodes, _, _>(on!(|this, call: Incoming<n::ListNodes>| {
            call.require(Scope::Admin)?;
            this.nodes(call.request).await.map_err(fault)
        }))
        .method::<n::GetCatalog, _, _>(on!(|this, call: Incoming<n::GetCatalog>| {
            let identity = call.require(Scope::MachinesRead)?;
            this.catalog(identity).await.map_err(fault)
        }))
        .method::<n::Preview, _, _>(on!(|this, call: Incoming<n::Preview>| {
            let identity = call.require(Scope::MachinesRead)?;
            this.preview(identity, call.request).await.map_err(fault)
        }))
        .method::<n::ListGuests, _, _>(on!(|this, call: Incoming<n::ListGuests>| {
            call.require(Scope::Admin)?;
            this.guests().await.map_err(fault)
        }))
        .method::<n::GetStats, _, _>(on!(|this, call: Incoming<n::GetStats>| {
            call.require(Scope::Admin)?;
            this.stats().await.map_err(fault)
        }))
        .method::<n::Health, _, _>(on!(|this, _call: Incoming<n::Health>| Ok(this.health().await)))
        .start()
        .await?;
    Ok(serving)
}
