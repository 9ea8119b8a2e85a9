//! `nimbus mcp`: sandboxes as tools of an AI agent, over the Model Context Protocol on stdin and stdout.

mod params;
mod work;

use std::sync::Arc;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, Implementation, ServerCapabilities, ServerConfig};
use rmcp::transport::stdio_pipes;
use rmcp::{ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use tokio::sync::OnceCell;

use super::workloads::{WorkloadArgs, Workloads};
use crate::problem::{Outcome, Problem};
use params::{
    CreateParams, FileParams, ListFilesParams, PreviewParams, RunCodeParams, RunCommandParams, StopParams,
    WriteParams,
};

/// What an agent is told before it sees the tools.
const INSTRUCTIONS: &str = "Sandboxes are isolated Linux machines for one task each: they start in well \
    under a second, have no network unless it was allowed, and disappear when they are stopped or unused for \
    a while. Make one with create_sandbox, use its id with the other tools, and stop it when you are done. \
    Files, installed packages and background processes stay between calls as long as the sandbox lives.";

/// Offer sandboxes to an AI agent as tools, over stdin and stdout (Model Context Protocol).
///
/// An agent's configuration needs one line: the command `nimbus` with the argument `mcp`.
#[derive(Debug, clap::Args)]
pub(crate) struct McpArgs {
    #[command(flatten)]
    workloads: WorkloadArgs,

    /// The image when a tool call names none.
    #[arg(
        long,
        env = "NIMBUS_MCP_IMAGE",
        default_value = "python:3.12-slim",
        value_name = "IMAGE"
    )]
    image: String,

    /// Stop a sandbox that no tool has used for this long.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = nimbus_config::seconds_or_text)]
    idle_timeout: std::time::Duration,
}

/// Serves until the agent closes stdin.
pub(crate) async fn run(args: McpArgs) -> Outcome {
    let failed = |error: &dyn std::error::Error| Problem::failed("could not serve the tools").because(error);
    let tools = Tools {
        state: Arc::new(State {
            args,
            workloads: OnceCell::new(),
        }),
    };
    let service = tools.serve(stdio_pipes()).await.map_err(|error| failed(&error))?;
    service.waiting().await.map_err(|error| failed(&error))?;
    Ok(())
}

struct State {
    args: McpArgs,
    /// Found with the first call: the server may be started after the agent.
    workloads: OnceCell<Workloads>,
}

/// The tools. Clones share the server's address and credential.
#[derive(Clone)]
struct Tools {
    state: Arc<State>,
}

impl Tools {
    async fn workloads(&self) -> Outcome<&Workloads> {
        self.state
            .workloads
            .get_or_try_init(|| self.state.args.workloads.open())
            .await
    }

    /// What a tool answers: a text, or a failure that the agent can read and act on.
    async fn answer(&self, work: impl AsyncFnOnce(&Workloads) -> Outcome<String>) -> CallToolResult {
        let outcome = async { work(self.workloads().await?).await };
        match outcome.await {
            Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
            Err(problem) => CallToolResult::error(vec![ContentBlock::text(problem.to_string())]),
        }
    }
}

#[tool_router]
impl Tools {
    #[tool(
        description = "Make an isolated Linux sandbox from a container image and wait until it runs. Returns its id.",
        annotations(title = "Create sandbox", read_only_hint = false, destructive_hint = false)
    )]
    async fn create_sandbox(&self, Parameters(params): Parameters<CreateParams>) -> CallToolResult {
        let args = &self.state.args;
        let image = params.image.clone().unwrap_or_else(|| args.image.clone());
        let idle = args.idle_timeout;
        self.answer(async |workloads| work::create(workloads, &params, &image, idle).await)
            .await
    }

    #[tool(
        description = "Run a shell command in a sandbox and return its exit code and output.",
        annotations(title = "Run command", read_only_hint = false, destructive_hint = true)
    )]
    async fn run_command(&self, Parameters(params): Parameters<RunCommandParams>) -> CallToolResult {
        self.answer(async |workloads| work::run_command(workloads, &params).await)
            .await
    }

    #[tool(
        description = "Run a piece of Python, JavaScript (Node) or shell code in a sandbox and return its exit code and output. The image has to have the interpreter.",
        annotations(title = "Run code", read_only_hint = false, destructive_hint = true)
    )]
    async fn run_code(&self, Parameters(params): Parameters<RunCodeParams>) -> CallToolResult {
        self.answer(async |workloads| work::run_code(workloads, &params).await)
            .await
    }

    #[tool(
        description = "Read a file of a sandbox. Text is returned as it is, anything else as base64.",
        annotations(title = "Read file", read_only_hint = true)
    )]
    async fn read_file(&self, Parameters(params): Parameters<FileParams>) -> CallToolResult {
        self.answer(async |workloads| work::read_file(workloads, &params).await)
            .await
    }

    #[tool(
        description = "Write a file in a sandbox, as a whole. Missing folders are made, an old file is replaced.",
        annotations(
            title = "Write file",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true
        )
    )]
    async fn write_file(&self, Parameters(params): Parameters<WriteParams>) -> CallToolResult {
        self.answer(async |workloads| work::write_file(workloads, &params).await)
            .await
    }

    #[tool(
        description = "List a folder of a sandbox.",
        annotations(title = "List files", read_only_hint = true)
    )]
    async fn list_files(&self, Parameters(params): Parameters<ListFilesParams>) -> CallToolResult {
        self.answer(async |workloads| work::list_files(workloads, &params).await)
            .await
    }

    #[tool(
        description = "Make a link to a port that a program in a sandbox listens on. Whoever has the link can open it for a while.",
        annotations(title = "Preview URL", read_only_hint = false, destructive_hint = false)
    )]
    async fn preview_url(&self, Parameters(params): Parameters<PreviewParams>) -> CallToolResult {
        self.answer(async |workloads| work::preview_url(workloads, &params).await)
            .await
    }

    #[tool(
        description = "Stop a sandbox and remove it with its files.",
        annotations(
            title = "Stop sandbox",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true
        )
    )]
    async fn stop_sandbox(&self, Parameters(params): Parameters<StopParams>) -> CallToolResult {
        self.answer(async |workloads| work::stop(workloads, &params).await)
            .await
    }

    #[tool(
        description = "List the sandboxes that run.",
        annotations(title = "List sandboxes", read_only_hint = true)
    )]
    async fn list_sandboxes(&self) -> CallToolResult {
        self.answer(async |workloads| work::list(workloads).await).await
    }
}

#[tool_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let name = Implementation::new("nimbus", env!("CARGO_PKG_VERSION")).with_title("Nimbus sandboxes");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(name)
            .with_instructions(INSTRUCTIONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_says_what_it_does_and_what_it_takes() {
        let tools = Tools::tool_router().list_all();
        let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        let mut expected = [
            "create_sandbox",
            "run_command",
            "run_code",
            "read_file",
            "write_file",
            "list_files",
            "preview_url",
            "stop_sandbox",
            "list_sandboxes",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        for tool in &tools {
            assert!(
                tool.description.as_ref().is_some_and(|text| text.len() > 20),
                "{}",
                tool.name
            );
            let schema = serde_json::to_value(&tool.input_schema).unwrap();
            let fields = schema["properties"].as_object().cloned().unwrap_or_default();
            for (name, field) in fields {
                assert!(
                    field["description"].is_string(),
                    "{}.{name} says nothing",
                    tool.name
                );
            }
        }
    }
}
