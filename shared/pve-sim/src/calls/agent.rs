//! The guest agent: answers a while after a boot, like one in a cloud image.

use serde_json::{Value, json};

use super::Call;
use crate::error::ApiError;
use crate::formats;
use crate::guest::Boot;
use crate::timing::Step;
use crate::world::Exec;

/// The boot of a machine whose agent answers.
fn ready<'a>(call: &'a Call<'_>) -> Result<(u32, &'a Boot), ApiError> {
    let guest = call.machine()?;
    if !guest.option("agent").is_some_and(formats::agent_enabled) {
        return Err(ApiError::died("No QEMU guest agent configured"));
    }
    let Some(boot) = &guest.boot else {
        return Err(ApiError::died(format!("VM {} is not running", guest.vmid)));
    };
    if boot.paused || boot.agent_at.is_none_or(|at| at > call.world.now) {
        // PVE asks the socket for three seconds before it gives up.
        return Err(ApiError::died("QEMU guest agent is not running").after(Step::AgentProbe));
    }
    Ok((guest.vmid, boot))
}

pub(super) fn interfaces(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (_, boot) = ready(call)?;
    let mac = call
        .machine()?
        .option("net0")
        .and_then(|net| net.split(',').next()?.split_once('='));
    let mac = mac.map(|(_, mac)| mac.to_lowercase()).unwrap_or_default();
    let address = |ip: &str, prefix: u8| {
        let kind = if ip.contains(':') { "ipv6" } else { "ipv4" };
        json!({"ip-address": ip, "ip-address-type": kind, "prefix": prefix})
    };
    let mut found = vec![address(&link_local(&mac), 64)];
    // The agent is up before the network is.
    if boot.address_at <= call.world.now {
        found.splice(
            0..0,
            boot.addresses.iter().map(|(ip, prefix)| address(ip, *prefix)),
        );
    }
    Ok(json!({"result": [
        {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [address("127.0.0.1", 8), address("::1", 128)]},
        {"name": "eth0", "hardware-address": mac, "ip-addresses": found},
        {"name": "sit0", "hardware-address": "00:00:00:00"},
    ]}))
}

/// The link-local address a card of this MAC gives itself.
fn link_local(mac: &str) -> String {
    let bytes: Vec<u8> = mac
        .split(':')
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    match bytes.as_slice() {
        &[a, b, c, d, e, f] => format!(
            "fe80::{:x}:{:x}:{:x}:{:x}",
            u16::from_be_bytes([a ^ 2, b]),
            u16::from_be_bytes([c, 0xff]),
            u16::from_be_bytes([0xfe, d]),
            u16::from_be_bytes([e, f])
        ),
        _ => "fe80::1".to_owned(),
    }
}

pub(super) fn os_info(call: &mut Call<'_>) -> Result<Value, ApiError> {
    ready(call)?;
    let tags = call.machine()?.option("tags").unwrap_or_default();
    let system = tags
        .split(';')
        .find_map(|tag| tag.strip_prefix("nimbus-os-"))
        .unwrap_or("debian-12");
    let (id, version) = system.split_once('-').unwrap_or((system, ""));
    Ok(json!({"result": {
        "id": id, "name": id, "version-id": version, "version": version, "pretty-name": format!("{id} {version}"),
        "kernel-release": "6.8.0-60-generic", "kernel-version": "#1 SMP PREEMPT_DYNAMIC", "machine": "x86_64",
    }}))
}

pub(super) fn ping(call: &mut Call<'_>) -> Result<Value, ApiError> {
    ready(call)?;
    Ok(json!({"result": {}}))
}

/// `echo` prints its words, `false` fails, `cat` returns its input, everything else succeeds in silence.
pub(super) fn exec(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let vmid = ready(call)?.0;
    let command = call.params.words("command").to_vec();
    let (program, rest) = command
        .split_first()
        .map_or(("", [].as_slice()), |(p, rest)| (p.as_str(), rest));
    let input = call.text("input-data");
    let (exitcode, output) = match program.rsplit('/').next().unwrap_or_default() {
        "echo" => (0, format!("{}\n", rest.join(" "))),
        "cat" => (0, input.clone()),
        "false" => (1, String::new()),
        _ => (0, String::new()),
    };
    let done_at = call.world.now + call.world.step(Step::GuestCommand);
    let pid = call.world.execs.last_key_value().map_or(1200, |(pid, _)| pid + 1);
    call.world.execs.insert(
        pid,
        Exec {
            vmid,
            done_at,
            exitcode,
            output,
            command,
            input,
        },
    );
    // The agent remembers only so much.
    if call.world.execs.len() > 1_000 {
        call.world.execs.pop_first();
    }
    Ok(json!({"pid": pid}))
}

pub(super) fn exec_status(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let vmid = ready(call)?.0;
    let pid: u64 = call.params.number("pid").unwrap_or_default();
    let found = call.world.execs.get(&pid).filter(|exec| exec.vmid == vmid);
    let Some(exec) = found else {
        return Err(ApiError::died(format!("Agent error: PID {pid} does not exist")));
    };
    if exec.done_at > call.world.now {
        return Ok(json!({"exited": 0}));
    }
    let mut row = json!({"exited": 1, "exitcode": exec.exitcode});
    if let (false, Some(fields)) = (exec.output.is_empty(), row.as_object_mut()) {
        fields.insert("out-data".to_owned(), json!(exec.output));
    }
    Ok(row)
}
