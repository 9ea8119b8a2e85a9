//! Who a request is made for.
//!
//! The `auth` service signs short-lived access tokens (Ed25519 JWTs, minutes); the bus carries them
//! in a header and every service verifies them by itself, with the public keys that `auth` hands out.

mod grant;

use nimbus_model::{MachineId, SessionId, TenantId, TokenId, UserId};
use serde::{Deserialize, Serialize};

pub use grant::{Action, Grant, KeyIdentity, On, Sandboxes, Tenancy};

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
    /// The machine behind it, if it is the token inside one: it speaks for its owner, and only about GPUs.
    pub machine: Option<MachineId>,
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
    /// Submit GPU jobs, see and cancel one's own, and ask the inference endpoint.
    #[serde(rename = "gpu")]
    Gpu,
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
            Self::Gpu,
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
            Self::Gpu => "gpu",
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
            machine: None,
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
    use nimbus_model::KeyId;

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
            machine: None,
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
