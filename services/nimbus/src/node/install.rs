//! Installing, upgrading and removing the node of this host.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use camino::Utf8PathBuf;
use nimbus_config::seconds_or_text;
use nimbus_node::{Host, Manifest, NodeError, Plan, Removal, Request, Upgrade, Upgraded};

use super::{WhichArgs, mirrors, problem, this_program};
use crate::output;
use crate::problem::{Outcome, Problem};

/// Write the units of a node, and start it if asked.
///
/// What is written says where it comes from and carries a hash, so that changes are noticed later. Nothing is
/// written unless everything can be.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// Where the program is or goes: this one is copied there if nothing is [default: /usr/local/bin/nimbus, or
    /// ~/.local/bin/nimbus with --user].
    #[arg(long, value_name = "FILE")]
    binary: Option<Utf8PathBuf>,

    /// The image of the container, with tag or digest.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Refuse an image without a digest.
    #[arg(long)]
    require_digest: bool,

    #[command(flatten)]
    how: HowArgs,

    /// Start it with the host, or with the account's service manager.
    #[arg(long)]
    enable: bool,

    /// Start it now.
    #[arg(long)]
    now: bool,
}

/// What both ways to install take.
#[derive(Debug, clap::Args)]
struct HowArgs {
    /// Address to listen on. One that other computers reach needs --allow-network and a fresh admin token.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,

    /// Port to listen on.
    #[arg(long, default_value_t = nimbus_node::DEFAULT_PORT)]
    port: u16,

    /// Listen on an address that other computers reach.
    #[arg(long)]
    allow_network: bool,

    /// Let the service manager hold the port: the first connection starts the node, and none is refused while
    /// it restarts.
    #[arg(long)]
    socket_activation: bool,

    /// Keep the node away from the container engine: it runs no sandboxes then.
    #[arg(long)]
    without_engine: bool,

    /// Replace what is there, changed or not.
    #[arg(long)]
    overwrite: bool,

    /// Print everything that would be written and run, to the byte, and do nothing.
    #[arg(long, conflicts_with = "upgrade")]
    dry_run: bool,

    /// Replace the installed program by this one, restart, and go back if it does not get ready.
    #[arg(long)]
    upgrade: bool,

    /// The program to install instead of this one.
    #[arg(long, value_name = "FILE")]
    from: Option<Utf8PathBuf>,

    /// How long an upgraded node may take to get ready.
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = seconds_or_text)]
    ready_within: Duration,
}

/// Install Nimbus on this host, start it, and start it with the host: `nimbus node install --systemd --system
/// --enable --now`. Where it is installed already, this is an upgrade.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallHereArgs {
    #[command(flatten)]
    how: HowArgs,
}

/// Remove what installing made. The data stays unless --purge is given.
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    which: WhichArgs,

    #[command(flatten)]
    what: RemovalArgs,
}

/// Remove Nimbus from this host: `nimbus node uninstall --systemd --system`.
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallHereArgs {
    #[command(flatten)]
    what: RemovalArgs,
}

#[derive(Debug, clap::Args)]
struct RemovalArgs {
    /// Print what would be removed, and do nothing.
    #[arg(long)]
    dry_run: bool,

    /// Remove files too that Nimbus has not written.
    #[arg(long)]
    force: bool,

    /// Remove the data, the settings and the service's account as well, or the container's volume. They cannot be
    /// brought back.
    #[arg(long)]
    purge: bool,

    /// Do not ask before data is removed.
    #[arg(long, short)]
    yes: bool,
}

pub(crate) fn install_here(args: InstallHereArgs) -> Outcome {
    let layout = WhichArgs::SYSTEM.layout()?;
    let mut how = args.how;
    let there = Manifest::read(&layout)
        .map_err(|error| problem(&error))?
        .is_some();
    // Whoever installs again wants the newer program; who wants other units says so.
    how.upgrade |= there && !how.overwrite && !how.dry_run;
    install(InstallArgs {
        which: WhichArgs::SYSTEM,
        binary: None,
        image: None,
        require_digest: false,
        how,
        enable: true,
        now: true,
    })
}

pub(super) fn install(args: InstallArgs) -> Outcome {
    let InstallArgs { which, how, .. } = args;
    let layout = which.layout()?;
    let program = how.from.map_or_else(this_program, Ok)?;
    if how.upgrade {
        return upgrade(&layout, program, how.ready_within);
    }
    if !which.systemd && !which.container {
        return Err(Problem::usage("as what should the node run?")
            .next("add --systemd for a service, or --container for a container of Podman"));
    }
    let request = Request {
        target: which.target(),
        scope: layout.scope,
        binary: args.binary,
        image: args.image,
        require_digest: args.require_digest,
        listen: SocketAddr::new(how.host, how.port),
        allow_network: how.allow_network,
        socket_activation: how.socket_activation,
        engine: !how.without_engine,
        enable: args.enable,
        now: args.now,
    };
    let failed = |error: NodeError| problem(&error);
    let install = request.check(&layout, &mirrors()).map_err(failed)?;
    for warning in &install.warnings {
        output::say(format_args!("Warning: {warning}."));
    }
    let listen = install.request.listen;
    let socket = install.request.socket_activation;
    let plan = Plan::new(install, layout.clone(), &program, &Host).map_err(failed)?;
    if how.dry_run {
        return output::line(plan.dry_run().trim_end_matches('\n'));
    }
    plan.check(how.overwrite, &program).map_err(failed)?;
    for step in plan.files.iter().filter(|step| !step.drift.diff.is_empty()) {
        output::say(format_args!(
            "replacing {}:\n{}",
            step.artifact.path,
            step.drift.diff.trim_end()
        ));
    }
    let done = plan.apply(&Host).map_err(failed)?;
    if let Some(path) = &done.copied {
        output::say(format_args!("copied: {path}"));
    }
    for path in &done.written {
        output::say(format_args!("wrote: {path}"));
    }
    for path in &done.removed {
        output::say(format_args!("removed: {path}"));
    }
    for command in &done.ran {
        output::say(format_args!("ran: {command}"));
    }
    let state = match (args.now, socket) {
        (true, true) => format!("; the first connection to http://{listen} starts it"),
        (true, false) => format!("; it answers on http://{listen}"),
        (false, _) => String::new(),
    };
    output::line(&format!(
        "Installed: {} in {} scope{state}.",
        which.target().as_str(),
        layout.scope.as_str()
    ))
}

fn upgrade(layout: &nimbus_node::Layout, program: Utf8PathBuf, ready_within: Duration) -> Outcome {
    let upgrade = Upgrade {
        layout: layout.clone(),
        program,
        ready_within,
    };
    let done = upgrade
        .run(&Host, |line| output::say(line))
        .map_err(|error| problem(&error))?;
    output::line(&match done {
        Upgraded::Same { version } => format!("Nothing to do: {version} is installed."),
        Upgraded::Serves { from, to } => format!("Upgraded: {to} serves instead of {from}."),
        Upgraded::Placed { from, to } => {
            format!("Upgraded: {to} is in the place of {from}. The node was not running and is not started.")
        }
    })
}

pub(crate) fn uninstall_here(args: UninstallHereArgs) -> Outcome {
    uninstall(&UninstallArgs {
        which: WhichArgs::SYSTEM,
        what: args.what,
    })
}

pub(super) fn uninstall(args: &UninstallArgs) -> Outcome {
    let UninstallArgs { which, what } = args;
    let layout = which.layout()?;
    let failed = |error: NodeError| problem(&error);
    let removal = Removal::new(layout.clone(), which.target(), what.purge, &Host).map_err(failed)?;
    if what.dry_run {
        let text = removal.dry_run().map_err(failed)?;
        return output::line(text.trim_end_matches('\n'));
    }
    removal.check(what.force).map_err(failed)?;
    let lost = removal.loses();
    if !lost.is_empty() {
        output::confirm(
            &format!("This removes {} with everything in it", lost.join(" and ")),
            what.yes,
        )?;
    }
    for path in &removal.modified {
        output::say(format_args!(
            "Warning: {path} was changed after Nimbus wrote it; the changes go with it."
        ));
    }
    let done = removal.apply(&Host).map_err(failed)?;
    for path in &done.removed {
        output::say(format_args!("removed: {path}"));
    }
    for kept in &done.kept {
        output::say(format_args!("kept: {kept}"));
    }
    for left in &done.left {
        output::say(format_args!("left: {left}"));
    }
    if done.removed.is_empty() {
        return output::line("Nothing was installed.");
    }
    let more = if done.kept.is_empty() || what.purge {
        String::new()
    } else {
        format!(
            " `nimbus node uninstall{} --purge` removes what was kept.",
            which.flags()
        )
    };
    output::line(&format!(
        "Uninstalled: {} in {} scope.{more}",
        which.target().as_str(),
        layout.scope.as_str()
    ))
}
