//! `auth`: users, sessions, tenants and tokens.

use nimbus_bus::{Action, Grant, Identity, KeyIdentity, Sandboxes, Scope};
use nimbus_model::{Hostname, KeyId, MachineId, SessionId, TenantId, Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};

use crate::{method, sample};

/// A person, as they may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Display name, trimmed.
    pub name: String,
    /// Mail address, trimmed and in lower case.
    pub email: String,
    /// Whether they administer this installation.
    pub is_admin: bool,
    /// Their personal tenant.
    pub tenant: TenantId,
    /// When they registered.
    pub created_at: Timestamp,
}

/// A text that must not be logged: a password or a bearer secret on its way to `auth`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text; for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// Registers a person; the first one becomes administrator, in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// Display name.
    pub name: String,
    /// Mail address.
    pub email: String,
    /// Password, at least 8 characters.
    pub password: Secret,
    /// Address of the client, for throttling.
    pub address: String,
    /// Refuse with `op.conflict` when there is a user already (first-run set-up).
    pub only_first: bool,
}

/// Signs a person in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRequest {
    /// Mail address.
    pub email: String,
    /// Password.
    pub password: Secret,
    /// Address of the client, for throttling and the list of sessions.
    pub address: String,
    /// The browser, for the list of sessions.
    pub user_agent: String,
}

/// A new session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginReply {
    /// Who signed in.
    pub user: User,
    /// What the cookie holds; only its hash is stored.
    pub secret: Secret,
    /// When the session ends.
    pub expires_at: Timestamp,
}

/// A credential in exchange for a short-lived access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeRequest {
    /// The session cookie's or the personal access token's secret.
    pub secret: Secret,
}

/// A short-lived access token and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchanged {
    /// The JWT that travels on the bus.
    pub access_token: Secret,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What it says.
    pub identity: Identity,
}

/// Ends the session of this secret; unknown secrets are fine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogoutRequest {
    /// The session cookie's secret.
    pub secret: Secret,
}

/// Changes the caller's password and ends their other sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePasswordRequest {
    /// The password in force.
    pub current: Secret,
    /// The one that shall be.
    pub new: Secret,
}

/// A personal access token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// The name its owner gave it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// The first characters of the secret, to recognise it.
    pub prefix: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// When it was last exchanged; at most a minute late.
    pub last_used_at: Option<Timestamp>,
}

/// Makes a personal access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTokenRequest {
    /// 1 to 64 characters, unique among the caller's tokens.
    pub name: String,
    /// What it may be used for; never more than the caller's own credential.
    pub scopes: Vec<Scope>,
    /// Days until it ends, 1 to 366; `None` for never.
    pub expires_in_days: Option<u32>,
}

/// A new token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The token.
    pub token: Token,
    /// Its secret, shown this once.
    pub secret: Secret,
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// The tenant it was made in.
    pub tenant: String,
    /// The name its maker gave it.
    pub name: String,
    /// What it may do.
    pub grants: Vec<Grant>,
    /// The first characters of the secret, to recognise it.
    pub prefix: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// When it was last exchanged; at most a minute late.
    pub last_used_at: Option<Timestamp>,
}

/// Makes an API key. Whether the caller reaches the tenant is for `workloads` to say, and for the
/// gateway to ask beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateKeyRequest {
    /// The tenant; every grant has to be for it.
    pub tenant: String,
    /// 1 to 64 characters, unique in the tenant.
    pub name: String,
    /// What it may do; at least one grant.
    pub grants: Vec<Grant>,
    /// When it ends; `None` for never.
    pub expires_at: Option<Timestamp>,
}

/// A new API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The key.
    pub key: ApiKey,
    /// Its secret, shown this once.
    pub secret: Secret,
}

/// Names a key of a tenant that the caller reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeKeyRequest {
    /// The tenant.
    pub tenant: String,
    /// The key.
    pub key: KeyId,
}

/// Makes the token of a machine; one it had before is good no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineTokenRequest {
    /// Whose machine it is.
    pub owner: UserId,
    /// The machine.
    pub machine: MachineId,
}

/// Who needs a credential for the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BusUser {
    /// The worker on a GPU box.
    GpuWorker(Hostname),
    /// The agent of a host that runs sandboxes.
    SandboxAgent(Hostname),
}

/// Asks for a token with which a host can join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRequest {
    /// The only host that may use it; `None` for any.
    pub host: Option<Hostname>,
}

/// A token with which a host can join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// `nimbus_jt_…`, good for one host.
    pub token: Secret,
    /// How long it is good.
    pub expires_in_s: u32,
}

/// A host that joins: its agent becomes a user of the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinHostRequest {
    /// What an administrator was given.
    pub token: Secret,
    /// Its name.
    pub host: Hostname,
}

/// A credential for the bus, for somebody on another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintedCredential {
    /// Where the bus is, such as `tls://nimbus.example.org:4222`.
    pub url: String,
    /// Certificate authority of the server, PEM; `None` for those that everybody trusts.
    pub ca_pem: Option<String>,
    /// Text of a NATS credentials file.
    pub credentials: Secret,
}

/// The admin token after a rotation; the token itself is only in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedAdmin {
    /// How many tokens there have been.
    pub generation: u64,
}

/// A signed-in browser of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Where it was opened from.
    pub address: String,
    /// With which browser.
    pub user_agent: String,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// One public key that verifies access tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyingKey {
    /// The `kid` of tokens signed with it.
    pub id: String,
    /// 32 bytes of Ed25519 (RFC 8032).
    pub key: Vec<u8>,
}

/// What the first-run page needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupStatus {
    /// Whether anybody has registered.
    pub has_users: bool,
}

fn user() -> User {
    User {
        id: sample::user(),
        name: "Ada".into(),
        email: "ada@example.org".into(),
        is_admin: true,
        tenant: sample::tenant(),
        created_at: sample::at(),
    }
}

fn identity() -> Identity {
    Identity {
        user: sample::user(),
        tenant: sample::tenant(),
        admin: false,
        scopes: vec![Scope::MachinesRead, Scope::Account],
        session: Some(sample::session()),
        token: None,
        key: None,
        machine: None,
    }
}

fn grant() -> Grant {
    Grant {
        tenant: "demo".into(),
        actions: vec![Action::SandboxesCreate, Action::SandboxesExec],
        services: Some(vec!["worker".into()]),
        sandboxes: Sandboxes::Own,
        channels: None,
    }
}

fn program() -> Identity {
    Identity {
        session: None,
        key: Some(KeyIdentity {
            id: sample::key(),
            grants: vec![grant()],
        }),
        ..identity()
    }
}

fn api_key() -> ApiKey {
    ApiKey {
        id: sample::key(),
        tenant: "demo".into(),
        name: "agent".into(),
        grants: vec![grant()],
        prefix: "nimbus_ak_1a2b".into(),
        created_at: sample::at(),
        expires_at: Some(sample::at()),
        last_used_at: None,
    }
}

fn token() -> Token {
    Token {
        id: sample::token(),
        name: "laptop".into(),
        scopes: vec![Scope::MachinesWrite],
        prefix: "nbp_1a2b".into(),
        created_at: sample::at(),
        expires_at: Some(sample::at()),
        last_used_at: None,
    }
}

method!(/// Registers a person.
    Register = auth.register, 10000 ms, Never, Service, RegisterRequest => User,
    samples RegisterRequest { name: "Ada".into(), email: "ada@example.org".into(), password: Secret::new("correct horse"), address: "127.0.0.1".into(), only_first: false } => user());
method!(/// Signs a person in.
    Login = auth.login, 10000 ms, Never, Service, LoginRequest => LoginReply,
    samples LoginRequest { email: "ada@example.org".into(), password: Secret::new("correct horse"), address: "127.0.0.1".into(), user_agent: "curl/8".into() }
        => LoginReply { user: user(), secret: Secret::new("00ff"), expires_at: sample::at() });
method!(/// Ends a session.
    Logout = auth.logout, 3000 ms, SameKey, Service, LogoutRequest => (), samples LogoutRequest { secret: Secret::new("00ff") } => ());
method!(/// Turns a session cookie into an access token.
    ExchangeSession = auth.exchange_session, 3000 ms, Read, Service, ExchangeRequest => Exchanged,
    samples ExchangeRequest { secret: Secret::new("00ff") } => Exchanged { access_token: Secret::new("a.b.c"), expires_at: sample::at(), identity: identity() });
method!(/// Turns a personal access token into an access token.
    ExchangeToken = auth.exchange_token, 3000 ms, Read, Service, ExchangeRequest => Exchanged,
    samples ExchangeRequest { secret: Secret::new("nbp_00ff") } => Exchanged { access_token: Secret::new("a.b.c"), expires_at: sample::at(), identity: identity() });
method!(/// The caller's own account.
    Me = auth.me, 3000 ms, Read, User, () => User, samples () => user());
method!(/// Changes the caller's password.
    ChangePassword = auth.change_password, 10000 ms, Never, User, ChangePasswordRequest => (),
    samples ChangePasswordRequest { current: Secret::new("correct horse"), new: Secret::new("battery staple") } => ());
method!(/// The caller's tokens, newest first.
    ListTokens = auth.list_tokens, 3000 ms, Read, User, () => Vec<Token>, samples () => vec![token()]);
method!(/// Makes a token for the caller.
    CreateToken = auth.create_token, 3000 ms, Never, User, CreateTokenRequest => CreatedToken,
    samples CreateTokenRequest { name: "laptop".into(), scopes: vec![Scope::MachinesRead], expires_in_days: Some(30) } => CreatedToken { token: token(), secret: Secret::new("nbp_00ff") });
method!(/// Revokes one of the caller's tokens.
    RevokeToken = auth.revoke_token, 3000 ms, SameKey, User, TokenId => (), samples sample::token() => ());
method!(/// Turns an API key into an access token.
    ExchangeKey = auth.exchange_key, 3000 ms, Read, Service, ExchangeRequest => Exchanged,
    samples ExchangeRequest { secret: Secret::new("nimbus_ak_00ff") } => Exchanged { access_token: Secret::new("a.b.c"), expires_at: sample::at(), identity: program() });
method!(/// Turns the admin token into an access token.
    ExchangeAdmin = auth.exchange_admin, 3000 ms, Read, Service, ExchangeRequest => Exchanged,
    samples ExchangeRequest { secret: Secret::new("nimbus_at_00ff") } => Exchanged { access_token: Secret::new("a.b.c"), expires_at: sample::at(), identity: Identity::operator() });
method!(/// Puts a new admin token in its file; the old one is good no more.
    RotateAdmin = auth.rotate_admin, 5000 ms, Never, Admin, () => RotatedAdmin, samples () => RotatedAdmin { generation: 2 });
method!(/// The API keys of a tenant that the caller reaches, newest first.
    ListKeys = auth.list_keys, 3000 ms, Read, User, String => Vec<ApiKey>, samples "demo".into() => vec![api_key()]);
method!(/// Makes an API key.
    CreateKey = auth.create_key, 3000 ms, Never, User, CreateKeyRequest => CreatedKey,
    samples CreateKeyRequest { tenant: "demo".into(), name: "agent".into(), grants: vec![grant()], expires_at: Some(sample::at()) } => CreatedKey { key: api_key(), secret: Secret::new("nimbus_ak_00ff") });
method!(/// Revokes an API key.
    RevokeKey = auth.revoke_key, 3000 ms, SameKey, User, RevokeKeyRequest => (), samples RevokeKeyRequest { tenant: "demo".into(), key: sample::key() } => ());
method!(/// Revokes every API key of a tenant that is being deleted.
    ForgetTenant = auth.forget_tenant, 3000 ms, SameKey, User, String => (), samples "demo".into() => ());
method!(/// The caller's sessions, newest first.
    ListSessions = auth.list_sessions, 3000 ms, Read, User, () => Vec<Session>,
    samples () => vec![Session { id: sample::session(), created_at: sample::at(), expires_at: sample::at(), address: "127.0.0.1".into(), user_agent: "curl/8".into(), current: true }]);
method!(/// Ends one of the caller's sessions.
    RevokeSession = auth.revoke_session, 3000 ms, SameKey, User, SessionId => (), samples sample::session() => ());
method!(/// The keys that verify access tokens, the newest first.
    VerifyingKeys = auth.verifying_keys, 3000 ms, Read, Service, () => Vec<VerifyingKey>, samples () => vec![VerifyingKey { id: "k1".into(), key: vec![7; 32] }]);
method!(/// What the first-run page needs to know.
    Setup = auth.setup, 3000 ms, Read, Service, () => SetupStatus, samples () => SetupStatus { has_users: true });
method!(/// Makes the token of a machine, `nbv_…`, which is exchanged like a personal access token.
    CreateMachineToken = auth.create_machine_token, 3000 ms, SameKey, Service, MachineTokenRequest => Secret,
    samples MachineTokenRequest { owner: sample::user(), machine: sample::machine() } => Secret::new("nbv_00ff"));
method!(/// Ends the token of a machine; without one, nothing happens.
    RevokeMachineToken = auth.revoke_machine_token, 3000 ms, SameKey, Service, MachineId => (), samples sample::machine() => ());
method!(/// Makes a credential for the bus; none when this installation's bus cannot be reached from other hosts.
    MintBus = auth.mint_bus, 3000 ms, Never, Service, BusUser => Option<MintedCredential>,
    samples BusUser::GpuWorker("gx10".parse().expect("a DNS label"))
        => Some(MintedCredential { url: "tls://nimbus.example.org:4222".into(), ca_pem: None, credentials: Secret::new("creds") }));
method!(/// Makes a token with which a host can join within a quarter of an hour.
    CreateJoinToken = auth.create_join_token, 3000 ms, Never, Admin, JoinTokenRequest => JoinToken,
    samples JoinTokenRequest { host: None } => JoinToken { token: Secret::new("nimbus_jt_00ff"), expires_in_s: 900 });
method!(/// Lets a host join, in exchange for such a token, which is good no more then.
    JoinHost = auth.join_host, 5000 ms, Never, Service, JoinHostRequest => MintedCredential,
    samples JoinHostRequest { token: Secret::new("nimbus_jt_00ff"), host: "host-a".parse().expect("a DNS label") }
        => MintedCredential { url: "tls://nimbus.example.org:4222".into(), ca_pem: None, credentials: Secret::new("creds") });
