//! `nimbus.v1.Sessions`.

use std::pin::Pin;

use futures::Stream;
use nimbus_proto::workloads as bus;
use tonic::{Request, Response, Status, Streaming};

use super::{Server, attach, from_wire, key, status, wire};

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

macro_rules! answer {
    ($result:expr) => {
        $result
            .map(|session| Response::new(session.into()))
            .map_err(|fault| status(&fault))
    };
}

#[tonic::async_trait]
impl wire::sessions_server::Sessions for Server {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<wire::AttachResponse, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<wire::OpenSessionRequest>,
    ) -> Result<Response<wire::Session>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let open = bus::OpenSessionRequest {
            tenant: asked.tenant,
            target: from_wire::target(asked.target)?,
            channels: from_wire::channels(&asked.channels)?,
            ttl_ms: Some(asked.ttl_ms).filter(|ms| *ms > 0),
        };
        answer!(
            self.app
                .ask_once::<bus::OpenSession>(&principal, key(""), &open)
                .await
        )
    }

    async fn get(&self, request: Request<wire::SessionName>) -> Result<Response<wire::Session>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let session = bus::SessionRef {
            tenant: given(asked.tenant),
            id: asked.id,
        };
        answer!(self.app.ask_for::<bus::GetSession>(&principal, &session).await)
    }

    async fn list(
        &self,
        request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let list = bus::ListRequest {
            tenant: asked.tenant,
            page: from_wire::page(asked.page),
        };
        let listing = self
            .app
            .ask_for::<bus::ListSessions>(&principal, &list)
            .await
            .map_err(|fault| status(&fault))?;
        Ok(Response::new(wire::ListSessionsResponse {
            sessions: listing.items.into_iter().map(Into::into).collect(),
            next_page_token: listing.next_page_token.unwrap_or_default(),
            remaining: listing.remaining,
        }))
    }

    async fn close(
        &self,
        request: Request<wire::CloseSessionRequest>,
    ) -> Result<Response<wire::Session>, Status> {
        let principal = self.principal(&request).await?;
        let asked = request.into_inner();
        let close = bus::CloseSessionRequest {
            session: bus::SessionRef {
                tenant: given(asked.tenant),
                id: asked.id,
            },
            reason: given(asked.reason),
        };
        answer!(
            self.app
                .ask_once::<bus::CloseSession>(&principal, key(""), &close)
                .await
        )
    }

    async fn attach(
        &self,
        request: Request<Streaming<wire::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let principal = self.principal(&request).await?;
        let answers = attach::attach(&self.app, &principal, request.into_inner()).await?;
        Ok(Response::new(Box::pin(answers)))
    }
}
