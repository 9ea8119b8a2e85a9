//! The event stream.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use nimbus_bus::Method as _;
use nimbus_gateway::GatewayConfig;
use nimbus_proto::event::{AddressChanged, MachineChanged, MachineDeleted, SandboxChanged, SandboxDeleted};
use nimbus_proto::ippool::{Address, AddressSource, AddressStatus};
use nimbus_proto::machine::OperationKind;
use nimbus_proto::workloads::GetSandbox;
use reqwest::Method;
use serde_json::Value;

use crate::peers::Person::{self, Ada, Bob};
use crate::world::{World, config, refusal, within};

/// A client of the stream.
struct Events {
    response: reqwest::Response,
    text: String,
}

#[derive(Debug)]
struct Told {
    id: Option<u64>,
    event: String,
    data: Value,
}

impl Events {
    async fn open(world: &World, person: Person, last: Option<&str>) -> Self {
        let mut request = world.browser(person, Method::GET, "/api/events");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    async fn next(&mut self) -> Told {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let fields: HashMap<_, _> = block.lines().filter_map(|line| line.split_once(": ")).collect();
                if let Some(event) = fields.get("event") {
                    return Told {
                        id: fields.get("id").map(|id| id.parse().unwrap()),
                        event: (*event).to_owned(),
                        data: serde_json::from_str(fields["data"]).unwrap(),
                    };
                }
            }
            let chunk = within(self.response.chunk())
                .await
                .unwrap()
                .expect("the stream ended");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn end(mut self) {
        within(async { while self.response.chunk().await.unwrap().is_some() {} }).await;
    }
}

fn address() -> AddressChanged {
    AddressChanged {
        address: Address {
            ip: Ipv4Addr::new(10, 0, 0, 9),
            status: AddressStatus::Allocated,
            source: AddressSource::Local,
            machine: None,
            vmid: Some(101),
            hostname: None,
            reserved_at: None,
            allocated_at: None,
            last_seen_at: None,
            missed_cycles: 0,
            stranded: false,
        },
    }
}

#[tokio::test]
async fn each_sees_what_is_theirs_in_order_and_administrators_the_pool() {
    let world = World::start().await;
    let (mut bob, mut ada) = (
        Events::open(&world, Bob, None).await,
        Events::open(&world, Ada, None).await,
    );
    let machine = world.books.own(Bob, "web-1");
    let operation = world.books.order(OperationKind::Start, &machine, &[]);
    world.progress(&operation).await;
    World::publish(
        &world.provisioner,
        "provisioner",
        &MachineChanged {
            machine: machine.clone(),
        },
    )
    .await;
    World::publish(&world.ippool, "ippool", &address()).await;
    World::publish(&world.provisioner, "provisioner", &MachineDeleted { machine }).await;
    let adas = world.books.own(Ada, "admin-1");
    World::publish(
        &world.provisioner,
        "provisioner",
        &MachineChanged { machine: adas },
    )
    .await;

    let first = bob.next().await;
    assert_eq!(
        (first.event.as_str(), first.data["id"].as_str()),
        ("operation", Some(operation.id.to_string().as_str()))
    );
    let second = bob.next().await;
    assert_eq!(
        (
            second.event.as_str(),
            &second.data["kind"],
            &second.data["vm"]["hostname"]
        ),
        ("machine", &"changed".into(), &"web-1".into())
    );
    let third = bob.next().await;
    assert_eq!(
        (third.event.as_str(), &third.data["kind"]),
        ("machine", &"deleted".into()),
        "no address for members"
    );
    assert!(first.id < second.id && second.id < third.id);

    let pool = ada.next().await;
    assert_eq!(
        (pool.event.as_str(), &pool.data["ip"]),
        ("address", &"10.0.0.9".into()),
        "nothing of Bob's for Ada"
    );
    assert_eq!(ada.next().await.data["vm"]["hostname"], "admin-1");
}

#[tokio::test]
async fn who_comes_back_is_told_what_they_missed_or_to_read_everything_again() {
    let world = World::start().await;
    let mut bob = Events::open(&world, Bob, None).await;
    let changed = MachineChanged {
        machine: world.books.own(Bob, "web-1"),
    };
    let tell = || World::publish(&world.provisioner, "provisioner", &changed);
    let mut stays = Events::open(&world, Bob, None).await;
    tell().await;
    let first = bob.next().await.id.unwrap();
    drop(bob);
    World::publish(&world.ippool, "ippool", &address()).await;
    tell().await;
    // Who stayed shows that the gateway has both by now.
    assert_eq!(
        (stays.next().await.id, stays.next().await.id),
        (Some(first), Some(first + 2))
    );
    let mut back = Events::open(&world, Bob, Some(&first.to_string())).await;
    let missed = back.next().await;
    assert_eq!((missed.event.as_str(), missed.id), ("machine", Some(first + 2)));
    tell().await;
    assert_eq!(back.next().await.id, Some(first + 3), "and then goes on");

    for unknown in ["999999", "nonsense", ""] {
        let mut lost = Events::open(&world, Bob, Some(unknown)).await;
        let told = lost.next().await;
        assert_eq!(
            (told.event.as_str(), told.id),
            ("reset", Some(first + 3)),
            "{unknown:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_to_start_over() {
    let world = World::start().await;
    let mut slow = Events::open(&world, Bob, None).await;
    let mut machine = world.books.own(Bob, "web-1");
    // Enough to fill the sockets' buffers, and then the queue.
    machine.error_msg = Some("x".repeat(60_000));
    for _ in 0..600 {
        World::publish(
            &world.provisioner,
            "provisioner",
            &MachineChanged {
                machine: machine.clone(),
            },
        )
        .await;
    }
    let mut told = slow.next().await;
    let mut count = 0;
    while told.event != "reset" {
        count += 1;
        assert!(count < 600, "everything was kept for a client that did not read");
        told = slow.next().await;
    }
}

#[tokio::test]
async fn one_user_has_only_so_many_streams() {
    let world = World::with(
        GatewayConfig {
            streams_per_user: 2,
            ..config()
        },
        true,
    )
    .await;
    let first = Events::open(&world, Bob, None).await;
    let _second = Events::open(&world, Bob, None).await;
    let refused = refusal(world.browser(Bob, Method::GET, "/api/events")).await;
    assert_eq!(refused, (429, "rate.resource_exhausted".to_owned()));
    let _other = Events::open(&world, Ada, None).await;
    drop(first);
    // Its slot is free when the gateway has seen the connection close.
    within(async {
        while world
            .browser(Bob, Method::GET, "/api/events")
            .send()
            .await
            .unwrap()
            .status()
            != 200
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let world = World::start().await;
    let bob = Events::open(&world, Bob, None).await;
    world.stop.cancel();
    bob.end().await;
    within(world.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_happens_in_a_tenant_is_told_to_those_who_reach_it() {
    let world = World::start().await;
    let mut bobs = Events::open(&world, Bob, None).await;
    let mut adas = Events::open(&world, Ada, None).await;
    let sandbox = GetSandbox::sample_reply();
    let changed = SandboxChanged {
        sandbox: sandbox.clone(),
        made_by: None,
    };
    World::publish(&world.workloads, "workloads", &changed).await;
    let deleted = SandboxDeleted {
        tenant: "demo".into(),
        id: sandbox.id.clone(),
    };
    World::publish(&world.workloads, "workloads", &deleted).await;
    World::publish(&world.ippool, "ippool", &address()).await;
    let told = bobs.next().await;
    assert_eq!(
        (told.event.as_str(), &told.data["tenant"]),
        ("sandbox", &"demo".into())
    );
    assert_eq!(told.data["metadata"]["id"], sandbox.id.as_str());
    assert_eq!(told.data["spec"]["sandbox"]["process"]["argv"]["redacted"], true);
    let told = bobs.next().await;
    assert_eq!(
        (&told.data["id"], &told.data["removed"]),
        (&sandbox.id.into(), &true.into())
    );
    // Somebody else hears only of what comes after it.
    assert_eq!(adas.next().await.event, "address");
}
