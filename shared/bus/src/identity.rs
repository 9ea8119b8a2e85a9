//! Who a request is made for.
//!
//! The `auth` service signs short-lived access tokens (Ed25519 JWTs, minutes); the bus carries them
//! in a header and every service verifies them by itself, with the public keys that `auth` hands out.

use nimbus_model::{KeyId, SessionId, TenantId, TokenId, UserId};
use serde::{Deserialize, Serialize};

/// A person, as an access token describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub user: UserId,
    /// On whose behalf; today always the user's personal tenant.
    pub tenant: TenantId,
    /// Whether they administer this installation.
    pub admin: bool,
    /// What the credential allows; a browser session has [`Scope::all`].
    pub scopes: Vec<Scope>,
    /// The browser session behind it, if it is one.
    pub session: Option<SessionId>,
    /// The personal access token behind it, if it is one.
    pub token: Option<TokenId>,
    /// The API key behind it, if it is one: then its grants decide, not who made it.
    pub key: Option<KeyIdentity>,
}

/// An API key and what it was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyIdentity {
    /// Which key.
    pub id: KeyId,
    /// What it may do; what no grant allows is refused.
    pub grants: Vec<Grant>,
}

/// What an API key may do in one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The tenant; in any other the key reaches nothing.
    pub tenant: String,
    /// What may be done.
    pub actions: Vec<Action>,
    /// The services it is for, by their exact names; `None` for every service.
    pub services: Option<Vec<String>>,
    /// The sandboxes it is for.
    pub sandboxes: Sandboxes,
    /// The channels of sessions it is for; `None` for every channel.
    pub channels: Option<Vec<String>>,
}

/// The sandboxes that a grant is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandboxes {
    /// Those that the same key made.
    #[default]
    Own,
    /// Every sandbox of the tenant, those behind services too.
    All,
}

/// What can be done in a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Every action, those of later versions too.
    #[serde(rename = "*")]
    Any,
    /// See that services exist.
    #[serde(rename = "services.list")]
    ServicesList,
    /// See a service and how it is run.
    #[serde(rename = "services.inspect")]
    ServicesInspect,
    /// Define a service.
    #[serde(rename = "services.create")]
    ServicesCreate,
    /// Change a service's definition.
    #[serde(rename = "services.update")]
    ServicesUpdate,
    /// Delete a service that nothing uses.
    #[serde(rename = "services.delete")]
    ServicesDelete,
    /// Delete a service in use.
    #[serde(rename = "services.forceDelete")]
    ServicesForceDelete,
    /// Start a service.
    #[serde(rename = "services.start")]
    ServicesStart,
    /// Stop a service.
    #[serde(rename = "services.stop")]
    ServicesStop,
    /// Restart a service.
    #[serde(rename = "services.restart")]
    ServicesRestart,
    /// Make a sandbox.
    #[serde(rename = "sandboxes.create")]
    SandboxesCreate,
    /// See that sandboxes exist.
    #[serde(rename = "sandboxes.list")]
    SandboxesList,
    /// See a sandbox and its logs.
    #[serde(rename = "sandboxes.get")]
    SandboxesGet,
    /// Stop a sandbox or delete it.
    #[serde(rename = "sandboxes.stop")]
    SandboxesStop,
    /// Run commands in a sandbox and use its files and ports.
    #[serde(rename = "sandboxes.exec")]
    SandboxesExec,
    /// Open a session.
    #[serde(rename = "sessions.open")]
    SessionsOpen,
    /// See that sessions exist.
    #[serde(rename = "sessions.list")]
    SessionsList,
    /// See a session.
    #[serde(rename = "sessions.get")]
    SessionsGet,
    /// Close a session.
    #[serde(rename = "sessions.close")]
    SessionsClose,
    /// Read data.
    #[serde(rename = "data.read")]
    DataRead,
    /// Write data.
    #[serde(rename = "data.write")]
    DataWrite,
    /// Call functions.
    #[serde(rename = "functions.call")]
    FunctionsCall,
}

impl Action {
    /// Every action, [`Action::Any`] first.
    pub const ALL: &'static [Self] = &[
        Self::Any,
        Self::ServicesList,
        Self::ServicesInspect,
        Self::ServicesCreate,
        Self::ServicesUpdate,
        Self::ServicesDelete,
        Self::ServicesForceDelete,
        Self::ServicesStart,
        Self::ServicesStop,
        Self::ServicesRestart,
        Self::SandboxesCreate,
        Self::SandboxesList,
        Self::SandboxesGet,
        Self::SandboxesStop,
        Self::SandboxesExec,
        Self::SessionsOpen,
        Self::SessionsList,
        Self::SessionsGet,
        Self::SessionsClose,
        Self::DataRead,
        Self::DataWrite,
        Self::FunctionsCall,
    ];

    /// Its name in grants.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "*",
            Self::ServicesList => "services.list",
            Self::ServicesInspect => "services.inspect",
            Self::ServicesCreate => "services.create",
            Self::ServicesUpdate => "services.update",
            Self::ServicesDelete => "services.delete",
            Self::ServicesForceDelete => "services.forceDelete",
            Self::ServicesStart => "services.start",
            Self::ServicesStop => "services.stop",
            Self::ServicesRestart => "services.restart",
            Self::SandboxesCreate => "sandboxes.create",
            Self::SandboxesList => "sandboxes.list",
            Self::SandboxesGet => "sandboxes.get",
            Self::SandboxesStop => "sandboxes.stop",
            Self::SandboxesExec => "sandboxes.exec",
            Self::SessionsOpen => "sessions.open",
            Self::SessionsList => "sessions.list",
            Self::SessionsGet => "sessions.get",
            Self::SessionsClose => "sessions.close",
            Self::DataRead => "data.read",
            Self::DataWrite => "data.write",
            Self::FunctionsCall => "functions.call",
        }
    }

    /// The action of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.as_str() == name)
    }

    /// The scope that a session or a personal access token needs for it.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Self::ServicesList
            | Self::ServicesInspect
            | Self::SandboxesList
            | Self::SandboxesGet
            | Self::SessionsList
            | Self::SessionsGet
            | Self::DataRead => Scope::WorkloadsRead,
            _ => Scope::WorkloadsWrite,
        }
    }
}

/// A tenant, as far as it matters for who may reach it.
#[derive(Clone, Copy, Debug)]
pub struct Tenancy<'a> {
    /// Its id.
    pub id: &'a str,
    /// The user who made it, where one did.
    pub owner: Option<UserId>,
}

/// What an action is done to.
#[derive(Clone, Copy, Debug, Default)]
pub struct On<'a> {
    service: Option<&'a str>,
    sandbox: Option<Maker>,
    channel: Option<&'a str>,
}

#[derive(Clone, Copy, Debug)]
struct Maker(Option<KeyId>);

impl<'a> On<'a> {
    /// The tenant as a whole: a list of what is in it, something new in it.
    #[must_use]
    pub const fn tenant() -> Self {
        Self {
            service: None,
            sandbox: None,
            channel: None,
        }
    }

    /// The service of this name, which need not exist yet.
    #[must_use]
    pub const fn service(name: &'a str) -> Self {
        Self {
            service: Some(name),
            sandbox: None,
            channel: None,
        }
    }

    /// A sandbox that this API key made; `None` when no key did.
    #[must_use]
    pub const fn sandbox(made_by: Option<KeyId>) -> Self {
        Self {
            service: None,
            sandbox: Some(Maker(made_by)),
            channel: None,
        }
    }

    /// The same through this channel of a session.
    #[must_use]
    pub const fn through(self, channel: &'a str) -> Self {
        Self {
            channel: Some(channel),
            ..self
        }
    }
}

impl Grant {
    fn allows(&self, key: KeyId, action: Action, tenant: &str, on: On<'_>) -> bool {
        let named = |list: &Option<Vec<String>>, name: Option<&str>| match (list, name) {
            (Some(list), Some(name)) => list.iter().any(|granted| granted == name),
            _ => true,
        };
        self.tenant == tenant
            && (self.actions.contains(&action) || self.actions.contains(&Action::Any))
            && named(&self.services, on.service)
            && named(&self.channels, on.channel)
            && on
                .sandbox
                .is_none_or(|Maker(made_by)| self.sandboxes == Sandboxes::All || made_by == Some(key))
    }
}

/// What a personal access token may be limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// See machines and operations.
    #[serde(rename = "machines:read")]
    MachinesRead,
    /// Create, change and delete machines.
    #[serde(rename = "machines:write")]
    MachinesWrite,
    /// Manage the account: password, tokens, sessions.
    #[serde(rename = "account")]
    Account,
    /// Everything an administrator may do, if the user is one.
    #[serde(rename = "admin")]
    Admin,
    /// See services, sandboxes and sessions.
    #[serde(rename = "workloads:read")]
    WorkloadsRead,
    /// Create, use, change and delete services, sandboxes and sessions.
    #[serde(rename = "workloads:write")]
    WorkloadsWrite,
}

impl Scope {
    /// Every scope.
    #[must_use]
    pub const fn all() -> &'static [Self] {
        &[
            Self::MachinesRead,
            Self::MachinesWrite,
            Self::Account,
            Self::Admin,
            Self::WorkloadsRead,
            Self::WorkloadsWrite,
        ]
    }

    /// Its name in requests and tokens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MachinesRead => "machines:read",
            Self::MachinesWrite => "machines:write",
            Self::Account => "account",
            Self::Admin => "admin",
            Self::WorkloadsRead => "workloads:read",
            Self::WorkloadsWrite => "workloads:write",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::all().iter().copied().find(|scope| scope.as_str() == name)
    }
}

/// Whom the installation's admin token stands for: nobody who registered.
const OPERATOR: uuid::Uuid = uuid::Uuid::from_u128(1);

impl Identity {
    /// The holder of the installation's admin token: every tenant, every action, no account.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            user: UserId::from_uuid(OPERATOR),
            tenant: TenantId::from_uuid(OPERATOR),
            admin: true,
            scopes: Scope::all()
                .iter()
                .copied()
                .filter(|scope| *scope != Scope::Account)
                .collect(),
            session: None,
            token: None,
            key: None,
        }
    }

    /// Whether it is the holder of the admin token.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.admin && self.key.is_none() && self.user.uuid() == OPERATOR
    }

    /// The id of the user's own tenant.
    #[must_use]
    pub fn personal_tenant(&self) -> String {
        self.tenant.to_string()
    }

    /// Whether the credential allows `scope`. Writing includes reading.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        let scopes = &self.scopes;
        match scope {
            Scope::MachinesRead => {
                scopes.contains(&Scope::MachinesRead) || scopes.contains(&Scope::MachinesWrite)
            }
            Scope::WorkloadsRead => {
                scopes.contains(&Scope::WorkloadsRead) || scopes.contains(&Scope::WorkloadsWrite)
            }
            Scope::Admin => self.admin && scopes.contains(&Scope::Admin),
            other => scopes.contains(&other),
        }
    }

    /// Whether the tenant is there at all for this caller; if not, it is answered as one that does not
    /// exist. Administrators reach every tenant, API keys those of their grants, everybody else their
    /// personal tenant and those they made.
    #[must_use]
    pub fn reaches(&self, tenant: Tenancy<'_>) -> bool {
        if let Some(key) = &self.key {
            return key.grants.iter().any(|grant| grant.tenant == tenant.id);
        }
        self.may(Scope::Admin) || tenant.owner == Some(self.user) || tenant.id == self.personal_tenant()
    }

    /// Whether the caller may do `action` to `on` in `tenant`.
    #[must_use]
    pub fn allows(&self, action: Action, tenant: Tenancy<'_>, on: On<'_>) -> bool {
        match &self.key {
            Some(key) => key
                .grants
                .iter()
                .any(|grant| grant.allows(key.id, action, tenant.id, on)),
            None => self.may(action.scope()) && self.reaches(tenant),
        }
    }

    /// Whether the caller may delete the tenant, or make API keys for it. No API key may.
    #[must_use]
    pub fn owns(&self, tenant: Tenancy<'_>) -> bool {
        self.key.is_none() && self.may(Scope::WorkloadsWrite) && self.reaches(tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(admin: bool, scopes: &[Scope]) -> Identity {
        Identity {
            user: UserId::fresh(),
            tenant: TenantId::fresh(),
            admin,
            scopes: scopes.to_vec(),
            session: None,
            token: None,
            key: None,
        }
    }

    fn key(id: KeyId, grants: Vec<Grant>) -> Identity {
        Identity {
            key: Some(KeyIdentity { id, grants }),
            ..person(true, Scope::all())
        }
    }

    fn grant(tenant: &str, actions: &[Action]) -> Grant {
        Grant {
            tenant: tenant.into(),
            actions: actions.to_vec(),
            services: None,
            sandboxes: Sandboxes::Own,
            channels: None,
        }
    }

    const fn nobodys(id: &str) -> Tenancy<'_> {
        Tenancy { id, owner: None }
    }

    #[test]
    fn every_action_has_one_name() {
        for action in Action::ALL {
            assert_eq!(Action::find(action.as_str()), Some(*action));
            assert_eq!(
                serde_json::to_string(action).unwrap(),
                format!("\"{}\"", action.as_str())
            );
        }
        for scope in Scope::all() {
            assert_eq!(Scope::find(scope.as_str()), Some(*scope));
        }
        assert_eq!(Action::find("services.explode"), None);
    }

    #[test]
    fn people_reach_their_own_tenants_and_administrators_all() {
        let write = person(false, &[Scope::WorkloadsWrite]);
        let personal = write.personal_tenant();
        let read = Identity {
            scopes: vec![Scope::WorkloadsRead],
            ..write.clone()
        };
        let machines = Identity {
            scopes: vec![Scope::MachinesWrite, Scope::Account],
            ..write.clone()
        };
        let own = Tenancy {
            id: "demo",
            owner: Some(write.user),
        };
        let stranger = Tenancy {
            id: "demo",
            owner: Some(UserId::fresh()),
        };
        // A token of an administrator that was not made for administration.
        let limited = person(true, &[Scope::WorkloadsWrite]);
        let (admin, operator) = (person(true, Scope::all()), Identity::operator());
        for (who, tenant, reaches, reads, writes) in [
            (&write, nobodys(&personal), true, true, true),
            (&write, own, true, true, true),
            (&write, stranger, false, false, false),
            (&write, nobodys("demo"), false, false, false),
            (&read, own, true, true, false),
            (&machines, own, true, false, false),
            (&limited, stranger, false, false, false),
            (&admin, stranger, true, true, true),
            (&operator, stranger, true, true, true),
            (&operator, nobodys("demo"), true, true, true),
        ] {
            let told = format!("{who:?} in {tenant:?}");
            assert_eq!(who.reaches(tenant), reaches, "{told}");
            assert_eq!(
                who.allows(Action::SandboxesGet, tenant, On::sandbox(Some(KeyId::fresh()))),
                reads,
                "{told}"
            );
            assert_eq!(
                who.allows(Action::ServicesForceDelete, tenant, On::service("worker")),
                writes,
                "{told}"
            );
            assert_eq!(who.owns(tenant), writes, "{told}");
        }
        assert!(operator.is_operator() && !admin.is_operator());
        assert!(!operator.may(Scope::Account), "it has no account");
    }

    #[test]
    fn an_api_key_may_what_one_of_its_grants_says_and_nothing_else() {
        use Action::{Any, SandboxesCreate, SandboxesExec, ServicesInspect, ServicesList, SessionsOpen};
        let (me, other) = (KeyId::fresh(), KeyId::fresh());
        let worker = |actions: &[Action]| Grant {
            services: Some(vec!["worker".into()]),
            ..grant("a", actions)
        };
        let all = |actions: &[Action]| Grant {
            sandboxes: Sandboxes::All,
            ..grant("a", actions)
        };
        let shell = |actions: &[Action]| Grant {
            channels: Some(vec!["stdio".into()]),
            ..grant("a", actions)
        };
        let mine = On::sandbox(Some(me));
        for (grants, action, tenant, on, allowed) in [
            (vec![], ServicesList, "a", On::tenant(), false),
            (
                vec![grant("a", &[ServicesList])],
                ServicesList,
                "a",
                On::tenant(),
                true,
            ),
            (
                vec![grant("a", &[ServicesList])],
                ServicesList,
                "b",
                On::tenant(),
                false,
            ),
            (
                vec![grant("a", &[ServicesList])],
                ServicesInspect,
                "a",
                On::service("worker"),
                false,
            ),
            (
                vec![grant("a", &[Any])],
                Action::ServicesForceDelete,
                "a",
                On::service("worker"),
                true,
            ),
            (
                vec![grant("a", &[Action::ServicesDelete])],
                Action::ServicesForceDelete,
                "a",
                On::service("worker"),
                false,
            ),
            (
                vec![worker(&[Any])],
                ServicesInspect,
                "a",
                On::service("worker"),
                true,
            ),
            (
                vec![worker(&[Any])],
                ServicesInspect,
                "a",
                On::service("worker2"),
                false,
            ),
            (
                vec![worker(&[Any]), grant("a", &[ServicesInspect])],
                ServicesInspect,
                "a",
                On::service("worker2"),
                true,
            ),
            (
                vec![grant("a", &[SandboxesCreate])],
                SandboxesCreate,
                "a",
                On::tenant(),
                true,
            ),
            (vec![grant("a", &[SandboxesExec])], SandboxesExec, "a", mine, true),
            (
                vec![grant("a", &[SandboxesExec])],
                SandboxesExec,
                "a",
                On::sandbox(Some(other)),
                false,
            ),
            (
                vec![grant("a", &[SandboxesExec])],
                SandboxesExec,
                "a",
                On::sandbox(None),
                false,
            ),
            (
                vec![all(&[SandboxesExec])],
                SandboxesExec,
                "a",
                On::sandbox(None),
                true,
            ),
            (
                vec![shell(&[SessionsOpen])],
                SessionsOpen,
                "a",
                mine.through("stdio"),
                true,
            ),
            (
                vec![shell(&[SessionsOpen])],
                SessionsOpen,
                "a",
                mine.through("files"),
                false,
            ),
            (
                vec![shell(&[SessionsOpen])],
                SessionsOpen,
                "a",
                On::sandbox(Some(other)).through("stdio"),
                false,
            ),
            (
                vec![worker(&[SessionsOpen])],
                SessionsOpen,
                "a",
                On::service("worker").through("files"),
                true,
            ),
            // Two grants do not add up to what neither allows.
            (
                vec![worker(&[SessionsOpen]), grant("a", &[ServicesInspect])],
                SessionsOpen,
                "a",
                On::service("db").through("stdio"),
                false,
            ),
        ] {
            let identity = key(me, grants);
            assert_eq!(
                identity.allows(action, nobodys(tenant), on),
                allowed,
                "{identity:?} {action:?} {tenant} {on:?}"
            );
            assert!(!identity.owns(nobodys(tenant)), "no key makes keys");
        }
        let identity = key(me, vec![grant("a", &[ServicesList])]);
        assert!(identity.reaches(nobodys("a")) && !identity.reaches(nobodys("b")));
        let personal = identity.personal_tenant();
        assert!(
            !identity.reaches(nobodys(&personal)),
            "its maker's tenant is not the key's"
        );
    }
}
