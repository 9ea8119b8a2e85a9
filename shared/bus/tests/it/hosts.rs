//! Methods that the agent of one host answers.

use nimbus_bus::{BusError, Grants, Method};
use nimbus_errors::Code;
use nimbus_model::Hostname;

use crate::world::*;

fn host(name: &str) -> Hostname {
    name.parse().unwrap()
}

#[tokio::test]
async fn the_named_host_answers_and_no_other() {
    let world = World::start().await;
    let mut serving = Vec::new();
    for name in ["alpha", "beta"] {
        let grants = Grants::default().serving_host(&host(name));
        let agent = world.client(&format!("agent-{name}"), &grants).await;
        let serve = agent
            .serve_host(&host(name), "1.0.0", "Runs sandboxes")
            .method::<Launch, _, _>(move |call| async move { Ok(format!("{name} runs {}", call.request)) });
        serving.push(serve.start().await.unwrap());
    }
    let workloads = world
        .client("workloads", &Grants::default().calling::<Launch>())
        .await;
    for name in ["alpha", "beta"] {
        let reply = workloads.call::<Launch>(&7).at(&host(name)).await.unwrap();
        assert_eq!(reply, format!("{name} runs 7"));
    }
    let absent = workloads
        .call::<Launch>(&7)
        .at(&host("gamma"))
        .timeout(std::time::Duration::from_secs(1))
        .await
        .unwrap_err();
    assert!(absent.is(Code::ServiceUnavailable), "{absent}");
    assert!(absent.message.contains("gamma"), "{absent}");
    let nowhere = workloads.call::<Launch>(&7).await.unwrap_err();
    assert!(nowhere.message.contains("names none"), "{nowhere}");
}

#[tokio::test]
async fn an_agent_answers_for_its_own_host_only() {
    let world = World::start().await;
    let grants = Grants::default().serving_host(&host("alpha"));
    let agent = world.client("agent-alpha", &grants).await;
    let refused = agent
        .serve_host(&host("beta"), "1.0.0", "Not beta")
        .method::<Launch, _, _>(|_| async { Ok(String::new()) })
        .start()
        .await;
    assert!(
        matches!(refused, Err(BusError::Permission { subject, .. }) if subject == Launch::subject_at(&host("beta")))
    );
    // Nor may it call one.
    let fault = agent.call::<Launch>(&1).at(&host("alpha")).await.unwrap_err();
    assert!(fault.is(Code::BusPermission), "{fault}");
}

#[tokio::test]
async fn a_method_of_the_wrong_place_is_not_served() {
    let world = World::start().await;
    let bus = world.root("both").await;
    let agent = bus.serve_host(&host("alpha"), "1.0.0", "Runs sandboxes");
    let wrong = agent.method::<Double, _, _>(|call| async move { Ok(call.request) });
    assert!(matches!(wrong.start().await, Err(BusError::Invalid { .. })));
    let service = bus.serve("sums", "1.0.0", "Sums");
    let wrong = service.method::<Launch, _, _>(|_| async { Ok(String::new()) });
    assert!(matches!(wrong.start().await, Err(BusError::Invalid { .. })));
}
