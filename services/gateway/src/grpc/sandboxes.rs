//! `nimbus.v1.Sandboxes`.

use nimbus_guest::protocol::CommandSpec;
use nimbus_proto::workloads as bus;
use tonic::{Request, Response, Status};

use super::{Server, from_wire, key, status, wire};
use crate::envelope::request_id;

/// How long a command may take when nothing is said.
const EXEC_TIMEOUT_MS: u64 = 60_000;
/// How much of each output a collected command keeps.
const KEEP_BYTES: u32 = 1 << 20;

fn named(name: wire::SandboxName) -> bus::Named {
    bus::Named {
        tenant: name.tenant,
        name: name.id,
    }
}

#[tonic::async_trait]
impl wire::sandboxes_server::Sandboxes for Server {
    async fn create(
        &self,
        request: Request<wire::CreateSandboxRequest>,
    ) -> Result<Response<wire::Sandbox>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let owner = bus::Owner::Standalone {
            display_name: Some(asked.display_name).filter(|name| !name.is_empty()),
        };
        let create = bus::CreateSandboxRequest {
            tenant: asked.tenant,
            profile: from_wire::profile(asked.profile)?,
            spec: from_wire::sandbox_spec(asked.spec, owner)?,
            labels: from_wire::labels(asked.labels),
        };
        let sandbox = self
            .app
            .ask_once::<bus::CreateSandbox>(&principal, key(&asked.idempotency_key), &create)
            .await;
        sandbox
            .map(|sandbox| Response::new(sandbox.into()))
            .map_err(|fault| status(&fault))
    }

    async fn get(&self, request: Request<wire::SandboxName>) -> Result<Response<wire::Sandbox>, Status> {
        let principal = self.principal(&request).await?;
        let sandbox = self
            .app
            .ask_for::<bus::GetSandbox>(&principal, &named(request.into_inner()))
            .await;
        sandbox
            .map(|sandbox| Response::new(sandbox.into()))
            .map_err(|fault| status(&fault))
    }

    async fn list(
        &self,
        request: Request<wire::ListSandboxesRequest>,
    ) -> Result<Response<wire::ListSandboxesResponse>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let list = bus::ListRequest {
            tenant: asked.tenant,
            page: from_wire::page(asked.page),
        };
        let listing = self
            .app
            .ask_for::<bus::ListSandboxes>(&principal, &list)
            .await
            .map_err(|fault| status(&fault))?;
        Ok(Response::new(wire::ListSandboxesResponse {
            sandboxes: listing.items.into_iter().map(Into::into).collect(),
            next_page_token: listing.next_page_token.unwrap_or_default(),
            remaining: listing.remaining,
        }))
    }

    async fn stop(&self, request: Request<wire::SandboxName>) -> Result<Response<wire::Sandbox>, Status> {
        let principal = self.principal(&request).await?;
        let sandbox = self
            .app
            .ask_once::<bus::StopSandbox>(&principal, key(""), &named(request.into_inner()))
            .await;
        sandbox
            .map(|sandbox| Response::new(sandbox.into()))
            .map_err(|fault| status(&fault))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteSandboxRequest>,
    ) -> Result<Response<wire::DeleteSandboxResponse>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let delete = bus::DeleteSandboxRequest {
            tenant: asked.tenant,
            id: asked.id,
            force: asked.force,
        };
        self.app
            .ask_once::<bus::DeleteSandbox>(&principal, key(""), &delete)
            .await
            .map_err(|fault| status(&fault))?;
        Ok(Response::new(wire::DeleteSandboxResponse {}))
    }

    async fn extend(
        &self,
        request: Request<wire::ExtendSandboxRequest>,
    ) -> Result<Response<wire::Sandbox>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let extend = bus::ExtendSandboxRequest {
            tenant: asked.tenant,
            id: asked.id,
            ttl_ms: Some(asked.ttl_ms).filter(|ms| *ms > 0),
            idle_timeout_ms: Some(asked.idle_timeout_ms).filter(|ms| *ms > 0),
        };
        let sandbox = self
            .app
            .ask_once::<bus::ExtendSandbox>(&principal, key(""), &extend)
            .await;
        sandbox
            .map(|sandbox| Response::new(sandbox.into()))
            .map_err(|fault| status(&fault))
    }

    async fn exec(
        &self,
        request: Request<wire::ExecRequest>,
    ) -> Result<Response<wire::ExecResponse>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let id = if asked.command_id.is_empty() {
            request_id().to_string()
        } else {
            asked.command_id
        };
        let mut env: Vec<(String, String)> = asked.env.into_iter().collect();
        env.sort();
        let exec = bus::ExecRequest {
            through: bus::Through::Sandbox {
                tenant: asked.tenant,
                id: asked.sandbox,
            },
            command: CommandSpec {
                env,
                cwd: Some(asked.cwd).filter(|cwd| !cwd.is_empty()),
                stdin: !asked.stdin.is_empty(),
                timeout_ms: Some(if asked.timeout_ms == 0 {
                    EXEC_TIMEOUT_MS
                } else {
                    asked.timeout_ms.min(EXEC_TIMEOUT_MS)
                }),
                ..CommandSpec::new(id.clone(), asked.argv)
            },
            stdin: asked.stdin,
            keep_bytes: KEEP_BYTES,
        };
        let reply = self.app.ask_once::<bus::Exec>(&principal, key(&id), &exec).await;
        reply
            .map(|reply| Response::new(reply.into()))
            .map_err(|fault| status(&fault))
    }
}
