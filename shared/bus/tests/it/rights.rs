//! What a credential does not allow does not happen.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use nimbus_bus::{
    BusError, CloudEvent, Credential, Done, EventFilter, EventStart, Grants, Method, User, service_user,
};
use nimbus_errors::Code;
use nimbus_model::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::world::*;

#[tokio::test]
async fn with_the_pools_credential_one_neither_calls_nor_hears_the_methods_of_auth() {
    let world = World::start().await;
    let auth = world.client("auth", &Grants::default().serving("auth")).await;
    let _serving = auth
        .serve("auth", "1.0.0", "Identity")
        .method::<Login, _, _>(|call| async move { Ok(call.request) })
        .start()
        .await
        .unwrap();
    let pools = Grants::default()
        .serving("ippool")
        .publishing("address")
        .leasing();
    let pool = world.client("ippool", &pools).await;

    let fault = pool.call::<Login>(&"root".to_owned()).await.unwrap_err();
    assert!(fault.is(Code::BusPermission), "{fault}");

    // Neither as a member of the queue group, nor by listening along.
    let refused = pool
        .serve("auth", "1.0.0", "Not auth")
        .method::<Login, _, _>(|call| async move { Ok(call.request) })
        .start()
        .await;
    assert!(
        matches!(refused, Err(BusError::Permission { .. })),
        "served as somebody else"
    );
    let credential = world.authority.mint(&nimbus_bus::service_user("ippool", &pools));
    for subject in [
        &Login::subject(),
        "nimbus.v1.rpc.>",
        ">",
        "_INBOX_auth.>",
        "$SRV.*.auth",
        "$KV.leases.auth.>",
    ] {
        let heard = listen(&world, &credential, subject).await;
        assert!(
            heard.starts_with("nats: Permissions Violation for Subscription"),
            "{subject}: {heard}"
        );
    }

    // What auth serves still goes to auth.
    let gateway = world
        .client("gateway", &Grants::default().calling::<Login>())
        .await;
    assert_eq!(gateway.call::<Login>(&"ann".to_owned()).await.unwrap(), "ann");
}

/// Subscribes with a plain client, and gives the server's first complaint about it.
async fn listen(world: &World, credential: &Credential, subject: &str) -> String {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let options = plain_options(credential).event_callback(move |event| {
        if let async_nats::Event::ServerError(error) = event {
            told.send(error.to_string()).unwrap();
        }
        std::future::ready(())
    });
    let client = options.connect(world.nats.url()).await.unwrap();
    let _subscription = client.subscribe(subject.to_owned()).await.unwrap();
    within(tells.recv()).await.unwrap()
}

#[tokio::test]
async fn each_part_of_the_bus_works_with_exactly_its_grants() {
    let world = World::start().await;
    let publisher = world
        .client("ippool", &Grants::default().publishing("address"))
        .await;
    publisher
        .publish(&CloudEvent::of(&Freed { number: 1 }, "ippool", &Clock::system()))
        .await
        .unwrap();
    let error = publisher
        .publish(&CloudEvent::of(&Made { number: 1 }, "ippool", &Clock::system()))
        .await
        .unwrap_err();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");
    let filter = |subject: &str| EventFilter {
        subjects: vec![subject.to_owned()],
        start: EventStart::All,
    };
    let error = publisher
        .follow(filter("nimbus.v1.event.address.>"))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");
    let error = publisher
        .lease("ippool.x", Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");
    let error = publisher.enqueue::<Numbers>(&1, "1").await.unwrap_err();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");

    let follower = world
        .client("auth", &Grants::default().following("nimbus.v1.event.address.>"))
        .await;
    follower
        .follow(filter("nimbus.v1.event.address.>"))
        .await
        .unwrap();
    let error = follower.follow(filter("nimbus.v1.event.>")).await.err().unwrap();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");

    // A lease of somebody else's.
    let holder = world.client("ippool", &Grants::default().leasing()).await;
    assert!(
        holder
            .lease("ippool.x", Duration::from_secs(5))
            .await
            .unwrap()
            .is_some()
    );
    let error = holder.lease("auth.x", Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");

    // Streams are the administrator's to change.
    let error = holder
        .configure_streams(&nimbus_bus::StreamSettings::default())
        .await
        .unwrap_err();
    assert!(matches!(error, BusError::Permission { .. }), "{error}");
    world
        .root("admin")
        .await
        .configure_streams(&nimbus_bus::StreamSettings {
            events_max_bytes: 1 << 20,
            ..Default::default()
        })
        .await
        .unwrap();
    publisher
        .publish(&CloudEvent::of(&Freed { number: 2 }, "ippool", &Clock::system()))
        .await
        .unwrap();
}

/// Everything a service can be granted, used once.
async fn use_all(world: &World, user: &User) -> anyhow::Result<()> {
    let bus = world
        .connect(&user.name, Some(world.authority.mint(user)))
        .await?;
    let serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Double, _, _>(|call| async move { Ok(call.request * 2) });
    let _serving = serving.start().await?;
    bus.call::<Double>(&4).await?;

    bus.publish(&CloudEvent::of(&Made { number: 1 }, "sums", &Clock::system()))
        .await?;
    let filter = EventFilter {
        subjects: vec!["nimbus.v1.event.machine.>".to_owned()],
        start: EventStart::After(0),
    };
    bus.follow(filter)
        .await?
        .next()
        .await
        .context("the stream ended")??;

    let name = format!("sums.{}", uuid::Uuid::new_v4().simple());
    let _held = bus
        .lease(&name, Duration::from_secs(5))
        .await?
        .context("the lease is taken")?;
    ensure!(
        bus.lease(&name, Duration::from_secs(5)).await?.is_none(),
        "the lease was given twice"
    );

    bus.enqueue::<Numbers>(&1, &name).await?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let work = bus.work::<Numbers, _, _>(1, stop, move |_, progress| {
        stopping.cancel();
        async move {
            // As a handler that takes its time: one acknowledgement would pass as an answer.
            progress.touch().await;
            Ok(Done::Ack)
        }
    });
    work.await?;
    let mut queue = async_nats::jetstream::new(world.plain().await)
        .get_stream("WORK_numbers")
        .await?;
    let left = queue.info().await?.state.messages;
    ensure!(left == 0, "{left} items were not acknowledged");
    Ok(())
}

#[tokio::test]
async fn every_right_is_needed() {
    let world = World::start().await;
    let grants = Grants::default()
        .serving("sums")
        .calling::<Double>()
        .publishing("machine")
        .following("nimbus.v1.event.machine.>")
        .pushing::<Numbers>()
        .pulling::<Numbers>()
        .leasing();
    let user = service_user("sums", &grants);
    use_all(&world, &user).await.unwrap();
    for right in user
        .publish
        .iter()
        .map(|right| (right, true))
        .chain(user.subscribe.iter().map(|right| (right, false)))
    {
        // It only lets a waiting replica hear sooner that a lease was given back.
        if right == (&"$KV.leases.sums.>".to_owned(), false) {
            continue;
        }
        let mut less = user.clone();
        let (right, publishes) = right;
        if publishes {
            &mut less.publish
        } else {
            &mut less.subscribe
        }
        .retain(|one| one != right);
        let outcome = tokio::time::timeout(Duration::from_secs(4), use_all(&world, &less)).await;
        assert!(!matches!(outcome, Ok(Ok(()))), "everything works without {right}");
        // What it left behind must not make the next round fail for another reason.
        let context = async_nats::jetstream::new(world.plain().await);
        context
            .get_stream("WORK_numbers")
            .await
            .unwrap()
            .purge()
            .await
            .unwrap();
    }
    use_all(&world, &user).await.unwrap();
}

#[tokio::test]
async fn a_credential_is_needed_and_ends() {
    let world = World::start().await;
    assert!(matches!(
        world.connect("nobody", None).await,
        Err(BusError::Connect { .. })
    ));
    let past = Timestamp::from_micros(1_000_000_000_000_000);
    let expired = world.authority.mint(&User {
        expires: Some(past),
        ..User::unrestricted("late")
    });
    assert!(matches!(
        world.connect("late", Some(expired)).await,
        Err(BusError::Connect { .. })
    ));
    let strangers = camino_tempfile::tempdir().unwrap();
    let stranger = nimbus_bus::Authority::open(strangers.path())
        .unwrap()
        .mint(&User::unrestricted("stranger"));
    assert!(matches!(
        world.connect("stranger", Some(stranger)).await,
        Err(BusError::Connect { .. })
    ));
    // Somebody else's inbox is noticed at once, not at the first lost answer.
    let pool = world
        .authority
        .mint(&nimbus_bus::service_user("ippool", &Grants::default()));
    assert!(matches!(
        world.connect("auth", Some(pool)).await,
        Err(BusError::Permission { .. })
    ));
}
