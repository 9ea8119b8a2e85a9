//! One gateway with everything it needs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use camino_tempfile::Utf8TempDir;
use nimbus_bus::{
    Authority, Bus, CloudEvent, ConnectOptions, EmbeddedNats, EmbeddedOptions, Event, Serving, service_user,
};
use nimbus_gateway::GatewayConfig;
use nimbus_model::Clock;
use nimbus_proto::event::OperationProgressed;
use nimbus_proto::grants;
use nimbus_proto::machine::Operation;
use nimbus_service::{Ctx, Ready, RunError, Tasks};
use nimbus_telemetry::{Metrics, Traces};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::peers::{Books, Person, Tokens, serve_auth, serve_ippool, serve_provisioner};
use crate::plane::Plane;
use crate::works::{self, Works};

/// The longest a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub address: SocketAddr,
    pub books: Books,
    pub client: Client,
    pub stop: CancellationToken,
    pub auth: Bus,
    pub provisioner: Bus,
    pub ippool: Bus,
    pub works: Works,
    pub workloads: Bus,
    pub gpu: Bus,
    pub plane: Plane,
    pub running: JoinHandle<Result<(), RunError>>,
    _serving: Vec<Serving>,
    _nats: EmbeddedNats,
    _dir: Utf8TempDir,
}

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it did not happen in time")
}

pub(crate) fn client() -> Client {
    Client::builder()
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// Limits that no test meets by accident.
pub(crate) fn config() -> GatewayConfig {
    GatewayConfig {
        rate_address: 0,
        rate_user: 0,
        ..GatewayConfig::default()
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(config(), true).await
    }

    /// `services` says whether there is anybody to answer the gateway.
    pub(crate) async fn with(config: GatewayConfig, services: bool) -> Self {
        Self::try_start(config, services, Traces::default())
            .await
            .unwrap()
    }

    pub(crate) async fn try_with(config: GatewayConfig) -> Result<Self, RunError> {
        Self::try_start(config, false, Traces::default()).await
    }

    /// A gateway that shows these traces.
    pub(crate) async fn traced(traces: Traces) -> Self {
        Self::try_start(config(), true, traces).await.unwrap()
    }

    async fn try_start(config: GatewayConfig, services: bool, traces: Traces) -> Result<Self, RunError> {
        let dir = camino_tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path().join("bus")).unwrap();
        let options = EmbeddedOptions {
            data_dir: dir.path().to_owned(),
            authority: Some(&authority),
            binary: None,
        };
        let nats = EmbeddedNats::start(options).await.unwrap();
        let connect = async |name: &str| {
            let rights = match name.strip_prefix("agent-") {
                Some(host) => grants::agent(&host.parse().unwrap()),
                None => grants::of(name).unwrap(),
            };
            let credential = authority.mint(&service_user(name, &rights));
            let options = ConnectOptions {
                url: nats.url(),
                name: name.to_owned(),
                credential: Some(credential),
                ca_file: None,
                clock: Clock::system(),
            };
            Bus::connect(options).await.unwrap()
        };
        let books = Books::default();
        let verifier = Tokens::of(&books);
        let auth = connect("auth").await.with_verifier(verifier.clone());
        let provisioner = connect("provisioner").await.with_verifier(verifier.clone());
        let ippool = connect("ippool").await.with_verifier(verifier.clone());
        let workloads = connect("workloads").await.with_verifier(verifier);
        let gpu = connect("gpu-scheduler").await.with_verifier(Tokens::of(&books));
        let plane = Plane::default();
        let (works, running_works) = works::serve(&workloads, connect("agent-a").await, &books).await;
        let mut serving = Vec::new();
        if services {
            serving.push(serve_auth(&auth, &books).await);
            serving.push(serve_provisioner(&provisioner, &books).await);
            serving.push(serve_ippool(&ippool).await);
            serving.push(running_works);
            serving.push(plane.serve(&gpu).await);
        }

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let ctx = Ctx {
            bus: connect("gateway").await,
            database: None,
            sealer: None,
            clock: Clock::system(),
            tasks: Tasks::new(stop.clone(), stop.clone()),
            stop: stop.clone(),
            instance: "test".to_owned(),
            ready: Ready::default(),
        };
        let ready = ctx.ready.clone();
        let mut running = tokio::spawn(nimbus_gateway::run(
            ctx,
            config,
            listener,
            traces,
            Metrics::default(),
        ));
        tokio::select! {
            () = within(ready.wait()) => {}
            ended = &mut running => {
                ended.unwrap()?;
                panic!("the gateway ended at once");
            }
        }
        Ok(Self {
            address,
            books,
            client: client(),
            stop,
            auth,
            provisioner,
            ippool,
            works,
            workloads,
            gpu,
            plane,
            running,
            _serving: serving,
            _nats: nats,
            _dir: dir,
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request without a credential.
    pub(crate) fn plain(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// A request of the person's script.
    pub(crate) fn by(&self, person: Person, method: Method, path: &str) -> RequestBuilder {
        self.plain(method, path).bearer_auth(person.token())
    }

    /// A request of the person's browser.
    pub(crate) fn browser(&self, person: Person, method: Method, path: &str) -> RequestBuilder {
        self.plain(method, path)
            .header("cookie", format!("nimbus_sid={}", person.session()))
    }

    pub(crate) async fn get(&self, person: Person, path: &str) -> (StatusCode, Value) {
        answer(self.by(person, Method::GET, path)).await
    }

    pub(crate) async fn publish(bus: &Bus, source: &str, event: &impl Event) {
        bus.publish(&CloudEvent::of(event, source, &Clock::system()))
            .await
            .unwrap();
    }

    /// Changes an operation in the books and says so.
    pub(crate) async fn progress(&self, operation: &Operation) {
        self.books.put(operation.clone());
        Self::publish(
            &self.provisioner,
            "provisioner",
            &OperationProgressed {
                operation: operation.clone(),
            },
        )
        .await;
    }
}

/// Sends it and reads the answer as JSON.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, json(response).await)
}

pub(crate) async fn json(response: Response) -> Value {
    let text = response.text().await.unwrap();
    if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

/// The answer's status and fault code; panics when the envelope is not one.
pub(crate) async fn refusal(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body = json(response).await;
    assert_eq!(body["success"], false, "{body}");
    assert_eq!(body["error"], body["fault"]["message"], "{body}");
    assert_eq!(body["fault"]["requestId"], id, "{body}");
    (status, body["fault"]["code"].as_str().unwrap().to_owned())
}
