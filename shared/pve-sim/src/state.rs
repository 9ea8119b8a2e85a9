//! The state file: the cluster survives a restart of the simulator, its tasks do not.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::guest::Guest;
use crate::world::{File, Node, World};

#[derive(Serialize, Deserialize)]
struct Saved {
    nodes: Vec<Node>,
    guests: Vec<Guest>,
    files: Vec<File>,
}

pub(crate) fn save(world: &World) -> Value {
    json!({"nodes": world.nodes, "guests": world.guests.values().collect::<Vec<_>>(), "files": world.files})
}

/// Replaces what the seed made. Guests that a worker was about to make are gone, as after a power cut.
pub(crate) fn load(world: &mut World, text: &[u8]) -> Result<(), serde_json::Error> {
    let saved: Saved = serde_json::from_slice(text)?;
    world.nodes = saved.nodes;
    world.files = saved.files;
    let whole = saved
        .guests
        .into_iter()
        .filter(|guest| !matches!(guest.lock(), Some("clone" | "create")));
    world.guests = whole
        .map(|guest| (guest.vmid, rebooted(guest)))
        .collect::<BTreeMap<_, _>>();
    Ok(())
}

/// Times are counted from the start of the simulator: what was on has been on since then.
fn rebooted(mut guest: Guest) -> Guest {
    guest.created = 0;
    guest.busy_until = 0;
    if let Some(boot) = &mut guest.boot {
        (boot.since, boot.address_at) = (0, 0);
        boot.agent_at = boot.agent_at.map(|_| 0);
    }
    guest
}

/// Writes beside the file and renames, so that there is always a whole one.
pub(crate) async fn write(path: &Path, state: &Value) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    tokio::fs::write(&beside, serde_json::to_vec_pretty(state)?).await?;
    tokio::fs::rename(&beside, path).await
}
