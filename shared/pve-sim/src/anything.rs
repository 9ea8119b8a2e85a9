//! Any calls in any order with any values leave a cluster that makes sense.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::auth::{Caller, Credentials};
use crate::calls::{Call, PATH, ROUTES};
use crate::params::{Params, Raw};
use crate::seed::{self, Plan};
use crate::timing::Timing;
use crate::world::World;

/// Values that get calls somewhere, and values that do not.
const VALUES: &[(&str, &[&str])] = &[
    ("node", &["pve1", "pve1", "pve2", "pve9"]),
    ("vmid", &["100", "101", "110", "9000", "9001", "120", "4711"]),
    ("newid", &["100", "101", "110", "102"]),
    ("storage", &["local", "local-lvm", "nowhere"]),
    ("volume", &["local:import/debian-12-cloudimg-amd64.qcow2", "x"]),
    ("target", &["pve1", "pve2"]),
    ("full", &["0", "1"]),
    ("disk", &["scsi0", "scsi5", "ide2"]),
    ("size", &["20G", "+1G", "1M", "18446744073709551615", "9999999T"]),
    ("memory", &["2048", "4178944"]),
    ("cores", &["1", "8192"]),
    ("sockets", &["64"]),
    (
        "scsi1",
        &[
            "local-lvm:8",
            "local-lvm:99999999999",
            "local-lvm:vm-1-disk-0,size=9999999T",
            "none",
        ],
    ),
    ("ide2", &["local-lvm:cloudinit", "none,media=cdrom"]),
    ("net0", &["virtio,bridge=vmbr0", "e1000=BC:24:11:00:00:01"]),
    ("net1", &["virtio"]),
    ("ipconfig0", &["ip=10.77.0.60/24", "ip=dhcp,ip6=auto"]),
    ("tags", &["b;a", ""]),
    ("name", &["web", "a.b"]),
    ("boot", &["order=scsi0", "order=scsi7", "c"]),
    ("agent", &["1", "0"]),
    ("template", &["0", "1"]),
    ("lock", &["backup"]),
    ("protection", &["1", "0"]),
    (
        "delete",
        &["scsi0", "ide2", "net0,memory", "lock", "template", "agent"],
    ),
    ("start", &["1"]),
    ("filename", &["x.qcow2", "../x"]),
    ("content", &["import", "iso"]),
    ("url", &["https://example.org/x"]),
    ("command", &["echo", "cat"]),
    ("pid", &["1200"]),
    ("username", &["root@pam"]),
    ("password", &["x"]),
    ("limit", &["0", "9223372036854775807"]),
    ("type", &["vm"]),
    ("current", &["1"]),
];

#[derive(Clone, Debug)]
struct Step {
    route: usize,
    picks: Vec<(usize, usize, bool)>,
    doom: bool,
    pass: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pick = (0..8usize, any::<prop::sample::Index>(), prop::bool::weighted(0.5));
    let step = (
        0..ROUTES.len(),
        prop::collection::vec(pick, VALUES.len()),
        prop::bool::weighted(0.1),
        0..20_000u64,
    );
    let step = step.prop_map(|(route, picks, doom, pass)| Step {
        route,
        picks: picks
            .into_iter()
            .map(|(n, at, used)| (n, at.index(8), used))
            .collect(),
        doom,
        pass,
    });
    prop::collection::vec(step, 1..60)
}

fn values(step: &Step, takes: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let wanted = VALUES
        .iter()
        .zip(&step.picks)
        .filter(|((name, _), _)| takes(name));
    wanted
        .filter_map(|((name, values), (_, at, used))| {
            let value = values.get(at % values.len()).filter(|value| !value.is_empty())?;
            (*used || matches!(*name, "newid" | "size" | "disk" | "node" | "vmid"))
                .then(|| ((*name).to_owned(), (*value).to_owned()))
        })
        .collect()
}

fn run(steps: &[Step]) -> World {
    let credentials = Credentials {
        token_id: "root@pam!x".to_owned(),
        token_secret: "x".to_owned().into(),
        password: None,
        key: [0; 32],
    };
    let caller = Caller {
        user: "root@pam".to_owned(),
        token: Some("x".to_owned()),
    };
    let mut world = World::new(1, Timing::new(1.0), 1_700_000_000);
    let plan = Plan {
        nodes: 2,
        capacity: 1,
        foreign: &[],
        foreign_guests: true,
        first_ip: std::net::Ipv4Addr::LOCALHOST,
    };
    seed::fill(&mut world, &plan);
    let mut now = 1;
    for step in steps {
        now += step.pass;
        world.advance(now);
        let route = &ROUTES[step.route];
        let in_path = |name: &str| route.template.contains(&format!("{{{name}}}"));
        let Ok(path) = Params::check(Raw(values(step, in_path)), &[PATH]) else {
            continue;
        };
        let takes =
            |name: &str| !in_path(name) && route.params.iter().flat_map(|t| t.iter()).any(|p| p.is(name));
        let Ok(params) = Params::check(Raw(values(step, takes)), route.params) else {
            continue;
        };
        let doom = step.doom.then(|| "made to fail".to_owned());
        let params = params.with_path(path);
        let mut call = Call {
            world: &mut world,
            credentials: &credentials,
            caller: &caller,
            params,
            doom,
            agent: true,
        };
        let _ = (route.handler)(&mut call);
    }
    world.advance(now + 10_000_000);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_cluster_that_makes_sense(steps in steps()) {
        let world = run(&steps);
        prop_assert!(world.tasks.all().all(|task| !task.is_running()), "every task ends");
        let mut macs = BTreeMap::new();
        for guest in world.guests.values() {
            prop_assert!(!matches!(guest.lock(), Some("clone" | "create")), "no lock outlives its task: {:?}", guest);
            prop_assert!(guest.busy_until <= world.now);
            prop_assert!(guest.boot.is_some() || guest.pending.is_empty(), "nothing waits on a guest that is off: {:?}", guest);
            let mac = guest.option("net0").and_then(|net| net.split(',').next()).unwrap_or_default();
            if mac.starts_with("virtio=") {
                prop_assert_eq!(macs.insert(mac.to_owned(), guest.vmid), None, "two guests share a MAC");
            }
        }
        for node in &world.nodes {
            prop_assert!(world.memory_used(node) <= node.maxmem);
        }
    }

    #[test]
    fn the_same_calls_make_the_same_cluster(steps in steps()) {
        prop_assert_eq!(crate::state::save(&run(&steps)), crate::state::save(&run(&steps)));
    }
}
