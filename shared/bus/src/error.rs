//! What can go wrong on the bus itself. Failures of the called service are [`Fault`](nimbus_errors::Fault)s.

use camino::Utf8PathBuf;
use nimbus_errors::{Code, Coded};

/// A failure of the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// An address or name that the bus cannot have.
    #[error("{text:?} is not {wanted}")]
    Invalid {
        /// What was given.
        text: String,
        /// What was expected.
        wanted: &'static str,
    },
    /// No connection came about.
    #[error("could not connect to the bus as {name}")]
    Connect {
        /// The client's name.
        name: String,
        /// Why.
        #[source]
        source: Box<async_nats::ConnectError>,
    },
    /// The credential does not allow this subject.
    #[error("the bus credential of {name} does not allow {subject}")]
    Permission {
        /// The client's name.
        name: String,
        /// The refused subject.
        subject: String,
    },
    /// The message is larger than the server takes.
    #[error("a message for {subject} has {size} bytes, the bus takes {limit} with headers")]
    TooLarge {
        /// Where it should have gone.
        subject: String,
        /// Bytes of the body.
        size: usize,
        /// The server's limit.
        limit: usize,
    },
    /// No answer came in time; whether the message had an effect is not known.
    #[error("no answer on {subject} within {limit_ms} ms")]
    Timeout {
        /// What was asked.
        subject: String,
        /// How long was waited.
        limit_ms: u128,
    },
    /// Nobody listens.
    #[error("nothing listens on {subject}")]
    Unavailable {
        /// What was asked.
        subject: String,
    },
    /// The server's storage answered with an error.
    #[error("the bus answered {subject} with error {code}: {description}")]
    Storage {
        /// What was asked.
        subject: String,
        /// The server's own error number.
        code: u64,
        /// The server's text.
        description: String,
    },
    /// A message that cannot be encoded.
    #[error("could not encode a message for {subject}")]
    Encode {
        /// Where it should have gone.
        subject: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A message that this version does not understand.
    #[error("could not decode a message of {subject}")]
    Decode {
        /// Where it came from.
        subject: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Events that a follower still wanted were dropped; what follows in the stream begins at `first`.
    #[error("the events after {after} were dropped, the oldest kept one is {first}")]
    EventsDropped {
        /// The last event the follower has seen.
        after: u64,
        /// The first one it can have.
        first: u64,
    },
    /// A method for people in a service that cannot tell who they are.
    #[error("{subject} is for signed-in callers, but the bus has no verifier")]
    NoVerifier {
        /// The method's subject.
        subject: String,
    },
    /// A file of the bus' identity or of the embedded server.
    #[error("could not {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key or credential that does not parse.
    #[error("{what} in {place} is not valid")]
    Identity {
        /// Which part.
        what: &'static str,
        /// Where it stands.
        place: String,
    },
    /// This build carries no nats-server, and none was named.
    #[error(
        "this build has no nats-server in it: set NIMBUS_NATS_SERVER to the path of one, or NATS_URL to use an external server"
    )]
    NoServer,
    /// The embedded server did not start or could not be controlled.
    #[error("could not {what} the embedded nats-server: {reason}")]
    Server {
        /// What was tried.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The connection was closed for good.
    #[error("the connection to the bus is closed")]
    Closed,
}

impl Coded for BusError {
    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } | Self::Encode { .. } => Code::ServiceInternal,
            Self::Connect { .. } | Self::Unavailable { .. } | Self::Closed | Self::Server { .. } => {
                Code::ServiceUnavailable
            }
            Self::Permission { .. } | Self::NoVerifier { .. } | Self::Identity { .. } => Code::BusPermission,
            Self::TooLarge { .. } => Code::OpPayloadTooLarge,
            Self::Timeout { .. } => Code::ServiceTimeout,
            Self::Storage { .. } | Self::File { .. } => Code::ServiceStorageIo,
            Self::Decode { .. } => Code::BusSchemaMismatch,
            Self::EventsDropped { .. } => Code::OpPreconditionFailed,
            Self::NoServer => Code::ServiceNotConfigured,
        }
    }
}
