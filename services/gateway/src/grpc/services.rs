//! `nimbus.v1.Services`.

use nimbus_proto::workloads as bus;
use tonic::{Request, Response, Status};

use super::{Server, from_wire, key, status, wire};

fn named(name: wire::ServiceName) -> bus::Named {
    bus::Named {
        tenant: name.tenant,
        name: name.name,
    }
}

/// The definition, and the key of the request that writes it.
fn definition(asked: wire::WriteServiceRequest, update: bool) -> Result<(bus::WriteService, String), Status> {
    let labels = from_wire::labels(asked.labels);
    let write = bus::WriteService {
        tenant: asked.tenant,
        name: asked.name,
        labels: Some(labels).filter(|labels| !update || !labels.is_empty()),
        backend: from_wire::backend(asked.backend)?,
        if_generation: Some(asked.if_generation).filter(|generation| *generation > 0),
        reject_active: false,
    };
    Ok((write, asked.idempotency_key))
}

macro_rules! answer {
    ($result:expr) => {
        $result
            .map(|service| Response::new(service.into()))
            .map_err(|fault| status(&fault))
    };
}

#[tonic::async_trait]
impl wire::services_server::Services for Server {
    async fn create(
        &self,
        request: Request<wire::WriteServiceRequest>,
    ) -> Result<Response<wire::Service>, Status> {
        let principal = self.principal(&request).await?;
        let (write, given) = definition(request.into_inner(), false)?;
        answer!(
            self.app
                .ask_once::<bus::CreateService>(&principal, key(&given), &write)
                .await
        )
    }

    async fn get(&self, request: Request<wire::ServiceName>) -> Result<Response<wire::Service>, Status> {
        let principal = self.principal(&request).await?;
        answer!(
            self.app
                .ask_for::<bus::GetService>(&principal, &named(request.into_inner()))
                .await
        )
    }

    async fn list(
        &self,
        request: Request<wire::ListServicesRequest>,
    ) -> Result<Response<wire::ListServicesResponse>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let list = bus::ListRequest {
            tenant: asked.tenant,
            page: from_wire::page(asked.page),
        };
        let listing = self
            .app
            .ask_for::<bus::ListServices>(&principal, &list)
            .await
            .map_err(|fault| status(&fault))?;
        Ok(Response::new(wire::ListServicesResponse {
            services: listing.items.into_iter().map(Into::into).collect(),
            next_page_token: listing.next_page_token.unwrap_or_default(),
            remaining: listing.remaining,
        }))
    }

    async fn update(
        &self,
        request: Request<wire::WriteServiceRequest>,
    ) -> Result<Response<wire::Service>, Status> {
        let principal = self.principal(&request).await?;
        let (write, given) = definition(request.into_inner(), true)?;
        answer!(
            self.app
                .ask_once::<bus::UpdateService>(&principal, key(&given), &write)
                .await
        )
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteServiceRequest>,
    ) -> Result<Response<wire::DeleteServiceResponse>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let delete = bus::DeleteServiceRequest {
            tenant: asked.tenant,
            name: asked.name,
            if_generation: asked.if_generation,
            force: asked.force,
        };
        self.app
            .ask_once::<bus::DeleteService>(&principal, key(""), &delete)
            .await
            .map_err(|fault| status(&fault))?;
        Ok(Response::new(wire::DeleteServiceResponse {}))
    }

    async fn start(&self, request: Request<wire::ServiceName>) -> Result<Response<wire::Service>, Status> {
        let principal = self.principal(&request).await?;
        answer!(
            self.app
                .ask_once::<bus::StartService>(&principal, key(""), &named(request.into_inner()))
                .await
        )
    }

    async fn stop(&self, request: Request<wire::ServiceName>) -> Result<Response<wire::Service>, Status> {
        let principal = self.principal(&request).await?;
        answer!(
            self.app
                .ask_once::<bus::StopService>(&principal, key(""), &named(request.into_inner()))
                .await
        )
    }

    async fn restart(
        &self,
        request: Request<wire::RestartServiceRequest>,
    ) -> Result<Response<wire::Service>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let restart = bus::RestartServiceRequest {
            tenant: asked.tenant,
            name: asked.name,
            source_generation: Some(asked.source_generation).filter(|generation| *generation > 0),
            request_id: Some(asked.request_id).filter(|id| !id.is_empty()),
        };
        answer!(
            self.app
                .ask_once::<bus::RestartService>(&principal, key(""), &restart)
                .await
        )
    }
}
