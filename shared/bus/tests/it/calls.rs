//! Requests and replies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use nimbus_bus::{
    AccessToken, Bus, Grants, Identity, Key, Method, SERVICE_ERROR_CODE, Scope, Verify, decode, encode,
};
use nimbus_errors::{Code, Fault};
use nimbus_model::{Clock, TenantId, UserId};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::world::*;

fn serves() -> Grants {
    Grants::default().serving("sums")
}

fn calls() -> Grants {
    Grants::default()
        .calling::<Double>()
        .calling::<Pay>()
        .calling::<Fire>()
        .calling::<Bytes>()
        .calling::<Take>()
        .calling::<Mine>()
        .calling::<Admin>()
}

#[tokio::test]
async fn a_call_is_answered_and_shared_among_replicas() {
    let world = World::start().await;
    let (heard, mut hears) = mpsc::unbounded_channel();
    let mut serving = Vec::new();
    for replica in 0..2 {
        let bus = world.client("sums", &serves()).await;
        let heard = heard.clone();
        serving.push(
            bus.serve("sums", "1.2.3", "Sums")
                .method::<Double, _, _>(move |call| {
                    heard.send(replica).unwrap();
                    async move { Ok(call.request * 2) }
                })
                .start()
                .await
                .unwrap(),
        );
    }
    let caller = world.client("gateway", &calls()).await;
    for number in 0..64 {
        assert_eq!(
            within(caller.call::<Double>(&number).into_future())
                .await
                .unwrap(),
            number * 2
        );
    }
    let mut replicas = HashSet::new();
    for _ in 0..64 {
        replicas.insert(hears.recv().await.unwrap());
    }
    assert_eq!(
        replicas.len(),
        2,
        "both replicas should have got some of 64 requests"
    );
    assert!(hears.try_recv().is_err(), "a request was handled twice");
    for one in serving {
        within(one.stop()).await;
    }
    let gone = caller.call::<Fire>(&1).await.unwrap_err();
    assert!(gone.is(Code::ServiceUnavailable), "{gone}");
}

#[tokio::test]
async fn a_plain_client_discovers_the_service_and_its_numbers() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let _serving = bus
        .serve("sums", "1.2.3", "Sums of numbers")
        .method::<Double, _, _>(|call| async move {
            if call.request == 0 {
                Err(Fault::new(Code::OpInvalidInput, "zero\nis no number"))
            } else {
                Ok(call.request * 2)
            }
        })
        .start()
        .await
        .unwrap();
    let plain = world.plain().await;
    let ask = async |subject: &str, body: Vec<u8>| {
        let request = async_nats::Request::new().payload(body.into());
        within(plain.send_request(subject.to_owned(), request))
            .await
            .unwrap()
    };
    let ping: serde_json::Value = serde_json::from_slice(&ask("$SRV.PING", vec![]).await.payload).unwrap();
    assert_eq!(
        (ping["type"].as_str(), ping["name"].as_str()),
        (Some("io.nats.micro.v1.ping_response"), Some("sums"))
    );
    let info: async_nats::service::Info =
        serde_json::from_slice(&ask("$SRV.INFO.sums", vec![]).await.payload).unwrap();
    assert_eq!(
        (info.version.as_str(), info.description.as_str()),
        ("1.2.3", "Sums of numbers")
    );
    assert_eq!(info.endpoints[0].subject, "nimbus.v1.rpc.sums.double");
    assert_eq!(info.endpoints[0].queue_group, "sums");

    // A plain client without any of our headers is served, too, and sees faults as the services API shows them.
    let good = ask(&Double::subject(), encode(&4_u32).unwrap().to_vec()).await;
    assert_eq!(decode::<u32>(&good.payload).unwrap(), 8);
    let bad = ask(&Double::subject(), encode(&0_u32).unwrap().to_vec()).await;
    let headers = bad.headers.unwrap();
    assert_eq!(headers.get(SERVICE_ERROR_CODE).unwrap().as_str(), "400");
    assert_eq!(
        headers.get("Nats-Service-Error").unwrap().as_str(),
        "zero is no number"
    );
    assert_eq!(
        decode::<Fault>(&bad.payload).unwrap().message,
        "zero\nis no number"
    );

    let subject = format!("$SRV.STATS.sums.{}", info.id);
    let stats: async_nats::service::Stats =
        serde_json::from_slice(&ask(&subject, vec![]).await.payload).unwrap();
    assert_eq!((stats.endpoints[0].requests, stats.endpoints[0].errors), (2, 1));
    assert_eq!(
        stats.endpoints[0].last_error.as_ref().unwrap().status,
        "op.invalid_input"
    );
}

#[tokio::test]
async fn bytes_of_another_version_are_a_fault_on_either_side() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Double, _, _>(|call| async move { Ok(call.request * 2) })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    for (what, outcome) in [
        (
            "leftovers",
            caller.call::<DoubleLonger>(&(1, 2)).await.map(|_| ()),
        ),
        ("too short", caller.call::<DoubleWrong>(&()).await.map(|_| ())),
        (
            "another reply",
            caller.call::<DoubleAnswer>(&200).await.map(|_| ()),
        ),
    ] {
        let fault = outcome.unwrap_err();
        assert!(fault.is(Code::BusSchemaMismatch), "{what}: {fault}");
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_service_lives_on() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Double, _, _>(|call| async move {
            assert_ne!(call.request, 13, "a secret cause");
            Ok(call.request * 2)
        })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    let fault = caller.call::<Double>(&13).await.unwrap_err();
    assert!(
        fault.is(Code::ServiceInternal) && !fault.message.contains("secret"),
        "{fault}"
    );
    assert_eq!(caller.call::<Double>(&4).await.unwrap(), 8);
}

#[tokio::test]
async fn the_deadline_ends_the_handler_and_tells_the_caller() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let dropped = Arc::new(Notify::new());
    struct OnDrop(Arc<Notify>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let guard = Arc::clone(&dropped);
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Fire, _, _>(move |_| {
            let guard = OnDrop(Arc::clone(&guard));
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    let fault = caller
        .call::<Fire>(&1)
        .timeout(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(fault.is(Code::ServiceTimeout), "{fault}");
    assert!(
        fault.message.contains("did not finish"),
        "the server's own answer should be heard: {fault}"
    );
    within(dropped.notified()).await;
}

#[tokio::test]
async fn work_whose_deadline_has_passed_is_dropped() {
    let world = World::start().await;
    // The service's clock is ahead by an hour, so everything that arrives is too late.
    let (clock, jump) = Clock::movable();
    let credential = world.authority.mint(&nimbus_bus::service_user("sums", &serves()));
    let options = nimbus_bus::ConnectOptions {
        url: world.nats.url(),
        name: "sums".into(),
        credential: Some(credential),
        ca_file: None,
        clock,
    };
    let bus = Bus::connect(options).await.unwrap();
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Fire, _, _>(move |call| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { Ok(call.request) }
        })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    assert_eq!(caller.call::<Fire>(&7).await.unwrap(), 7);
    jump.forward(Duration::from_secs(3600));
    let fault = caller.call::<Fire>(&8).await.unwrap_err();
    assert!(fault.is(Code::ServiceTimeout), "{fault}");
    assert_eq!(handled.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_inside_a_handler_does_not_outlive_the_handlers_caller() {
    let world = World::start().await;
    let grants = serves().calling::<Fire>();
    let bus = world.client("sums", &grants).await;
    let inner = bus.clone();
    let (told, mut tells) = mpsc::unbounded_channel();
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Pay, _, _>(move |call| {
            let inner = inner.clone();
            async move { inner.call::<Fire>(&call.request).await }
        })
        .method::<Fire, _, _>(move |call| {
            told.send(call.deadline).unwrap();
            async move { Ok(call.request) }
        })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    let before = Clock::system().now();
    caller
        .call::<Pay>(&1)
        .timeout(Duration::from_millis(400))
        .await
        .unwrap();
    let deadline = tells.recv().await.unwrap();
    assert!(
        deadline < before.after(Duration::from_millis(400)),
        "the inner call has 800 ms of its own"
    );
}

#[tokio::test]
async fn more_than_a_method_can_do_is_refused_at_once() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let gate = Arc::new(Semaphore::new(0));
    let (entered, mut enters) = mpsc::unbounded_channel();
    let held = Arc::clone(&gate);
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .concurrency(2)
        .method::<Pay, _, _>(move |call| {
            entered.send(()).unwrap();
            let held = Arc::clone(&held);
            async move {
                held.acquire().await.unwrap().forget();
                Ok(call.request)
            }
        })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    let first = tokio::spawn(caller.call::<Pay>(&1).into_future());
    let second = tokio::spawn(caller.call::<Pay>(&2).into_future());
    enters.recv().await.unwrap();
    enters.recv().await.unwrap();
    let fault = caller.call::<Pay>(&3).await.unwrap_err();
    assert!(fault.is(Code::RateOverloaded) && fault.retryable, "{fault}");
    gate.add_permits(2);
    assert_eq!(within(first).await.unwrap().unwrap(), 1);
    assert_eq!(within(second).await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn messages_too_large_are_refused_on_either_side() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Bytes, _, _>(|call| async move { Ok(vec![7; call.request as usize]) })
        .method::<Take, _, _>(|call| async move { Ok(u32::try_from(call.request.len()).unwrap()) })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    assert_eq!(caller.call::<Bytes>(&1000).await.unwrap().len(), 1000);
    for fault in [
        caller.call::<Bytes>(&5_000_000).await.map(|_| ()),
        caller.call::<Take>(&vec![0; 5_000_000]).await.map(|_| ()),
    ] {
        let fault = fault.unwrap_err();
        assert!(fault.is(Code::OpPayloadTooLarge), "{fault}");
    }
}

#[tokio::test]
async fn a_service_that_starts_late_is_only_slow() {
    let world = World::start().await;
    let caller = world.client("gateway", &calls()).await;
    let call = tokio::spawn(caller.call::<Double>(&4).into_future());
    let bus = world.client("sums", &serves()).await;
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Double, _, _>(|call| async move { Ok(call.request * 2) })
        .start()
        .await
        .unwrap();
    assert_eq!(within(call).await.unwrap().unwrap(), 8);
}

/// The handler remembers what it did per key, as a service does in its table.
async fn pays_once(
    bus: &Bus,
    gate: Arc<Semaphore>,
    arrived: mpsc::UnboundedSender<String>,
    done: Shared<HashMap<String, u32>>,
) -> nimbus_bus::Serving {
    bus.serve("sums", "1.0.0", "Sums")
        .method::<Pay, _, _>(move |call| {
            let key = call.key.clone().expect("the caller names a key").to_string();
            arrived.send(key.clone()).unwrap();
            let (gate, done) = (Arc::clone(&gate), Arc::clone(&done));
            async move {
                gate.acquire().await.unwrap().forget();
                let mut done = done.lock().unwrap();
                let next = u32::try_from(done.len()).unwrap() + 1;
                Ok(*done.entry(key).or_insert(next))
            }
        })
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_under_way_when_the_server_crashes_is_repeated_with_its_key() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (gate, done) = (
        Arc::new(Semaphore::new(0)),
        Shared::<HashMap<String, u32>>::default(),
    );
    let _serving = pays_once(&bus, Arc::clone(&gate), arrived, Arc::clone(&done)).await;
    let caller = world.client("gateway", &calls()).await;
    let call = tokio::spawn(caller.call::<Pay>(&5).key(Key::of("vm_1")).into_future());
    assert_eq!(arrivals.recv().await.unwrap(), "vm_1");
    // The answer that the first attempt gives now has nowhere to go.
    kill(world.nats.pid().unwrap());
    gate.add_permits(10);
    assert_eq!(
        within(arrivals.recv()).await.unwrap(),
        "vm_1",
        "the caller should ask again with the same key"
    );
    assert_eq!(within(call).await.unwrap().unwrap(), 1);
    assert_eq!(done.lock().unwrap().len(), 1, "the effect happened once");
}

#[tokio::test]
async fn a_request_that_must_not_be_repeated_is_not() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Fire, _, _>(move |call| {
            arrived.send(call.request).unwrap();
            std::future::pending()
        })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    let call = tokio::spawn(caller.call::<Fire>(&5).into_future());
    assert_eq!(arrivals.recv().await.unwrap(), 5);
    world.crash().await;
    let fault = within(call).await.unwrap().unwrap_err();
    assert!(fault.is(Code::ServiceTimeout), "{fault}");
    assert!(arrivals.try_recv().is_err(), "it was sent twice");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_after_half_the_time() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let first = Arc::new(AtomicU32::new(0));
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Double, _, _>(move |call| {
            let nth = first.fetch_add(1, Ordering::SeqCst);
            async move {
                // The first attempt is never answered in time, as by a replica that was cut off.
                if nth == 0 {
                    std::future::pending::<()>().await
                }
                Ok(call.request * 2)
            }
        })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    assert_eq!(
        within(
            caller
                .call::<Double>(&4)
                .timeout(Duration::from_millis(500))
                .into_future()
        )
        .await
        .unwrap(),
        8
    );
}

#[tokio::test]
async fn stopping_finishes_what_has_begun() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let gate = Arc::new(Semaphore::new(0));
    let (entered, mut enters) = mpsc::unbounded_channel();
    let held = Arc::clone(&gate);
    let serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Fire, _, _>(move |call| {
            entered.send(()).unwrap();
            let held = Arc::clone(&held);
            async move {
                held.acquire().await.unwrap().forget();
                Ok(call.request)
            }
        })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    let call = tokio::spawn(caller.call::<Fire>(&9).into_future());
    enters.recv().await.unwrap();
    let stop = tokio::spawn(serving.stop());
    gate.add_permits(1);
    assert_eq!(within(call).await.unwrap().unwrap(), 9);
    within(stop).await.unwrap();
    let plain = world.plain().await;
    let mut answers = plain.subscribe("answers").await.unwrap();
    plain
        .publish_with_reply("$SRV.PING.sums", "answers", "".into())
        .await
        .unwrap();
    let status = within(answers.next()).await.unwrap().status;
    assert_eq!(
        status,
        Some(async_nats::StatusCode::NO_RESPONDERS),
        "discovery has ended, too"
    );
}

struct Names;
impl Verify for Names {
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Fault>> {
        Box::pin(async move {
            let admin = match token {
                "admin" => true,
                "user" => false,
                _ => return Err(Fault::new(Code::AuthUnauthorized, "the token is not valid")),
            };
            Ok(Identity {
                user: UserId::from_uuid(uuid::Uuid::nil()),
                tenant: TenantId::from_uuid(uuid::Uuid::nil()),
                admin,
                scopes: vec![Scope::MachinesRead, Scope::Admin],
                session: None,
                token: None,
                key: None,
                machine: None,
            })
        })
    }
}

#[tokio::test]
async fn who_calls_is_known_before_the_handler_runs() {
    let world = World::start().await;
    let bus = world.client("sums", &serves()).await;
    let without = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Mine, _, _>(|_| async { Ok(String::new()) })
        .start()
        .await;
    assert!(without.is_err_and(|error| error.to_string().contains("no verifier")));
    let bus = bus.with_verifier(Arc::new(Names));
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Mine, _, _>(|call| async move {
            call.require(Scope::MachinesRead)?;
            if call.request == 1 {
                call.require(Scope::MachinesWrite)?;
            }
            Ok(call.caller()?.token.reveal().to_owned())
        })
        .method::<Admin, _, _>(|call| async move { Ok(call.request) })
        .start()
        .await
        .unwrap();
    let caller = world.client("gateway", &calls()).await;
    let token = |text: &str| AccessToken::new(text.to_owned());
    assert_eq!(
        caller.call::<Mine>(&0).with_token(&token("user")).await.unwrap(),
        "user"
    );
    assert_eq!(
        caller
            .call::<Admin>(&3)
            .with_token(&token("admin"))
            .await
            .unwrap(),
        3
    );
    for (fault, code) in [
        (caller.call::<Mine>(&0).await.unwrap_err(), Code::AuthUnauthorized),
        (
            caller
                .call::<Mine>(&0)
                .with_token(&token("forged"))
                .await
                .unwrap_err(),
            Code::AuthUnauthorized,
        ),
        (
            caller
                .call::<Mine>(&1)
                .with_token(&token("user"))
                .await
                .unwrap_err(),
            Code::AuthPermissionDenied,
        ),
        (
            caller
                .call::<Admin>(&3)
                .with_token(&token("user"))
                .await
                .unwrap_err(),
            Code::AuthPermissionDenied,
        ),
        (
            caller.call::<Admin>(&3).await.unwrap_err(),
            Code::AuthUnauthorized,
        ),
    ] {
        assert!(fault.is(code), "{fault} instead of {code}");
    }
}
