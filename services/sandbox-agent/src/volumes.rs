//! Tenants' volumes: volumes of the engine with our labels, mounted when the container is made, or
//! into a warm container from outside.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use nimbus_engine::{Labels, Volume};
use nimbus_proto::agent::LaunchRequest;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_remount, move_mount, open_tree,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tokio::sync::oneshot;

use crate::agent::Agent;
use crate::error::AgentError;
use crate::plan::Plan;
use crate::slot::{Place, TENANT_LABEL};

const MOUNTING: &str = "mount volumes into a container that runs";

/// Whether a claimed container can be given what this plan mounts.
pub(crate) fn can_be_warm(agent: &Agent, plan: &Plan) -> bool {
    !plan.has_mounts() || !agent.mounts_fail.load(Ordering::Relaxed)
}

/// A volume's name on the engine. A tenant's id has no dot, so no two volumes share a name.
fn engine_name(agent: &Agent, tenant: &str, name: &str) -> String {
    format!("nimbus.{}.{tenant}.{name}", agent.slots.installation())
}

/// The tenant's volume, made if it is new.
///
/// # Errors
/// The engine's.
pub(crate) async fn ensure(agent: &Agent, tenant: &str, name: &str) -> Result<Volume, AgentError> {
    let mut labels: Labels = agent.slots.labels();
    labels.insert(TENANT_LABEL.to_owned(), tenant.to_owned());
    let volume = agent
        .engine
        .ensure_volume(&engine_name(agent, tenant, name), &labels)
        .await?;
    open_to_users(&volume);
    Ok(volume)
}

/// Removes the tenant's volume; one that is not there is fine.
///
/// # Errors
/// The engine's, `op.conflict` while a sandbox uses it.
pub(crate) async fn remove(agent: &Agent, tenant: &str, name: &str) -> Result<(), AgentError> {
    Ok(agent
        .engine
        .remove_volume(&engine_name(agent, tenant, name))
        .await?)
}

/// A new volume belongs to root, and sandboxes run as anybody. The engine's own directory above keeps
/// others on the host out.
fn open_to_users(volume: &Volume) {
    use std::os::unix::fs::PermissionsExt;
    let everybody = std::fs::Permissions::from_mode(0o777);
    if let Err(error) = std::fs::set_permissions(&volume.mountpoint, everybody) {
        tracing::debug!(volume = volume.name, cause = %error, "a volume keeps its mode; only its owner can write to it");
    }
}

/// Mounts what the plan says into a container that runs. Nothing of the sandbox' owner runs in it yet.
///
/// # Errors
/// When this host does not allow it; launches with mounts are cold from then on, and the host says so.
pub(crate) async fn mount(
    agent: &Agent,
    request: &LaunchRequest,
    place: &Place,
    plan: &Plan,
) -> Result<(), AgentError> {
    let Some(pid) = place.pid else {
        // The agent is in a container itself: the processes of others have no number there, now or later.
        agent.mounts_fail.store(true, Ordering::Relaxed);
        return Err(AgentError::io(MOUNTING)(std::io::ErrorKind::Unsupported.into()));
    };
    let mut wanted = Vec::new();
    for volume in &plan.volumes {
        wanted.push(Wanted {
            source: Source::Directory(ensure(agent, &request.tenant, &volume.name).await?.mountpoint),
            target: volume.target.clone(),
            read_only: volume.read_only,
        });
    }
    for tmpfs in &plan.tmpfs {
        wanted.push(Wanted {
            source: Source::Memory(tmpfs.size_bytes),
            target: tmpfs.target.clone(),
            read_only: false,
        });
    }
    let (done, outcome) = oneshot::channel();
    // A thread of its own: it moves into the container's mounts and must never do anything else.
    std::thread::Builder::new()
        .name("mounts".to_owned())
        .spawn(move || done.send(mount_all(pid, &wanted)))
        .map_err(AgentError::io(MOUNTING))?;
    let mounted = outcome
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()));
    mounted.map_err(|error| {
        agent.mounts_fail.store(true, Ordering::Relaxed);
        AgentError::io(MOUNTING)(error)
    })
}

struct Wanted {
    source: Source,
    target: String,
    read_only: bool,
}

enum Source {
    Directory(String),
    Memory(Option<u64>),
}

/// Takes each mount in hand here, goes over to the container's mount namespace, and attaches them there:
/// open_tree(2), setns(2), move_mount(2).
fn mount_all(pid: u32, wanted: &[Wanted]) -> std::io::Result<()> {
    let mut in_hand = Vec::new();
    for one in wanted {
        in_hand.push((detached(&one.source)?, one));
    }
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    #[expect(
        unsafe_code,
        reason = "setns needs a thread with a file system context of its own"
    )]
    // SAFETY: this thread was made for this and shares neither paths nor descriptors that it opens with
    // code that could be surprised; unsharing the working directory is what setns(2) asks for.
    unsafe {
        unshare_unsafe(UnshareFlags::FS)?;
    }
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    for (mount, one) in in_hand {
        std::fs::create_dir_all(&one.target)?;
        move_mount(
            &mount,
            "",
            CWD,
            one.target.as_str(),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        if one.read_only {
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            mount_remount(one.target.as_str(), flags, "")?;
        }
    }
    Ok(())
}

/// A mount that is nowhere yet.
fn detached(source: &Source) -> std::io::Result<OwnedFd> {
    Ok(match source {
        Source::Directory(path) => open_tree(
            CWD,
            path.as_str(),
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )?,
        Source::Memory(size) => {
            let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            if let Some(size) = size {
                fsconfig_set_string(tmpfs.as_fd(), "size", size.to_string())?;
            }
            fsconfig_set_string(tmpfs.as_fd(), "mode", "1777")?;
            fsconfig_create(tmpfs.as_fd())?;
            fsmount(
                tmpfs.as_fd(),
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
            )?
        }
    })
}
