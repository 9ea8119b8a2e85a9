//! What API keys are made for: actions in tenants.

use nimbus_model::{KeyId, UserId};
use serde::{Deserialize, Serialize};

use super::Scope;

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
    pub(super) fn allows(&self, key: KeyId, action: Action, tenant: &str, on: On<'_>) -> bool {
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
