//! What a test needs: a bus, a scripted `workloads`, an agent on the machine's engine.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino_tempfile::Utf8TempDir;
use clap::Parser;
use nimbus_bus::{
    Authority, Bus, ConnectOptions, EmbeddedNats, EmbeddedOptions, Incoming, Serving, Side, StreamId,
    service_user,
};
use nimbus_errors::Fault;
use nimbus_guest::protocol::CommandSpec;
use nimbus_model::{Clock, Hostname, Jump};
use nimbus_proto::agent::{self, AgentExec, AgentOpen, LaunchProcess, LaunchRequest, StopRequest};
use nimbus_proto::workloads::{
    self, Beat, BeatReply, BeatRequest, Denial, ExecReply, Lifecycle, Observation, Profile, Report,
    Resources, RestartPolicy, Variable, Wanted,
};
use nimbus_proto::{Secret, grants};
use nimbus_sandbox_agent::SandboxAgentConfig;
use nimbus_service::{Ctx, Ready, RunError, Tasks};
use nimbus_store::Sealer;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const IMAGE: &str = "nimbus.test/busybox:1";
/// The longest a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the scripted `workloads` heard.
#[derive(Default)]
pub(crate) struct Heard {
    seen: Mutex<HashMap<String, Vec<Observation>>>,
    denials: Mutex<Vec<Denial>>,
    beat: Mutex<Option<BeatRequest>>,
    orders: Mutex<BeatReply>,
}

/// A deployment with one host.
pub(crate) struct World {
    pub(crate) host: Hostname,
    pub(crate) workloads: Bus,
    pub(crate) gateway: Bus,
    pub(crate) heard: Arc<Heard>,
    pub(crate) dir: Utf8TempDir,
    /// The agent's wall clock, and what moves it.
    pub(crate) clock: Clock,
    pub(crate) jump: Jump,
    launched: Mutex<Vec<String>>,
    agent: Option<Running>,
    flags: Vec<String>,
    authority: Authority,
    nats: EmbeddedNats,
    _serving: Serving,
}

struct Running {
    stop: CancellationToken,
    tasks: Tasks,
    running: JoinHandle<Result<(), RunError>>,
}

impl World {
    /// A world whose agent keeps no warm containers but those that are prepared.
    pub(crate) async fn start() -> Self {
        Self::with(&["--sandbox-warm", "0"]).await
    }

    /// A world whose agent has these flags, too.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        let present = docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]);
        assert!(
            present.is_ok(),
            "no engine with {IMAGE}: run ops/dev/engine.sh start && ops/dev/engine.sh images ({present:?})"
        );
        let dir = camino_tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path().join("bus")).unwrap();
        let options = EmbeddedOptions {
            data_dir: dir.path().to_owned(),
            authority: Some(&authority),
            binary: None,
        };
        let nats = EmbeddedNats::start(options).await.unwrap();
        let connect =
            |service: &'static str| connect(&nats, &authority, service, grants::of(service).unwrap());
        let (workloads, gateway) = (connect("workloads").await, connect("gateway").await);
        let heard = Arc::new(Heard::default());
        let serving = script(&workloads, &heard).await;
        let host: Hostname = format!("t-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
            .parse()
            .unwrap();
        let (clock, jump) = Clock::movable();
        let mut world = Self {
            clock,
            jump,
            host,
            workloads,
            gateway,
            heard,
            dir,
            launched: Mutex::default(),
            agent: None,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            authority,
            nats,
            _serving: serving,
        };
        world.start_agent().await;
        world
    }

    pub(crate) async fn start_agent(&mut self) {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            agent: SandboxAgentConfig,
        }
        let init = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/guest/nimbus-guest");
        let mut line = vec![
            "test".to_owned(),
            "--sandbox-host".to_owned(),
            self.host.to_string(),
        ];
        if std::path::Path::new(init).exists() {
            line.extend(["--guest-init".to_owned(), init.to_owned()]);
        }
        line.extend(self.flags.iter().cloned());
        let config = Line::parse_from(line).agent.under(self.dir.path());
        let bus = connect(&self.nats, &self.authority, "agent", grants::agent(&self.host)).await;
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone(), CancellationToken::new());
        let ready = Ready::default();
        let ctx = Ctx {
            bus,
            database: None,
            sealer: Some(Sealer::load(&self.dir.path().join("key"), None).unwrap()),
            clock: self.clock.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            instance: "test".into(),
            ready: ready.clone(),
        };
        let mut running = tokio::spawn(nimbus_sandbox_agent::run(ctx, config));
        tokio::select! {
            () = within(ready.wait()) => {}
            ended = &mut running => panic!("the agent ended: {ended:?}"),
        }
        self.agent = Some(Running { stop, tasks, running });
    }

    /// Ends the agent without a word, as a kill does.
    pub(crate) async fn kill_agent(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.running.abort();
        let _ = agent.running.await;
        agent.stop.cancel();
        agent.tasks.ended().await;
    }

    /// Ends the agent, removes every sandbox and checks that nothing is left on the engine.
    pub(crate) async fn end(mut self) {
        let launched = std::mem::take(&mut *self.launched.lock().unwrap());
        for id in launched {
            self.remove(&id).await.unwrap();
        }
        let agent = self.agent.take().unwrap();
        agent.stop.cancel();
        within(agent.running).await.unwrap().unwrap();
        within(agent.tasks.ended()).await;
        let left = eventually(async || self.containers(), Vec::is_empty).await;
        assert!(left.is_empty());
    }

    /// Ids of containers with this world's label.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=io.nimbus.sandbox.host={}", self.host);
        let text = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) async fn launch(&self, request: &LaunchRequest) -> Result<Observation, Fault> {
        self.launched.lock().unwrap().push(request.sandbox.clone());
        self.workloads.call::<agent::Launch>(request).at(&self.host).await
    }

    /// Launches and waits until it is ready.
    pub(crate) async fn ready(&self, request: &LaunchRequest) -> Observation {
        let seen = self.launch(request).await.unwrap();
        if seen.lifecycle == Lifecycle::Ready {
            return seen;
        }
        self.until(&request.sandbox, |seen| seen.lifecycle == Lifecycle::Ready)
            .await
    }

    pub(crate) async fn prepare(&self, warm: u32) {
        let image = IMAGE.to_owned();
        self.workloads
            .call::<agent::Prepare>(&agent::PrepareRequest { image, warm })
            .at(&self.host)
            .await
            .unwrap();
    }

    pub(crate) async fn stop(&self, sandbox: &str) -> Observation {
        let request = StopRequest {
            sandbox: sandbox.to_owned(),
            reason: "StoppedByRequest".into(),
        };
        self.workloads
            .call::<agent::Stop>(&request)
            .at(&self.host)
            .await
            .unwrap()
    }

    pub(crate) async fn remove(&self, sandbox: &str) -> Result<(), Fault> {
        self.workloads
            .call::<agent::Remove>(&sandbox.to_owned())
            .at(&self.host)
            .await
    }

    pub(crate) async fn exec(&self, sandbox: &str, id: &str, argv: &[&str]) -> Result<ExecReply, Fault> {
        let request = AgentExec {
            sandbox: sandbox.to_owned(),
            lease: None,
            command: CommandSpec::new(id, argv.iter().copied()),
            stdin: vec![],
            keep_bytes: 1 << 20,
        };
        self.workloads.call::<agent::Exec>(&request).at(&self.host).await
    }

    /// Runs a shell line and gives what it wrote.
    pub(crate) async fn shell(&self, sandbox: &str, line: &str) -> String {
        let id = format!("c-{}", uuid::Uuid::new_v4().simple());
        let reply = self.exec(sandbox, &id, &["sh", "-c", line]).await.unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&reply.stdout),
            String::from_utf8_lossy(&reply.stderr)
        )
    }

    /// Waits until an observation is heard.
    pub(crate) async fn until(&self, sandbox: &str, good: impl Fn(&Observation) -> bool) -> Observation {
        let last = eventually(
            async || self.last(sandbox),
            |seen| seen.as_ref().is_some_and(&good),
        )
        .await;
        last.unwrap()
    }

    pub(crate) async fn until_over(&self, sandbox: &str) -> Observation {
        self.until(sandbox, |seen| seen.lifecycle.is_final()).await
    }

    /// What was heard of a sandbox last.
    pub(crate) fn last(&self, sandbox: &str) -> Option<Observation> {
        let reported = self.heard.seen.lock().unwrap();
        let beat = self.heard.beat.lock().unwrap();
        let in_beat = beat
            .iter()
            .flat_map(|beat| &beat.sandboxes)
            .filter(|seen| seen.sandbox == sandbox);
        reported
            .get(sandbox)
            .into_iter()
            .flatten()
            .chain(in_beat)
            .max_by_key(|seen| seen.sequence)
            .cloned()
    }

    pub(crate) fn beat(&self) -> Option<BeatRequest> {
        self.heard.beat.lock().unwrap().clone()
    }

    pub(crate) fn denials(&self) -> Vec<Denial> {
        self.heard.denials.lock().unwrap().clone()
    }

    /// Whether the last orders were given out.
    pub(crate) fn orders_taken(&self) -> bool {
        let orders = self.heard.orders.lock().unwrap();
        orders.expected.is_empty() && orders.stop.is_empty() && orders.remove.is_empty()
    }

    /// Follows a log until a line comes, and gives all lines up to there.
    pub(crate) async fn log(&self, sandbox: &str, last: &str) -> Vec<String> {
        let id = StreamId::fresh();
        let stream = self.gateway.stream(id, "logs", Side::Client).await.unwrap();
        let open = AgentOpen {
            stream: id,
            word: "logs".into(),
            sandbox: sandbox.to_owned(),
            lease: None,
            wanted: Wanted::Logs {
                tail: None,
                since: None,
                follow: true,
            },
        };
        self.workloads
            .call::<agent::Open>(&open)
            .at(&self.host)
            .await
            .unwrap();
        let mut lines = BufReader::new(stream).lines();
        let mut all = Vec::new();
        within(async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                all.push(line["data"].as_str().unwrap().to_owned());
                if all.last().is_some_and(|line| line == last) {
                    break;
                }
            }
        })
        .await;
        all
    }

    pub(crate) fn order(&self, orders: BeatReply) {
        *self.heard.orders.lock().unwrap() = orders;
    }
}

async fn script(workloads: &Bus, heard: &Arc<Heard>) -> Serving {
    let (beating, reporting) = (Arc::clone(heard), Arc::clone(heard));
    let verifier = Arc::new(nimbus_proto::verify::JwtVerifier::new(
        workloads.clone(),
        Clock::system(),
    ));
    workloads
        .with_verifier(verifier)
        .serve("workloads", "0.1.0", "Scripted")
        .method::<Beat, _, _>(move |call: Incoming<Beat>| {
            let heard = Arc::clone(&beating);
            async move {
                *heard.beat.lock().unwrap() = Some(call.request);
                Ok(std::mem::take(&mut *heard.orders.lock().unwrap()))
            }
        })
        .method::<Report, _, _>(move |call: Incoming<Report>| {
            let heard = Arc::clone(&reporting);
            async move {
                for seen in call.request.observations {
                    let mut all = heard.seen.lock().unwrap();
                    all.entry(seen.sandbox.clone()).or_default().push(seen);
                }
                heard.denials.lock().unwrap().extend(call.request.denials);
                Ok(())
            }
        })
        .start()
        .await
        .unwrap()
}

async fn connect(nats: &EmbeddedNats, authority: &Authority, name: &str, grants: nimbus_bus::Grants) -> Bus {
    let credential = authority.mint(&service_user(name, &grants));
    let options = ConnectOptions {
        url: nats.url(),
        name: name.into(),
        credential: Some(credential),
        ca_file: None,
        clock: Clock::system(),
    };
    Bus::connect(options).await.unwrap()
}

/// A fresh sandbox that runs a shell line.
pub(crate) fn sandbox(line: &str) -> LaunchRequest {
    let id = uuid::Uuid::new_v4().simple().to_string();
    LaunchRequest {
        sandbox: format!("t-{}", &id[..26]),
        tenant: "demo".into(),
        profile: Profile::Worker,
        image: IMAGE.into(),
        process: LaunchProcess {
            argv: vec!["sh".into(), "-c".into(), line.into()],
            entrypoint: None,
            command: None,
            env: vec![],
            cwd: None,
            user: None,
            terminal: false,
        },
        resources: Resources {
            cpu_milli: 1000,
            memory_bytes: 512 << 20,
            disk_bytes: 5 << 30,
            log_bytes: 1 << 20,
            pids: 512,
        },
        ports: None,
        egress: vec![],
        mounts: vec![],
        restart: RestartPolicy::Never,
        stop_timeout_ms: 2000,
        health: None,
        expires_at: None,
        idle_timeout_ms: None,
        read_only_root: false,
    }
}

pub(crate) fn variable(name: &str, value: &str) -> Variable {
    Variable {
        name: name.into(),
        value: Secret::new(value),
    }
}

/// The reason of a condition of the kind `Ready`.
pub(crate) fn reason(seen: &Observation) -> String {
    seen.conditions
        .iter()
        .find(|one| one.kind == workloads::ConditionKind::Ready)
        .map(|one| one.reason.clone())
        .unwrap_or_default()
}

/// Asks the engine by its own command line, as a person would.
pub(crate) fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker")
        .args(args)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Waits for what must come, or says that it did not.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it did not happen in time")
}

/// Asks again until the answer is good; says the last answer otherwise.
pub(crate) async fn eventually<T: std::fmt::Debug>(ask: impl AsyncFn() -> T, good: impl Fn(&T) -> bool) -> T {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if good(&answer) {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "the last answer was {answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
