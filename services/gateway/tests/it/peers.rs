//! Small services on the bus: they keep a few books and answer as the real ones do.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nimbus_bus::{Bus, Identity, Incoming, Method, Scope, Serving, Verify};
use nimbus_errors::{Code, Fault};
use nimbus_model::{Clock, MachineId, OperationId, Os, SessionId, TenantId, Tier, TokenId, UserId};
use nimbus_proto::auth::{self, Exchanged, LoginReply, Secret, SetupStatus, User};
use nimbus_proto::ippool;
use nimbus_proto::machine::{
    self, KeyChoice, Machine, MachineStatus, Operation, OperationKind, OperationState, PowerAction,
    PrivateKey, ProvisionResult, StepState, StepView,
};
use nimbus_proto::node;
use tokio::sync::watch;

/// Who sends requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Person {
    /// An administrator.
    Ada,
    /// A member.
    Bob,
    /// A member who owns nothing.
    Eve,
    /// Bob's script that may only look.
    BobsReader,
    /// The token inside one of Bob's machines.
    BobsMachine,
}

impl Person {
    const ALL: [Self; 5] = [
        Self::Ada,
        Self::Bob,
        Self::Eve,
        Self::BobsReader,
        Self::BobsMachine,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ada => "ada",
            Self::Bob => "bob",
            Self::Eve => "eve",
            Self::BobsReader => "reader",
            Self::BobsMachine => "machine",
        }
    }

    pub(crate) fn token(self) -> String {
        let prefix = if self == Self::BobsMachine { "nbv" } else { "nbp" };
        format!("{prefix}_{}", self.name())
    }

    pub(crate) fn session(self) -> String {
        format!("{}-session", self.name())
    }
}

/// What the services know; clones share it.
#[derive(Clone)]
pub(crate) struct Books {
    inner: Arc<Mutex<Inner>>,
    /// How many exchanges were asked for.
    pub(crate) exchanges: Arc<watch::Sender<u32>>,
    /// Held back until this is true.
    pub(crate) may_exchange: Arc<watch::Sender<bool>>,
    /// Operations that were ordered, the newest last.
    pub(crate) ordered: Arc<watch::Sender<Vec<OperationId>>>,
}

struct Inner {
    identities: HashMap<Person, Identity>,
    revoked: Vec<String>,
    machines: HashMap<MachineId, Machine>,
    operations: HashMap<OperationId, Operation>,
    keys: HashMap<String, OperationId>,
    claimable: Vec<OperationId>,
    /// The last request of its kind, for a look at what arrived.
    login: Option<auth::LoginRequest>,
}

impl Default for Books {
    fn default() -> Self {
        let bob = UserId::fresh();
        let identities = Person::ALL.map(|person| {
            let is_bob = matches!(person, Person::Bob | Person::BobsReader | Person::BobsMachine);
            let user = if is_bob { bob } else { UserId::fresh() };
            let scopes = match person {
                Person::BobsReader => vec![Scope::MachinesRead],
                Person::BobsMachine => vec![Scope::Gpu],
                Person::Ada | Person::Bob | Person::Eve => Scope::all().to_vec(),
            };
            let identity = Identity {
                user,
                tenant: TenantId::fresh(),
                admin: person == Person::Ada,
                scopes,
                session: Some(SessionId::fresh()),
                token: Some(TokenId::fresh()),
                key: None,
                machine: (person == Person::BobsMachine).then(MachineId::fresh),
            };
            (person, identity)
        });
        Self {
            inner: Arc::new(Mutex::new(Inner {
                identities: identities.into(),
                revoked: Vec::new(),
                machines: HashMap::new(),
                operations: HashMap::new(),
                keys: HashMap::new(),
                claimable: Vec::new(),
                login: None,
            })),
            exchanges: Arc::new(watch::Sender::new(0)),
            may_exchange: Arc::new(watch::Sender::new(true)),
            ordered: Arc::default(),
        }
    }
}

impl Books {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn identity(&self, person: Person) -> Identity {
        self.lock().identities[&person].clone()
    }

    pub(crate) fn user(&self, person: Person) -> UserId {
        self.identity(person).user
    }

    /// From now on this secret is refused.
    pub(crate) fn revoke(&self, secret: &str) {
        self.lock().revoked.push(secret.to_owned());
    }

    pub(crate) fn last_login(&self) -> auth::LoginRequest {
        self.lock().login.clone().unwrap()
    }

    pub(crate) fn put(&self, operation: Operation) {
        self.lock().operations.insert(operation.id, operation);
    }

    pub(crate) fn operation(&self, id: OperationId) -> Operation {
        self.lock().operations[&id].clone()
    }

    /// A machine of this person, made at once.
    pub(crate) fn own(&self, person: Person, hostname: &str) -> Machine {
        let identity = self.identity(person);
        let at = Clock::system().now();
        let machine = Machine {
            id: MachineId::fresh(),
            owner: identity.user,
            tenant: identity.tenant,
            hostname: hostname.to_owned(),
            tier: Tier::Small,
            os: Os::Debian12,
            username: "debian".into(),
            status: MachineStatus::Running,
            vmid: Some(101),
            ip: Some(Ipv4Addr::new(10, 0, 0, 9)),
            node: Some("pve1".into()),
            key_name: None,
            ssh_pubkey: "ssh-ed25519 AAAA".into(),
            tunnel_error: None,
            error_msg: None,
            operation: None,
            created_at: at,
            updated_at: at,
        };
        self.lock().machines.insert(machine.id, machine.clone());
        machine
    }

    /// An operation on a machine, running.
    pub(crate) fn order(&self, kind: OperationKind, machine: &Machine, labels: &[(&str, &str)]) -> Operation {
        let at = Clock::system().now();
        let steps = labels.iter().map(|(key, label)| StepView {
            key: (*key).to_owned(),
            label: (*label).to_owned(),
            state: StepState::Pending,
            started_at: None,
            finished_at: None,
        });
        let operation = Operation {
            id: OperationId::fresh(),
            kind,
            state: OperationState::Running,
            owner: machine.owner,
            machine: machine.id,
            hostname: machine.hostname.clone(),
            steps: steps.collect(),
            result: None,
            fault: None,
            created_at: at,
            started_at: Some(at),
            finished_at: None,
            trace_id: None,
        };
        self.put(operation.clone());
        self.ordered.send_modify(|ordered| ordered.push(operation.id));
        operation
    }

    /// The operation with its first steps done.
    pub(crate) fn after_steps(&self, id: OperationId, done: usize) -> Operation {
        let mut operation = self.operation(id);
        for step in operation.steps.iter_mut().take(done) {
            let at = Clock::system().now();
            step.state = StepState::Done;
            step.started_at = Some(at);
            step.finished_at = Some(at.after(Duration::from_millis(1234)));
        }
        operation
    }

    /// The operation as it is when it has succeeded; a key waits when one was asked for.
    pub(crate) fn succeeded(&self, id: OperationId) -> Operation {
        let mut operation = self.after_steps(id, usize::MAX);
        operation.state = OperationState::Succeeded;
        operation.finished_at = Some(Clock::system().now());
        if operation.kind == OperationKind::Provision {
            let has_private_key = self.lock().claimable.contains(&id);
            operation.result = Some(ProvisionResult {
                machine: operation.machine,
                vmid: 101,
                hostname: operation.hostname.clone(),
                ip: Ipv4Addr::new(10, 0, 0, 9),
                username: "debian".into(),
                os: Os::Debian12,
                tier: Tier::Small,
                node: "pve1".into(),
                key_name: has_private_key.then(|| "nimbus-web-1".to_owned()),
                warning: None,
                tunnel_error: None,
                has_private_key,
            });
        }
        operation
    }

    /// The operation as it is when it has failed.
    pub(crate) fn failed(&self, id: OperationId, fault: Fault) -> Operation {
        let mut operation = self.operation(id);
        operation.state = OperationState::Failed;
        operation.fault = Some(fault);
        operation
    }

    fn machine_of<M: Method>(&self, call: &Incoming<M>, id: MachineId) -> Result<Machine, Fault> {
        let user = call.user()?.user;
        let machine = self
            .lock()
            .machines
            .get(&id)
            .filter(|machine| machine.owner == user)
            .cloned();
        machine.ok_or_else(|| Fault::new(Code::OpNotFound, format!("there is no machine {id}")))
    }

    fn operation_of<M: Method>(&self, call: &Incoming<M>, id: OperationId) -> Result<Operation, Fault> {
        let user = call.user()?.user;
        let operation = self
            .lock()
            .operations
            .get(&id)
            .filter(|operation| operation.owner == user)
            .cloned();
        operation.ok_or_else(|| Fault::new(Code::OpNotFound, format!("there is no operation {id}")))
    }

    fn person(&self, user: UserId) -> User {
        let inner = self.lock();
        let (person, identity) = inner
            .identities
            .iter()
            .find(|(_, identity)| identity.user == user)
            .unwrap();
        User {
            id: user,
            name: person.name().to_owned(),
            email: format!("{}@example.org", person.name()),
            is_admin: identity.admin,
            tenant: identity.tenant,
            created_at: Clock::system().now(),
        }
    }
}

/// Verifies the access tokens that the small `auth` hands out.
pub(crate) struct Tokens(Books);

impl Tokens {
    pub(crate) fn of(books: &Books) -> Arc<Self> {
        Arc::new(Self(books.clone()))
    }
}

impl Verify for Tokens {
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Fault>> {
        let known = Person::ALL.into_iter().find_map(|person| {
            let identity = self.0.identity(person);
            // A session's identity names no token, and the other way round.
            if token == format!("access-{}-nbp", person.name()) {
                Some(Identity {
                    session: None,
                    ..identity
                })
            } else if token == format!("access-{}-sid", person.name()) {
                Some(Identity {
                    token: None,
                    ..identity
                })
            } else {
                None
            }
        });
        std::future::ready(known.ok_or_else(|| Fault::new(Code::AuthUnauthorized, "not a token of ours")))
            .boxed()
    }
}

async fn exchange(books: Books, secret: String, kind: &'static str) -> Result<Exchanged, Fault> {
    books.exchanges.send_modify(|count| *count += 1);
    let mut may = books.may_exchange.subscribe();
    may.wait_for(|may| *may).await.unwrap();
    let revoked = books.lock().revoked.contains(&secret);
    let person = Person::ALL.into_iter().find(|person| {
        secret
            == if kind == "nbp" {
                person.token()
            } else {
                person.session()
            }
    });
    let Some(person) = person.filter(|_| !revoked) else {
        return Err(Fault::new(Code::AuthUnauthorized, "Session expired"));
    };
    let mut identity = books.identity(person);
    if kind == "nbp" {
        identity.session = None
    } else {
        identity.token = None
    }
    Ok(Exchanged {
        access_token: Secret::new(format!("access-{}-{kind}", person.name())),
        expires_at: Clock::system().now().after(Duration::from_secs(300)),
        identity,
    })
}

fn login(books: &Books, request: auth::LoginRequest) -> Result<LoginReply, Fault> {
    books.lock().login = Some(request.clone());
    if request.email == "throttled@example.org" {
        return Err(Fault::new(Code::RateLimited, "too many failed attempts")
            .with_detail(&serde_json::json!({ "retryAfterMs": 42_000 })));
    }
    if request.email != "ada@example.org" || request.password.reveal() != "correct horse" {
        return Err(Fault::new(Code::AuthUnauthorized, "Invalid email or password"));
    }
    Ok(LoginReply {
        user: books.person(books.user(Person::Ada)),
        secret: Secret::new(Person::Ada.session()),
        expires_at: Clock::system().now().after(Duration::from_secs(3600)),
    })
}

pub(crate) async fn serve_auth(bus: &Bus, books: &Books) -> Serving {
    let [b0, b1, b2, b3, b4, b5] = std::array::from_fn(|_| books.clone());
    let not_found = || Fault::new(Code::OpNotFound, "there is no such thing of yours");
    bus.serve("auth", "1.0.0", "Users")
        .method::<auth::Register, _, _>(move |call| {
            let books = b0.clone();
            async move {
                if call.request.only_first {
                    return Err(Fault::new(Code::OpConflict, "there is a user already"));
                }
                Ok(User {
                    name: call.request.name,
                    email: call.request.email,
                    ..books.person(books.user(Person::Eve))
                })
            }
        })
        .method::<auth::Login, _, _>(move |call| std::future::ready(login(&b1, call.request)))
        .method::<auth::Logout, _, _>(move |call| {
            b2.revoke(call.request.secret.reveal());
            std::future::ready(Ok(()))
        })
        .method::<auth::ExchangeSession, _, _>(move |call| {
            exchange(b3.clone(), call.request.secret.reveal().to_owned(), "sid")
        })
        .method::<auth::ExchangeToken, _, _>(move |call| {
            exchange(b4.clone(), call.request.secret.reveal().to_owned(), "nbp")
        })
        .method::<auth::Me, _, _>(move |call| {
            std::future::ready(call.user().map(|identity| b5.person(identity.user)))
        })
        .method::<auth::ChangePassword, _, _>(|_| std::future::ready(Ok(())))
        .method::<auth::ListTokens, _, _>(|_| std::future::ready(Ok(auth::ListTokens::sample_reply())))
        .method::<auth::CreateToken, _, _>(|call| {
            let mut created = auth::CreateToken::sample_reply();
            created.token.name = call.request.name;
            created.token.scopes = call.request.scopes;
            std::future::ready(Ok(created))
        })
        .method::<auth::RevokeToken, _, _>(move |_| std::future::ready(Err(not_found())))
        .method::<auth::ListSessions, _, _>(|_| std::future::ready(Ok(auth::ListSessions::sample_reply())))
        .method::<auth::RevokeSession, _, _>(move |_| std::future::ready(Err(not_found())))
        .method::<auth::Setup, _, _>(|_| std::future::ready(Ok(SetupStatus { has_users: true })))
        .start()
        .await
        .unwrap()
}

fn create(books: &Books, call: &Incoming<machine::Create>) -> Result<Operation, Fault> {
    let identity = call.require(Scope::MachinesWrite)?;
    let key = call.key.as_ref().expect("orders carry a key").as_str().to_owned();
    let known = books.lock().keys.get(&key).copied();
    if let Some(known) = known {
        return Ok(books.operation(known));
    }
    if call.request.hostname.as_str() == "taken" {
        return Err(Fault::new(
            Code::MachineHostnameTaken,
            "another machine is called taken",
        ));
    }
    let person = Person::ALL
        .into_iter()
        .find(|person| books.user(*person) == identity.user)
        .unwrap();
    let machine = books.own(person, call.request.hostname.as_str());
    let steps = [
        ("reserve_ip", "Reserve address"),
        ("clone_template", "Clone template"),
        ("start_vm", "Start VM"),
    ];
    let operation = books.order(OperationKind::Provision, &machine, &steps);
    let mut inner = books.lock();
    inner.keys.insert(key, operation.id);
    if call.request.key == KeyChoice::Generate {
        inner.claimable.push(operation.id);
    }
    Ok(operation)
}

fn claim(books: &Books, call: &Incoming<machine::ClaimKey>) -> Result<PrivateKey, Fault> {
    let operation = books.operation_of(call, call.request)?;
    let mut inner = books.lock();
    let Some(at) = inner.claimable.iter().position(|id| *id == operation.id) else {
        return Err(Fault::new(
            Code::MachineKeyClaimed,
            "the key was handed out already",
        ));
    };
    inner.claimable.remove(at);
    Ok(PrivateKey {
        key_name: "nimbus-web-1".into(),
        private_key: Secret::new("-----BEGIN OPENSSH PRIVATE KEY-----"),
    })
}

pub(crate) async fn serve_provisioner(bus: &Bus, books: &Books) -> Serving {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = std::array::from_fn(|_| books.clone());
    bus.serve("provisioner", "1.0.0", "Machines")
        .method::<machine::Create, _, _>(move |call| std::future::ready(create(&b0, &call)))
        .method::<machine::List, _, _>(move |call| {
            let user = call.user().map(|identity| identity.user);
            let mut machines: Vec<_> = b1.lock().machines.values().cloned().collect();
            machines.sort_by_key(|machine| std::cmp::Reverse(machine.id));
            let limit = usize::try_from(call.request.limit).unwrap();
            std::future::ready(user.map(|user| {
                let own = machines.into_iter().filter(|machine| machine.owner == user);
                own.filter(|machine| call.request.before.is_none_or(|before| machine.id < before))
                    .take(limit)
                    .collect()
            }))
        })
        .method::<machine::Get, _, _>(move |call| std::future::ready(b2.machine_of(&call, call.request)))
        .method::<machine::Delete, _, _>(move |call| {
            let machine = b3.machine_of(&call, call.request);
            std::future::ready(
                machine.map(|machine| {
                    b3.order(OperationKind::Delete, &machine, &[("destroy_vm", "Destroy VM")])
                }),
            )
        })
        .method::<machine::Power, _, _>(move |call| {
            let kind = match call.request.action {
                PowerAction::Start => OperationKind::Start,
                PowerAction::Shutdown => OperationKind::Shutdown,
                PowerAction::Stop => OperationKind::Stop,
                PowerAction::Reboot => OperationKind::Reboot,
            };
            let machine = b4.machine_of(&call, call.request.machine);
            std::future::ready(machine.map(|machine| b4.order(kind, &machine, &[])))
        })
        .method::<machine::GetOperation, _, _>(move |call| {
            std::future::ready(b5.operation_of(&call, call.request))
        })
        .method::<machine::ListOperations, _, _>(move |call| {
            let user = call.user().map(|identity| identity.user);
            let all: Vec<_> = b6.lock().operations.values().cloned().collect();
            std::future::ready(user.map(|user| {
                all.into_iter()
                    .filter(|operation| operation.owner == user)
                    .collect()
            }))
        })
        .method::<machine::ClaimKey, _, _>(move |call| std::future::ready(claim(&b7, &call)))
        .method::<machine::Reconcile, _, _>(|_| std::future::ready(Ok(machine::Reconcile::sample_reply())))
        .method::<node::ListNodes, _, _>(|_| std::future::ready(Ok(node::ListNodes::sample_reply())))
        .method::<node::GetCatalog, _, _>(|_| std::future::ready(Ok(node::GetCatalog::sample_reply())))
        .method::<node::Preview, _, _>(|_| std::future::ready(Ok(node::Preview::sample_reply())))
        .method::<node::ListGuests, _, _>(|_| std::future::ready(Ok(node::ListGuests::sample_reply())))
        .method::<node::GetStats, _, _>(|_| std::future::ready(Ok(node::GetStats::sample_reply())))
        .method::<node::Health, _, _>(|_| std::future::ready(Ok(node::Health::sample_reply())))
        .start()
        .await
        .unwrap()
}

pub(crate) async fn serve_ippool(bus: &Bus) -> Serving {
    bus.serve("ippool", "1.0.0", "Addresses")
        .method::<ippool::List, _, _>(|_| std::future::ready(Ok(ippool::List::sample_reply())))
        .method::<ippool::Status, _, _>(|_| std::future::ready(Ok(ippool::Status::sample_reply())))
        .method::<ippool::Reconcile, _, _>(|_| std::future::ready(Ok(ippool::Reconcile::sample_reply())))
        .start()
        .await
        .unwrap()
}
