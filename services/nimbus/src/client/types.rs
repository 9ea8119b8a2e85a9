//! The parts of the API's answers that tables show. Unknown fields are let through, so that an older
//! command works with a newer server.

use secrecy::SecretString;
use serde::Deserialize;

/// A machine.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vm {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(rename = "CreatedAt", default)]
    pub(crate) created_at: String,
    #[serde(default)]
    pub(crate) vmid: Option<u32>,
    pub(crate) hostname: String,
    #[serde(default)]
    pub(crate) ip: Option<String>,
    #[serde(default)]
    pub(crate) node: Option<String>,
    #[serde(default)]
    pub(crate) tier: String,
    #[serde(default)]
    pub(crate) os_template: String,
    #[serde(default)]
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) key_name: Option<String>,
    #[serde(default)]
    pub(crate) error_msg: Option<String>,
}

impl Vm {
    /// The command that opens a shell on it; `None` while it has no address.
    pub(crate) fn ssh(&self) -> Option<String> {
        self.ip.as_ref().map(|ip| format!("ssh {}@{ip}", self.username))
    }
}

/// What a finished provision hands over.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Provisioned {
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) vmid: Option<u32>,
    #[serde(default)]
    pub(crate) hostname: String,
    #[serde(default)]
    pub(crate) ip: String,
    #[serde(default)]
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) tier: String,
    #[serde(default)]
    pub(crate) node: String,
    #[serde(default)]
    pub(crate) key_name: Option<String>,
    #[serde(default)]
    pub(crate) warning: Option<String>,
}

/// A piece of long work.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Operation {
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) steps: Vec<OperationStep>,
    #[serde(default)]
    pub(crate) result: Option<serde_json::Value>,
    #[serde(default)]
    pub(crate) fault: Option<super::api::FaultView>,
}

/// One step of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct OperationStep {
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) label: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) duration_ms: Option<u64>,
}

/// A personal access token, without its text.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    #[serde(default)]
    pub(crate) prefix: String,
    #[serde(default)]
    pub(crate) created_at: String,
    #[serde(default)]
    pub(crate) expires_at: Option<String>,
    #[serde(default)]
    pub(crate) last_used_at: Option<String>,
}

/// A token just made.
#[derive(Debug, Deserialize)]
pub(crate) struct NewToken {
    pub(crate) id: String,
    #[serde(deserialize_with = "secret")]
    pub(crate) token: SecretString,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// Who is signed in.
#[derive(Debug, Deserialize)]
pub(crate) struct Me {
    pub(crate) name: String,
    pub(crate) email: String,
}
