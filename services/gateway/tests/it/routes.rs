//! Every route: who may, and what everybody gets.

use std::collections::BTreeMap;

use nimbus_errors::Code;
use nimbus_telemetry::{LogFormat, Telemetry, TelemetryConfig};
use reqwest::Method;
use serde_json::{Value, json};

use crate::peers::Person::{Ada, Bob, Eve};
use crate::world::{World, answer, within};

/// Routes that need no credential.
const PUBLIC: [&str; 23] = [
    "auth_providers",
    "capabilities",
    "docs",
    "docs_style",
    "errors",
    "gpu_installer",
    "gpu_script",
    "health",
    "health_api",
    "join_host",
    "llms",
    "llms_full",
    "login",
    "logout",
    "metrics",
    "openapi",
    "openapi_root",
    "page",
    "ready",
    "register",
    "register_gpu_box",
    "setup_admin",
    "setup_status",
];
/// Whether the route asks for no credential.
fn is_public(id: &str) -> bool {
    // Links to ports carry theirs in the address.
    PUBLIC.contains(&id) || id.starts_with("previews.open")
}

/// The address of a route, of things that the small services know.
fn fill(path: &str, id: &str) -> String {
    [
        ("{id}", id),
        ("{tenant}", "demo"),
        ("{name}", "worker"),
        ("{command}", "main"),
        ("{port}", "8080"),
        ("{token}", "forged"),
        ("{path}", "x"),
        ("{page}", "sandboxes.md"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

/// Whether the route is one of tenants, which answer what is not the caller's in another way.
fn is_of_tenants(path: &str) -> bool {
    ["/api/tenants", "/api/sessions", "/p/"]
        .iter()
        .any(|root| path.starts_with(root))
}

/// Routes that everybody signed in may use, on what is theirs.
const OWN: [&str; 18] = [
    "account",
    "gpu_inference",
    "gpu_usage",
    "list_gpu_jobs",
    "list_gpu_workers",
    "catalog",
    "change_password",
    "create_token",
    "create_vm",
    "events",
    "list_operations",
    "list_sessions",
    "list_tokens",
    "list_vms",
    "me",
    "placement",
    "operation_trace",
    "claim_private_key",
];

/// Routes of single things that only administrators may use.
const FOR_ADMINS: [&str; 5] = [
    "change_gpu_worker",
    "get_trace",
    "prioritize_gpu_job",
    "rotate_gpu_worker",
    "unpair_gpu_worker",
];

struct Route {
    id: String,
    method: Method,
    path: String,
}

fn routes() -> Vec<Route> {
    let document = serde_json::to_value(nimbus_gateway::document()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse() else {
                continue;
            };
            let Some(id) = operation["operationId"].as_str() else {
                continue;
            };
            routes.push(Route {
                id: id.to_owned(),
                method,
                path: path.clone(),
            });
        }
    }
    assert!(routes.len() > 40, "{}", routes.len());
    routes
}

fn body(id: &str) -> Option<Value> {
    Some(match id {
        "register" | "setup_admin" => {
            json!({"name": "Zoe", "email": "zoe@example.org", "password": "correct horse"})
        }
        "login" => json!({"email": "ada@example.org", "password": "correct horse"}),
        "change_password" => json!({"current_password": "correct horse", "new_password": "battery staple"}),
        "create_token" => json!({"name": "laptop"}),
        "create_vm" => {
            json!({"hostname": "taken", "tier": "small", "os_template": "debian-12", "generate_key": true})
        }
        _ => return None,
    })
}

fn with_query(id: &str, path: &str) -> String {
    if id == "placement" {
        format!("{path}?tier=small&os_template=debian-12")
    } else {
        path.to_owned()
    }
}

#[tokio::test]
async fn without_a_credential_only_public_routes_answer() {
    let world = World::start().await;
    let machine = world.books.own(Bob, "web-1");
    for route in routes() {
        let path = with_query(&route.id, &fill(&route.path, &machine.id.to_string()));
        let mut request = world.plain(route.method.clone(), &path);
        if let Some(body) = body(&route.id) {
            request = request.json(&body);
        }
        let status = request.send().await.unwrap().status().as_u16();
        let expected_public = is_public(&route.id);
        assert_eq!(
            status != 401,
            expected_public,
            "{} {path} answered {status}",
            route.method
        );
    }
}

#[tokio::test]
async fn a_stranger_gets_nothing_of_others_anywhere() {
    let world = World::start().await;
    let machine = world.books.own(Bob, "bobs-own-machine");
    let operation = world
        .books
        .order(nimbus_proto::machine::OperationKind::Start, &machine, &[]);
    let job = world.plane.own(world.books.identity(Bob).user, None, |job| {
        job.image = "bobs-own-machine".to_owned();
    });
    let mut seen: BTreeMap<u16, u32> = BTreeMap::new();
    for route in routes().into_iter().filter(|route| !is_public(&route.id)) {
        let resource = if route.path.contains("/gpu/jobs/") {
            job.to_string()
        } else if route.path.contains("/operations/") {
            operation.id.to_string()
        } else if route.path.contains("/tokens/") {
            world.books.identity(Bob).token.unwrap().to_string()
        } else if route.path.contains("/sessions/") {
            world.books.identity(Bob).session.unwrap().to_string()
        } else {
            machine.id.to_string()
        };
        let path = with_query(&route.id, &fill(&route.path, &resource));
        let mut request = world.by(Eve, route.method.clone(), &path);
        if let Some(body) = body(&route.id) {
            request = request.json(&body);
        } else if is_of_tenants(&route.path) && route.method != Method::GET {
            request = request.json(&json!({}));
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        *seen.entry(status).or_default() += 1;
        if route.id == "events" {
            assert_eq!(status, 200);
            continue;
        }
        let text = response.text().await.unwrap();
        let expected: &[u16] = if matches!(route.id.as_str(), "tenants.list" | "hosts.list") {
            &[200, 403]
        } else if is_of_tenants(&route.path) {
            // Incomplete requests are refused before anybody is asked whose it is.
            &[400, 403, 404]
        } else if route.path.contains("/gpu/worker/") {
            // Workers have credentials of their own, and are asked for them after what they say.
            &[400, 401, 415]
        } else if route.id.starts_with("openai.") {
            &[404, 503]
        } else if route.id == "submit_gpu_job" {
            &[415]
        } else if route.path.contains("{id}") && !FOR_ADMINS.contains(&route.id.as_str()) {
            &[404]
        } else if OWN.contains(&route.id.as_str()) {
            &[200, 201, 409]
        } else {
            &[403]
        };
        assert!(
            expected.contains(&status),
            "{} {path} answered {status}: {text}",
            route.method
        );
        assert!(
            !text.contains("bobs-own-machine"),
            "{} {path} shows another's: {text}",
            route.method
        );
    }
    assert!(seen[&404] >= 9 && seen[&403] >= 8, "{seen:?}");
}

#[tokio::test]
async fn administrators_see_the_cluster_as_the_portal_expects_it() {
    let world = World::start().await;
    let (status, nodes) = world
        .get(Ada, "/api/nodes?include_scores=true&preview_tier=small")
        .await;
    assert_eq!(status, 200);
    let node = &nodes["data"][0];
    assert_eq!(
        (node["status"].as_str(), node["preview_tier"].as_str()),
        (Some("online"), Some("small")),
        "{node}"
    );
    assert_eq!(node["score"]["reasons"], json!(["no_template"]));
    assert_eq!(node["score"]["components"]["total"], 0.5);
    assert_eq!(node["next_for"], json!(["small"]));
    let (_, addresses) = world.get(Ada, "/api/ips").await;
    assert_eq!(addresses["data"][0]["source"], "local");
    let (_, guests) = world.get(Ada, "/api/cluster/vms").await;
    assert_eq!(
        (
            guests["data"][0]["nimbus_managed"].as_bool(),
            guests["data"][0]["username"].as_str()
        ),
        (Some(true), Some("debian"))
    );
    let (_, stats) = world.get(Ada, "/api/cluster/stats").await;
    assert_eq!(stats["data"], json!({"storage_used": 1, "storage_total": 2}));
    for path in ["/api/ips/reconcile", "/api/vms/reconcile"] {
        let (status, report) = answer(world.by(Ada, Method::POST, path)).await;
        assert_eq!(status, 200, "{report}");
        assert!(report["data"]["snapshot_at"].is_string(), "{report}");
    }
    // The names of nodes are for administrators.
    let placement = "/api/placement?tier=small&os_template=debian-12";
    assert_eq!(
        world.get(Ada, placement).await.1["data"]["rejected"][0]["node"],
        "pve2"
    );
    assert_eq!(
        world.get(Bob, placement).await.1["data"]["rejected"],
        json!([{"node": null, "reasons": ["offline"]}])
    );
    let (_, catalog) = world.get(Bob, "/api/catalog").await;
    assert_eq!(catalog["data"]["tiers"][0]["mem_mib"], 1024);
    assert_eq!(catalog["data"]["quota"], json!({"used": 1, "limit": 5}));
}

#[tokio::test]
async fn health_readiness_and_metrics_tell_what_is_there() {
    let world = World::start().await;
    let (status, health) = answer(world.plain(Method::GET, "/health")).await;
    assert_eq!(
        (status.as_u16(), health["ok"].as_bool(), health["status"].as_str()),
        (200, Some(true), Some("setup")),
        "{health}"
    );
    assert_eq!(health["proxmox_ok"], false);
    // What an installation may do without counts once it has answered; asked anew each second.
    let every = ["auth", "bus", "gpu", "ippool", "provisioner", "workloads"].map(|name| (name, true));
    let every = json!(BTreeMap::from(every));
    let (status, _) = answer(world.plain(Method::GET, "/ready")).await;
    assert_eq!(status, 200);
    within(async {
        loop {
            let (status, ready) = answer(world.plain(Method::GET, "/ready")).await;
            assert_eq!(status, 200, "{ready}");
            if ready["services"] == every {
                break;
            }
        }
    })
    .await;
    let (_, setup) = answer(world.plain(Method::GET, "/api/setup/status")).await;
    assert_eq!(setup["data"]["configured"], false);
    assert_eq!(setup["data"]["missing"][0]["setting"], "PROXMOX_HOST");

    world.get(Ada, "/api/me").await;
    let metrics = world
        .plain(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in [
        "nimbus_http_request_duration_seconds_count{method=\"GET\",route=\"/api/me\",status=\"200\"} 1",
        "nimbus_rpc_call_duration_seconds_count{method=\"auth.me\",outcome=\"ok\"} 1",
        "nimbus_pool_addresses{state=\"free\"} 97",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn without_any_service_the_port_still_answers_and_says_what_is_missing() {
    let world = World::with(crate::world::config(), false).await;
    let (status, health) = answer(world.plain(Method::GET, "/health")).await;
    assert_eq!(
        (
            status.as_u16(),
            health["ok"].as_bool(),
            health["proxmox_ok"].as_bool()
        ),
        (200, Some(true), Some(false))
    );
    let (status, ready) = answer(world.plain(Method::GET, "/ready")).await;
    assert_eq!(
        (
            status.as_u16(),
            ready["ready"].as_bool(),
            ready["services"]["bus"].as_bool()
        ),
        (503, Some(false), Some(true))
    );
    let page = world.plain(Method::GET, "/machines").send().await.unwrap();
    assert_eq!(page.status(), 200);
    let refused = crate::world::refusal(world.by(Ada, Method::GET, "/api/vms")).await;
    assert_eq!(refused, (503, "service.unavailable".to_owned()));
}

#[tokio::test]
async fn the_catalogue_and_the_document_are_served_as_they_are_in_the_code() {
    let world = World::start().await;
    let (_, errors) = answer(world.plain(Method::GET, "/api/errors")).await;
    let errors = errors["data"]["errors"].as_array().unwrap().clone();
    assert_eq!(errors.len(), Code::all().count());
    for (served, code) in errors.iter().zip(Code::all()) {
        let entry = code.entry();
        assert_eq!(served["code"], entry.code);
        assert_eq!(served["http"], entry.http_status);
        assert_eq!(served["retryable"], entry.retryable);
        assert_eq!(served["remediation"]["message"], entry.remedy);
    }
    let (_, document) = answer(world.plain(Method::GET, "/api/openapi.json")).await;
    assert_eq!(
        document,
        serde_json::to_value(nimbus_gateway::document()).unwrap()
    );
    let page = world.plain(Method::GET, "/api/docs").send().await.unwrap();
    assert!(
        page.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    assert!(page.text().await.unwrap().contains("/api/vms/{id}/reboot"));
}

#[tokio::test]
async fn a_request_is_one_trace_across_the_bus_and_can_be_looked_at() {
    let telling = TelemetryConfig {
        format: LogFormat::Json,
        filter: "off".into(),
        otlp_endpoint: None,
        service_name: "nimbus".into(),
        instance: "test".into(),
    };
    let (dispatch, guard) = Telemetry::build(&telling, std::io::sink, false).unwrap();
    // With a single subscriber, `tracing` lets whichever thread comes first decide whether a callsite is
    // of interest, and the threads of other tests have none. A second one makes it ask all.
    let _second = Telemetry::build(&telling, std::io::sink, false).unwrap();
    // The test's runtime has one thread, so that this reaches every task of it.
    let _default = tracing::dispatcher::set_default(&dispatch);
    let world = Box::pin(World::traced(guard.traces())).await;
    let machine = world.books.own(Bob, "web-1");
    assert_eq!(world.get(Bob, &format!("/api/vms/{}", machine.id)).await.0, 200);

    let (status, list) = world.get(Ada, "/api/traces").await;
    assert_eq!(status, 200);
    let rows = list["data"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["root"] == "GET /api/vms/{id}")
        .unwrap_or_else(|| panic!("{list}"));
    assert_eq!(
        (row["service"].as_str(), row["outcome"].as_str()),
        (Some("gateway"), Some("ok")),
        "{row}"
    );
    let (_, trace) = world
        .get(Ada, &format!("/api/traces/{}", row["trace_id"].as_str().unwrap()))
        .await;
    let spans = trace["data"]["spans"].as_array().unwrap();
    let find = |name: &str, kind: &str| {
        spans
            .iter()
            .find(|span| span["name"] == name && span["kind"] == kind)
            .unwrap_or_else(|| panic!("{name} {kind}: {trace}"))
    };
    let root = find("GET /api/vms/{id}", "server");
    let asked = find("provisioner.get", "client");
    let answered = find("provisioner.get", "server");
    assert_eq!(
        (&asked["parent_id"], &answered["parent_id"]),
        (&root["span_id"], &asked["span_id"]),
        "{trace}"
    );
    assert_eq!(
        (asked["service"].as_str(), answered["service"].as_str()),
        (Some("gateway"), Some("provisioner")),
        "{trace}"
    );
    assert_eq!(root["start_us"], 0);

    // An operation shows the trace that it names, to its owner.
    let mut operation = world
        .books
        .order(nimbus_proto::machine::OperationKind::Start, &machine, &[]);
    let path = format!("/api/operations/{}/trace", operation.id);
    assert_eq!(world.get(Bob, &path).await.0, 404, "none was recorded");
    operation.trace_id = Some(row["trace_id"].as_str().unwrap().to_owned());
    world.books.put(operation);
    let (status, same) = world.get(Bob, &path).await;
    assert_eq!(
        (status.as_u16(), &same["data"]["trace_id"]),
        (200, &row["trace_id"])
    );
    assert_eq!(world.get(Ada, &path).await.0, 404);
}
