//! `nimbus vm`: machines.

mod create;

use reqwest::Method;
use serde_json::Value;

use super::ClientArgs;
use super::api::{Api, LONG, read};
use super::types::Vm;
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

pub(crate) use create::{CreateArgs, Created, create};

/// Create, look at, and run machines.
#[derive(Debug, clap::Args)]
pub(crate) struct VmArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    command: VmCommand,
}

#[derive(Debug, clap::Subcommand)]
enum VmCommand {
    /// Create a machine and wait until it runs.
    Create(CreateArgs),
    /// List your machines.
    List,
    /// Show one machine.
    Get(Which),
    /// Print the command that opens a shell on a machine.
    Ssh(Which),
    /// Start a machine.
    Start(Which),
    /// Ask the machine's system to shut down.
    Shutdown(Which),
    /// Turn a machine off, without asking its system.
    Stop(Which),
    /// Ask the machine's system to restart.
    Reboot(Which),
    /// Delete a machine with its disk, and give its address back.
    Delete {
        #[command(flatten)]
        which: Which,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// One machine.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// Hostname or id.
    #[arg(value_name = "MACHINE")]
    machine: String,
}

pub(crate) async fn run(args: VmArgs) -> Outcome {
    let api = args.client.api()?;
    let format = args.client.output;
    match args.command {
        VmCommand::Create(order) => {
            let created = create(&api, &order).await?;
            created.print(format)
        }
        VmCommand::List => list(&api, format).await,
        VmCommand::Get(which) => get(&api, &which, format).await,
        VmCommand::Ssh(which) => {
            let (vm, _) = find(&api, &which).await?;
            let command = vm.ssh().ok_or_else(|| {
                Problem::failed(format!("{} has no address yet", vm.hostname))
                    .next(format!("nimbus vm get {}", vm.hostname))
            })?;
            if format == Format::Json {
                output::json(&serde_json::json!({ "command": command }))
            } else {
                output::line(&command)
            }
        }
        VmCommand::Start(which) => power(&api, &which, "start", "Started").await,
        VmCommand::Shutdown(which) => power(&api, &which, "shutdown", "Shut down").await,
        VmCommand::Stop(which) => power(&api, &which, "stop", "Stopped").await,
        VmCommand::Reboot(which) => power(&api, &which, "reboot", "Restarted").await,
        VmCommand::Delete { which, yes } => delete(&api, &which, yes).await,
    }
}

async fn list(api: &Api, format: Format) -> Outcome {
    let what = "could not list the machines";
    let rows = api.list(&["vms"], what).await?;
    if format == Format::Json {
        return output::json(&rows);
    }
    let machines: Vec<Vm> = read(&rows, what)?;
    let rows = machines.into_iter().map(|vm| {
        [
            vm.hostname,
            vm.status,
            output::or_dash(vm.ip),
            vm.tier,
            vm.os_template,
            output::or_dash(vm.node),
            output::or_dash(vm.vmid),
            output::moment(&vm.created_at),
            vm.id,
        ]
    });
    output::table(
        [
            "HOSTNAME", "STATUS", "ADDRESS", "TIER", "OS", "NODE", "VMID", "CREATED", "ID",
        ],
        rows.collect(),
        "There are no machines. Make one with `nimbus vm create HOSTNAME`.",
    )
}

async fn get(api: &Api, which: &Which, format: Format) -> Outcome {
    let (vm, raw) = find(api, which).await?;
    if format == Format::Json {
        return output::json(&raw);
    }
    let ssh = vm.ssh();
    let mut rows = vec![
        ("Hostname", vm.hostname),
        ("Status", vm.status),
        ("SSH", output::or_dash(ssh)),
        ("Address", output::or_dash(vm.ip)),
        ("Tier", vm.tier),
        ("System", vm.os_template),
        ("Node", output::or_dash(vm.node)),
        ("VMID", output::or_dash(vm.vmid)),
        ("Key", output::or_dash(vm.key_name)),
        ("Created", output::moment(&vm.created_at)),
        ("ID", vm.id),
    ];
    if let Some(error) = vm.error_msg {
        rows.push(("Error", error));
    }
    output::facts(&rows)
}

async fn power(api: &Api, which: &Which, verb: &str, done: &str) -> Outcome {
    let (vm, _) = find(api, which).await?;
    let what = format!("could not {verb} {}", vm.hostname);
    let request = api.request(Method::POST, &["vms", &vm.id, verb]).timeout(LONG);
    wait(&format!("{} {}", vm.hostname, verb), api.answer(request, &what)).await?;
    output::say(format_args!("{done} {}.", vm.hostname));
    Ok(())
}

async fn delete(api: &Api, which: &Which, yes: bool) -> Outcome {
    let (vm, _) = find(api, which).await?;
    let address = vm
        .ip
        .as_ref()
        .map(|ip| format!(", address {ip}"))
        .unwrap_or_default();
    output::confirm(
        &format!(
            "Delete the machine {} ({}{address}) with everything on its disk",
            vm.hostname, vm.id
        ),
        yes,
    )?;
    let request = api.request(Method::DELETE, &["vms", &vm.id]).timeout(LONG);
    wait(
        &format!("deleting {}", vm.hostname),
        api.answer(request, &format!("could not delete {}", vm.hostname)),
    )
    .await?;
    output::say(format_args!("Deleted {}.", vm.hostname));
    Ok(())
}

/// Shows that something goes on while `work` does.
async fn wait<T>(title: &str, work: impl Future<Output = T>) -> T {
    let spinner = indicatif::ProgressBar::new_spinner().with_message(title.to_owned());
    spinner.enable_steady_tick(std::time::Duration::from_millis(120));
    let result = work.await;
    spinner.finish_and_clear();
    result
}

/// The machine of this id or hostname, and its row as the server sent it.
async fn find(api: &Api, which: &Which) -> Outcome<(Vm, Value)> {
    let what = format!("could not find the machine {}", which.machine);
    if which.machine.starts_with("vm_") {
        let row = api.get(&["vms", &which.machine], &what).await?;
        return Ok((read(&row, &what)?, row));
    }
    let rows = api.list(&["vms"], &what).await?;
    let row = rows
        .as_array()
        .and_then(|rows| {
            rows.iter()
                .find(|row| row.get("hostname").and_then(Value::as_str) == Some(&which.machine))
        })
        .ok_or_else(|| {
            Problem::failed(what.clone())
                .why("none of your machines has this hostname")
                .code(nimbus_errors::Code::OpNotFound.as_str())
                .next("nimbus vm list")
        })?;
    Ok((read(row, &what)?, row.clone()))
}
