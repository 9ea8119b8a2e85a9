//! Words of the API for the choices of the contracts. Written out, so that adding a choice there is a
//! decision here.

use nimbus_proto::workloads as w;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident for $of:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub(crate) enum $name {
            $(#[serde(rename = $text)] $variant,)*
        }
        impl From<w::$of> for $name {
            fn from(word: w::$of) -> Self {
                match word { $(w::$of::$variant => Self::$variant,)* }
            }
        }
        impl From<$name> for w::$of {
            fn from(word: $name) -> Self {
                match word { $($name::$variant => Self::$variant,)* }
            }
        }
    };
}

words!(/// What isolates a sandbox from its host.
    IsolationWord for Isolation { Container = "container", Krun = "krun" });
words!(/// What a sandbox is for.
    ProfileWord for Profile { Worker = "worker", Desktop = "desktop" });
words!(/// What is spoken on a port.
    ProtocolWord for Protocol { Tcp = "tcp", Http = "http", Https = "https" });
words!(/// Where a sandbox or service is in its life.
LifecycleWord for Lifecycle {
    Starting = "starting", Ready = "ready", NotReady = "not_ready", Stopping = "stopping",
    Stopped = "stopped", Failed = "failed", Declared = "declared",
});
words!(/// Whether it can be used now.
ReadinessWord for Readiness {
    Ready = "ready", NotReady = "not_ready", Stopped = "stopped", Failed = "failed", Unknown = "unknown",
});
words!(/// What its health check says.
    HealthWord for Health { Healthy = "healthy", Unhealthy = "unhealthy", Unknown = "unknown" });
words!(/// Whether a sandbox came from the warm pool.
    StartWord for Start { Warm = "warm", Cold = "cold" });
words!(/// What a condition speaks of.
ConditionWord for ConditionKind {
    Admitted = "Admitted", Ready = "Ready", Healthy = "Healthy", Progressing = "Progressing", Open = "Open",
});
words!(/// True, false or not known.
    TruthWord for Truth { True = "True", False = "False", Unknown = "Unknown" });
words!(/// What is built in.
ProviderWord for Provider {
    LoadBalancer = "loadBalancer", ServiceDiscovery = "serviceDiscovery", Browser = "browser",
    ModelGateway = "modelGateway",
});
words!(/// What a session can carry.
    ChannelWord for Channel { Stdio = "stdio", Files = "files", Cdp = "cdp", Page = "page" });
words!(/// Where a session is in its life.
    SessionWord for SessionState { Open = "open", Closed = "closed", Expired = "expired" });
