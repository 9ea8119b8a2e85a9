//! What the tools take. The comments are what an agent reads.

use std::collections::BTreeMap;

use rmcp::schemars::{self, JsonSchema};
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateParams {
    /// Container image, such as `python:3.12-slim` or `node:22-alpine`.
    pub(super) image: Option<String>,
    /// Short name, shown in lists.
    pub(super) name: Option<String>,
    /// Environment variables.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// What the sandbox may reach over the network, such as `https://pypi.org`; nothing by default.
    #[serde(default)]
    pub(super) allow: Vec<String>,
    /// Ports that programs in the sandbox will listen on.
    #[serde(default)]
    pub(super) ports: Vec<u16>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunCommandParams {
    /// Id of the sandbox.
    pub(super) sandbox_id: String,
    /// Command line for `/bin/sh`. End it with ` &` to leave a program running.
    pub(super) command: String,
    /// Working directory.
    pub(super) cwd: Option<String>,
    /// Environment variables.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// What the command reads on stdin.
    pub(super) stdin: Option<String>,
    /// Seconds after which the command is ended; 120 by default.
    pub(super) timeout_seconds: Option<u32>,
}

/// What code is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    Python,
    Node,
    Sh,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunCodeParams {
    /// Id of the sandbox.
    pub(super) sandbox_id: String,
    /// The code.
    pub(super) code: String,
    /// What it is written in; by the sandbox' image when it is left out.
    pub(super) language: Option<Language>,
    /// Working directory.
    pub(super) cwd: Option<String>,
    /// Seconds after which the code is ended; 120 by default.
    pub(super) timeout_seconds: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileParams {
    /// Id of the sandbox.
    pub(super) sandbox_id: String,
    /// Absolute path of the file.
    pub(super) path: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WriteParams {
    /// Id of the sandbox.
    pub(super) sandbox_id: String,
    /// Absolute path of the file.
    pub(super) path: String,
    /// The whole content.
    pub(super) content: String,
    /// Whether `content` is base64.
    #[serde(default)]
    pub(super) base64: bool,
    /// Whether the file can be run as a program.
    #[serde(default)]
    pub(super) executable: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListFilesParams {
    /// Id of the sandbox.
    pub(super) sandbox_id: String,
    /// Absolute path of the folder; `/` by default.
    pub(super) path: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewParams {
    /// Id of the sandbox.
    pub(super) sandbox_id: String,
    /// Port that a program in the sandbox listens on.
    pub(super) port: u16,
    /// Minutes for which the link works; 15 by default.
    pub(super) minutes: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StopParams {
    /// Id of the sandbox.
    pub(super) sandbox_id: String,
    /// Keep the record and the log, and only stop it.
    #[serde(default)]
    pub(super) keep: bool,
}
