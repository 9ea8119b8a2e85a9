//! What a credential does not allow does not happen.

use nimbus_bus::{BusError, CloudEvent, Credential, EventFilter, EventStart, Grants, Method, User};
use nimbus_errors::Code;
use nimbus_model::{Clock, Timestamp};

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
        .lease("ippool.x", std::time::Duration::from_secs(5))
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
            .lease("ippool.x", std::time::Duration::from_secs(5))
            .await
            .unwrap()
            .is_some()
    );
    let error = holder
        .lease("auth.x", std::time::Duration::from_secs(5))
        .await
        .unwrap_err();
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
