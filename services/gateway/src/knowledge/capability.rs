//! What Nimbus can do, honestly: only what exists, and what it lacks.

#[cfg(test)]
use std::fmt::Write;

use nimbus_proto::workloads::Offered;
use serde::Serialize;
use utoipa::ToSchema;

/// How far a capability goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It is there.
    Available,
    /// It is there, and the notes say what to know before relying on it.
    AvailableWithCaveats,
    /// It is not there.
    NotYet,
}

#[cfg(test)]
impl Status {
    fn words(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::AvailableWithCaveats => "Available with caveats",
            Self::NotYet => "Not yet",
        }
    }
}

/// What a capability needs of the hosts of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// A host with a container engine.
    Containers,
    /// A host with microVMs.
    MicroVms,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capability {
    /// Stable name.
    pub(crate) id: &'static str,
    /// The noun it belongs to.
    pub(crate) area: &'static str,
    /// What it is.
    pub(crate) title: &'static str,
    /// How far it goes.
    pub(crate) status: Status,
    /// What to know.
    pub(crate) notes: &'static str,
    /// The page that tells more.
    pub(crate) docs: &'static str,
    needs: Needs,
}

/// What the hosts of this installation are like.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Probes {
    /// Hosts that answer.
    pub(crate) hosts: u32,
    /// Isolation that works on at least one of them.
    pub(crate) backends: Vec<String>,
    /// Their container engines.
    pub(crate) engines: Vec<String>,
    /// What is missing on them and what to do.
    pub(crate) missing: Vec<String>,
}

impl From<Offered> for Probes {
    fn from(offered: Offered) -> Self {
        Self {
            hosts: offered.hosts,
            backends: offered.backends,
            engines: offered.engines,
            missing: offered.missing,
        }
    }
}

impl Capability {
    /// Whether it can be used on this installation now.
    pub(crate) fn usable(&self, probes: &Probes) -> bool {
        let has = |backend: &str| probes.backends.iter().any(|name| name == backend);
        self.status != Status::NotYet
            && match self.needs {
                Needs::Nothing => true,
                Needs::Containers => has("container"),
                Needs::MicroVms => has("krun"),
            }
    }
}

macro_rules! capabilities {
    ($($id:literal, $area:literal, $title:literal, $status:ident, $needs:ident, $docs:literal, $notes:literal;)*) => {
        /// Every capability, by area.
        pub(crate) const CAPABILITIES: &[Capability] = &[$(Capability {
            id: $id, area: $area, title: $title, status: Status::$status, needs: Needs::$needs, docs: $docs, notes: $notes,
        }),*];
    };
}

capabilities![
    "tenants", "tenants", "Tenants with quotas and policies", Available, Nothing, "/docs/sandboxes.md", "Every user has a personal one; quotas are enforced in the transaction that creates.";
    "tenants.apiKeys", "tenants", "API keys with grants", Available, Nothing, "/docs/sandboxes.md", "Exact actions, service names and channels; revoked at once.";
    "sandbox.container", "sandboxes", "Container sandboxes", Available, Containers, "/docs/isolation.md", "Docker or Podman on the host; all capabilities dropped, no network device but loopback.";
    "sandbox.warm", "sandboxes", "Warm start", Available, Containers, "/docs/sandboxes.md", "A waiting container is claimed and only then told who it is; `status.start` says warm or cold.";
    "sandbox.krun", "sandboxes", "MicroVM sandboxes", NotYet, MicroVms, "/docs/isolation.md", "The backend is accepted in specifications and refused at creation, never replaced by a container.";
    "sandbox.egress", "sandboxes", "Egress by allow list", Available, Containers, "/docs/isolation.md", "Denied by default; HTTP, HTTPS by CONNECT and raw TCP by rule; denials are events. Paths inside of HTTPS are not seen.";
    "sandbox.exec", "sandboxes", "Commands with ids", Available, Containers, "/docs/sandboxes.md", "At most once; output is numbered and can be picked up at any offset that is still kept.";
    "sandbox.files", "sandboxes", "Files", Available, Containers, "/docs/sessions.md", "Ranges, preconditions, archives; paths cannot leave the sandbox.";
    "sandbox.preview", "sandboxes", "Preview links", Available, Containers, "/docs/sandboxes.md", "HTTP and WebSocket through the gateway, by credential or by signed link.";
    "sandbox.volumes", "sandboxes", "Named volumes", AvailableWithCaveats, Containers, "/docs/sandboxes.md", "A volume lies on one host and has no quota of its own.";
    "sandbox.disk", "sandboxes", "Disk quota", AvailableWithCaveats, Containers, "/docs/isolation.md", "Needs an engine whose storage driver has quotas; else the limit is only recorded.";
    "services.sandbox", "services", "Services behind a stable name", Available, Containers, "/docs/services.md", "Supervised with back-off, health checks and replacement on another host.";
    "services.builtIn", "services", "Built-in services", AvailableWithCaveats, Nothing, "/docs/services.md", "Declared only; nothing runs behind them.";
    "services.external", "services", "External services", Available, Nothing, "/docs/services.md", "Declared, and their health is checked.";
    "session.stdio", "sessions", "Terminal and pipes", Available, Containers, "/docs/sessions.md", "WebSocket and newline-delimited JSON.";
    "session.files", "sessions", "Files by lease", Available, Containers, "/docs/sessions.md", "The same as files of a sandbox, until the lease ends.";
    "session.cdp", "sessions", "Browser protocol", AvailableWithCaveats, Containers, "/docs/sessions.md", "On profile desktop, with an image that brings Chromium.";
    "session.page", "sessions", "Browser in a few verbs", AvailableWithCaveats, Containers, "/docs/sessions.md", "On profile desktop, with an image that brings Chromium.";
    "profile.desktop", "sandboxes", "Desktop sandboxes", AvailableWithCaveats, Containers, "/docs/sessions.md", "The image must bring Chromium and carry the label io.nimbus.desktop=provided.";
    "machine.provision", "machines", "Virtual machines on Proxmox VE", Available, Nothing, "/docs/machines.md", "Needs a cluster; `nimbus dev` simulates one.";
    "gpu.jobs", "gpu", "GPU jobs", Available, Nothing, "/docs/gpu.md", "Needs a paired box. One job at a time on each, in order of submission, at most once; logs, artifacts, time and memory limits.";
    "gpu.inference", "gpu", "Models by the OpenAI API", Available, Nothing, "/docs/gpu.md", "Needs a paired box or another endpoint. Chat, completions, embeddings and responses, streams byte for byte; counted per user. One endpoint at a time.";
    "mcp", "agents", "MCP server", Available, Nothing, "/docs/mcp.md", "`nimbus mcp`, over standard input and output.";
    "grpc", "agents", "gRPC", AvailableWithCaveats, Nothing, "/docs/sandboxes.md", "Sandboxes, services and sessions with attach, health and reflection; files and health checks in a specification are over HTTP only.";
    "documents", "data", "Documents", NotYet, Nothing, "/docs/capabilities.md", "";
    "queries", "data", "Queries", NotYet, Nothing, "/docs/capabilities.md", "";
    "subscriptions", "data", "Subscriptions", NotYet, Nothing, "/docs/capabilities.md", "";
    "scheduling", "data", "Scheduling", NotYet, Nothing, "/docs/capabilities.md", "";
    "functions", "data", "Functions", NotYet, Nothing, "/docs/capabilities.md", "";
    "node.systemd", "nodes", "Units of systemd", Available, Nothing, "/docs/node.md", "`nimbus node install --systemd`: for the system or an account, with socket activation, drift, upgrade with roll-back.";
    "node.quadlet", "nodes", "Quadlet units", Available, Nothing, "/docs/node.md", "`nimbus node install --container`. Needs Podman 4.4 or newer on the host.";
    "compose.export", "nodes", "Compose export", Available, Nothing, "/docs/compose.md", "Containers, a pod or kube YAML; what has no counterpart is a warning with file, line and key.";
    "machine", "nodes", "Machine VM on other systems than Linux", NotYet, Nothing, "/docs/capabilities.md", "Sandboxes run natively on Linux hosts.";
];

/// The table as a page.
#[cfg(test)]
pub(super) fn page() -> String {
    let mut page = String::from(
        "# Capabilities\n\nWhat Nimbus can do today and what it cannot, one row each. Made from the table that `GET /api/capabilities` serves; \
         that answer also says what is usable on the installation that is asked.\n\n\
         | Capability | Status | Notes |\n|---|---|---|\n",
    );
    for capability in CAPABILITIES {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| {} (`{}`) | {} | {} |",
            capability.title,
            capability.id,
            capability.status.words(),
            capability.notes
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_lead_to_pages_that_are_served() {
        let mut ids: Vec<&str> = CAPABILITIES.iter().map(|capability| capability.id).collect();
        ids.sort_unstable();
        let before = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), before);
        for capability in CAPABILITIES {
            let page = capability
                .docs
                .strip_prefix("/docs/")
                .and_then(|rest| rest.strip_suffix(".md"))
                .expect("a page of /docs");
            assert!(super::super::Page::find(page).is_some(), "{}", capability.docs);
        }
    }

    #[test]
    fn without_hosts_nothing_that_needs_one_is_usable() {
        let none = Probes::default();
        let one = Probes {
            hosts: 1,
            backends: vec!["container".into()],
            ..Probes::default()
        };
        let usable = |id: &str, probes: &Probes| {
            let found = CAPABILITIES.iter().find(|capability| capability.id == id);
            found.expect("listed").usable(probes)
        };
        assert!(!usable("sandbox.container", &none) && usable("sandbox.container", &one));
        assert!(!usable("sandbox.krun", &one));
        assert!(usable("tenants", &none) && !usable("functions", &one));
    }
}
