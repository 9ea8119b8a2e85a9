//! Control connections: questions and small orders.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{Entry, ExitStatus, GuestFault};

/// A question or order on a control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Nothing; answered by `Done`.
    Ping,
    /// Says who the sandbox is. Once; the same claim again changes nothing, another is `op.conflict`.
    /// Answered by `Claimed`.
    Claim(Claim),
    /// Every command that is known. `Commands`.
    Commands,
    /// A signal, as [`super::ToCommand::Signal`]. `Done`, also when it has ended already.
    Signal {
        /// The command's id.
        command: String,
        /// The number.
        signal: i32,
    },
    /// Drops an ended command and its output. `Done`, also when it is not known.
    Forget {
        /// The command's id.
        command: String,
    },
    /// One entry. `Entry`.
    Stat {
        /// Absolute.
        path: String,
        /// Whether a symbolic link is followed.
        follow: bool,
    },
    /// A directory by name. `Entries`.
    List {
        /// Absolute.
        path: String,
        /// Names after this one.
        after: Option<String>,
        /// At most so many, 1–1000.
        limit: u32,
    },
    /// Makes a directory. `Entry`; `op.already_exists`.
    Mkdir {
        /// Absolute.
        path: String,
        /// Permission bits, else 0755.
        mode: Option<u32>,
        /// Whether missing parents are made, and one that is there already is fine.
        parents: bool,
    },
    /// Renames. `Entry` of the new place.
    Move {
        /// Absolute.
        from: String,
        /// Absolute.
        to: String,
        /// Whether what is there may be replaced, else `op.already_exists`.
        replace: bool,
    },
    /// Removes a file, a link or a directory. `Done`.
    Remove {
        /// Absolute.
        path: String,
        /// Whether a directory goes with its content, else `op.conflict` if it has any.
        recursive: bool,
    },
    /// TCP ports that processes inside listen on. `Ports`.
    Ports,
    /// What the init itself uses. `Stats`.
    Stats,
    /// Kills everything and ends the sandbox. `Done`, then the connection ends.
    Shutdown,
    /// How many processes the kernel has ended for their memory. `MemoryKills`.
    MemoryKills,
}

/// The answer to a [`Request`].
pub type Answer = Result<Reply, GuestFault>;

/// What a [`Request`] gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It was done.
    Done,
    /// To `Claim`.
    Claimed(Claimed),
    /// To `Commands`, oldest first.
    Commands(Vec<CommandInfo>),
    /// To `Stat`, `Mkdir`, `Move`.
    Entry(Entry),
    /// To `List`.
    Entries {
        /// Sorted by name.
        entries: Vec<Entry>,
        /// Whether names follow after the last one.
        more: bool,
    },
    /// To `Ports`, sorted.
    Ports(Vec<ListeningPort>),
    /// To `Stats`.
    Stats(Stats),
    /// To `MemoryKills`; `None` where the kernel does not say.
    MemoryKills(Option<u64>),
}

/// Who a sandbox is: everything that a started container learns only when it is claimed.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Environment under every command.
    pub env: Vec<(String, String)>,
    /// Working directory of commands that name none.
    pub cwd: Option<String>,
    /// Lines of /etc/hosts.
    pub hosts: Vec<(IpAddr, String)>,
    /// Whether to listen for the egress proxy.
    pub proxy: bool,
    /// Addresses for raw TCP rules.
    pub forwards: Vec<Forward>,
    /// How much output of all commands is kept on disk, else 512 MiB. Beyond it the oldest is dropped.
    pub log_bytes: Option<u64>,
}

// Values of the environment are secret.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("env", &self.env.len())
            .field("cwd", &self.cwd)
            .field("hosts", &self.hosts)
            .field("proxy", &self.proxy)
            .field("forwards", &self.forwards)
            .field("log_bytes", &self.log_bytes)
            .finish()
    }
}

/// An address inside whose connections are handed out as [`super::EgressTarget::Forward`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Says which, to the agent; the name of the rule.
    pub name: String,
    /// A loopback address of its own.
    pub addr: Ipv4Addr,
    /// The port of the rule.
    pub port: u16,
}

/// What a claim did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Whether /etc/hosts has the lines. An init that is not the owner of that file (it runs as the
    /// image's user) cannot write it; then the agent has to do it from outside.
    pub hosts_written: bool,
}

/// A command that is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandInfo {
    /// Its id.
    pub id: String,
    /// Process id inside the sandbox.
    pub pid: i32,
    /// How it ended, if it did.
    pub exit: Option<ExitStatus>,
    /// First offset that is still kept.
    pub log_start: u64,
    /// End of its output so far.
    pub log_end: u64,
    /// Input accepted so far.
    pub input: u64,
    /// Clients attached.
    pub attached: u32,
    /// When it was started, milliseconds since 1970.
    pub started_ms: u64,
}

/// A TCP port on which a process inside listens. The init's own are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListeningPort {
    /// The port.
    pub port: u16,
    /// The address it is bound to.
    pub addr: IpAddr,
}

/// What the init itself uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Commands known.
    pub commands: u32,
    /// Commands that run.
    pub running: u32,
    /// Open connections, this one included.
    pub connections: u32,
    /// Output kept in memory, bytes.
    pub log_memory: u64,
    /// Output kept on disk, bytes.
    pub log_disk: u64,
}
