//! What is in the cluster at the start.

use std::collections::BTreeMap;

use crate::formats;
use crate::guest::{Boot, Guest, GuestKind};
use crate::world::{File, Node, World};

const GIB: u64 = 1 << 30;

/// Operating systems with a template on every node, and the size of their image.
pub(crate) const SYSTEMS: &[(&str, &str)] = &[
    ("ubuntu-24.04", "3584M"),
    ("ubuntu-22.04", "2252M"),
    ("debian-12", "2G"),
    ("debian-11", "2G"),
];

/// First VMID of the templates.
pub(crate) const FIRST_TEMPLATE: u32 = 9000;

/// Sizes of nodes, repeated from the fourth on: memory, own memory, threads, load, disk, own disk.
/// The third is nearly full, so that there is a node to refuse.
const SIZES: &[(u64, u64, u64, f64, u64, u64)] = &[
    (64 * GIB, 4 * GIB, 16, 0.10, 800 * GIB, 88 * GIB),
    (32 * GIB, 4 * GIB, 8, 0.05, 400 * GIB, 52 * GIB),
    (16 * GIB, 59 * GIB / 10, 8, 0.20, 400 * GIB, 353 * GIB),
];

/// A guest that belongs to somebody else: VMID, kind, name, index of its node, cores, MiB, GiB, its
/// address and whether it is on.
type Foreign = (
    u32,
    GuestKind,
    &'static str,
    usize,
    u32,
    u32,
    u32,
    Option<usize>,
    bool,
);

const FOREIGN: &[Foreign] = &[
    (
        110,
        GuestKind::Qemu,
        "fileserver",
        0,
        4,
        16_384,
        80,
        Some(0),
        true,
    ),
    (111, GuestKind::Qemu, "legacy-crm", 0, 2, 8_192, 32, None, false),
    (120, GuestKind::Lxc, "dns", 1, 1, 2_048, 8, Some(1), true),
    (121, GuestKind::Qemu, "git", 1, 4, 8_192, 40, None, true),
    (130, GuestKind::Qemu, "backup", 2, 2, 8_192, 32, None, true),
];

/// How the cluster is filled.
pub(crate) struct Plan<'a> {
    pub(crate) nodes: usize,
    /// Multiplies processors, memory and disk of every node.
    pub(crate) capacity: u32,
    /// Addresses, with prefix, of the first guests of others.
    pub(crate) foreign: &'a [String],
    pub(crate) foreign_guests: bool,
    /// Address of the first node; the others follow.
    pub(crate) first_ip: std::net::Ipv4Addr,
}

/// Makes nodes, templates, images and the guests of others.
pub(crate) fn fill(world: &mut World, plan: &Plan<'_>) {
    for (index, (maxmem, own_mem, maxcpu, load, disk, own_disk)) in
        SIZES.iter().cycle().take(plan.nodes).copied().enumerate()
    {
        let factor = u64::from(plan.capacity.max(1));
        let offset = u32::try_from(index).unwrap_or(0);
        world.nodes.push(Node {
            name: format!("pve{}", index + 1),
            online: true,
            ip: std::net::Ipv4Addr::from(u32::from(plan.first_ip).wrapping_add(offset)).to_string(),
            maxcpu: maxcpu * factor,
            load,
            maxmem: maxmem * factor,
            own_mem,
            disk: disk * factor,
            own_disk,
        });
    }
    let names: Vec<String> = world.nodes.iter().map(|node| node.name.clone()).collect();
    let mut vmid = FIRST_TEMPLATE;
    for node in &names {
        for (system, size) in SYSTEMS {
            template(world, vmid, node, system, size);
            vmid += 1;
        }
    }
    if plan.foreign_guests {
        for guest in FOREIGN {
            let Some(node) = names
                .get(guest.3)
                .or_else(|| if guest.7.is_some() { names.first() } else { None })
            else {
                continue;
            };
            let address = guest.7.and_then(|index| plan.foreign.get(index)).cloned();
            foreign(
                world,
                NewForeign {
                    vmid: guest.0,
                    kind: guest.1,
                    name: guest.2.to_owned(),
                    node: node.clone(),
                    cores: guest.4,
                    memory_mib: guest.5,
                    disk_gib: guest.6,
                    address,
                    running: guest.8,
                    tags: String::new(),
                },
            );
        }
    }
}

fn options<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn template(world: &mut World, vmid: u32, node: &str, system: &str, size: &str) {
    let (mac, uuid, generation) = (world.new_mac(), world.new_uuid(), world.new_uuid());
    let config = options([
        ("agent", "enabled=1".to_owned()),
        ("boot", "order=scsi0".to_owned()),
        ("cores", "1".to_owned()),
        ("description", format!("<!-- nimbus-template: os={system} -->\n")),
        (
            "ide2",
            format!("local-lvm:vm-{vmid}-cloudinit,media=cdrom,size=4M"),
        ),
        ("memory", "1024".to_owned()),
        ("meta", format!("creation-qemu=10.1.2,ctime={}", world.epoch)),
        ("name", format!("nimbus-tmpl-{system}")),
        ("net0", format!("virtio={mac},bridge=vmbr0")),
        ("numa", "0".to_owned()),
        ("ostype", "l26".to_owned()),
        ("scsi0", format!("local-lvm:base-{vmid}-disk-0,size={size}")),
        ("scsihw", "virtio-scsi-pci".to_owned()),
        ("serial0", "socket".to_owned()),
        ("smbios1", format!("uuid={uuid}")),
        ("sockets", "1".to_owned()),
        (
            "tags",
            format!("nimbus-baked-v1;nimbus-os-{system};nimbus-template"),
        ),
        ("template", "1".to_owned()),
        ("vga", "serial0".to_owned()),
        ("vmgenid", generation),
    ]);
    add(
        world,
        Guest {
            vmid,
            kind: GuestKind::Qemu,
            node: node.to_owned(),
            config,
            pending: BTreeMap::new(),
            boot: None,
            created: 0,
            busy_until: 0,
            foreign: true,
        },
    );
    world.files.push(File {
        node: node.to_owned(),
        volid: format!("local:import/{system}-cloudimg-amd64.qcow2"),
        content: "import".to_owned(),
        size: 600 << 20,
    });
}

/// A guest that nobody asked the API for.
pub(crate) struct NewForeign {
    pub(crate) vmid: u32,
    pub(crate) kind: GuestKind,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) cores: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_gib: u32,
    /// With prefix.
    pub(crate) address: Option<String>,
    pub(crate) running: bool,
    pub(crate) tags: String,
}

/// Puts such a guest into the cluster.
pub(crate) fn foreign(world: &mut World, new: NewForeign) {
    let NewForeign {
        vmid,
        kind,
        name,
        node,
        cores,
        memory_mib,
        disk_gib,
        address,
        running,
        tags,
    } = new;
    let (mac, uuid) = (world.new_mac(), world.new_uuid());
    let ip = address.unwrap_or_else(|| "dhcp".to_owned());
    let mut config = match kind {
        GuestKind::Qemu => options([
            ("agent", "1".to_owned()),
            ("boot", "order=scsi0".to_owned()),
            ("cores", cores.to_string()),
            ("ipconfig0", format!("ip={ip}")),
            ("memory", memory_mib.to_string()),
            ("name", name),
            ("net0", format!("virtio={mac},bridge=vmbr0")),
            ("ostype", "l26".to_owned()),
            ("scsi0", format!("local-lvm:vm-{vmid}-disk-0,size={disk_gib}G")),
            ("smbios1", format!("uuid={uuid}")),
            ("sockets", "1".to_owned()),
        ]),
        GuestKind::Lxc => options([
            ("arch", "amd64".to_owned()),
            ("cores", cores.to_string()),
            ("hostname", name),
            ("memory", memory_mib.to_string()),
            (
                "net0",
                format!("name=eth0,bridge=vmbr0,hwaddr={mac},ip={ip},type=veth"),
            ),
            ("ostype", "debian".to_owned()),
            ("rootfs", format!("local-lvm:vm-{vmid}-disk-0,size={disk_gib}G")),
            ("swap", "512".to_owned()),
            ("unprivileged", "1".to_owned()),
        ]),
    };
    if !tags.is_empty() {
        config.insert("tags".to_owned(), tags);
    }
    let mut guest = Guest {
        vmid,
        kind,
        node,
        config,
        pending: BTreeMap::new(),
        boot: None,
        created: world.now,
        busy_until: 0,
        foreign: true,
    };
    if running {
        let addresses = addresses(&guest);
        // Its boot was long ago.
        let since = world.now;
        guest.boot = Some(Boot {
            since,
            pid: 900 + vmid,
            agent_at: Some(since),
            address_at: since,
            addresses,
            paused: false,
        });
    }
    add(world, guest);
}

fn add(world: &mut World, guest: Guest) {
    world.guests.insert(guest.vmid, guest);
    world.version += 1;
}

/// The addresses a guest has after a boot with its present options.
pub(crate) fn addresses(guest: &Guest) -> Vec<(String, u8)> {
    let key = if guest.kind == GuestKind::Qemu {
        "ipconfig0"
    } else {
        "net0"
    };
    let value = guest.option(key).unwrap_or("ip=dhcp");
    let fixed = ["ip", "ip6"].iter().filter_map(|name| {
        let (address, prefix) = formats::prop(value, name)?.split_once('/')?;
        Some((address.to_owned(), prefix.parse().ok()?))
    });
    let mut found: Vec<(String, u8)> = fixed.collect();
    if formats::prop(value, "ip").unwrap_or("dhcp") == "dhcp" {
        // A lease of an imagined DHCP server, the same for the same guest.
        found.push((
            format!("10.77.{}.{}", 1 + guest.vmid / 250 % 200, 1 + guest.vmid % 250),
            16,
        ));
    }
    found
}
