//! Sessions, files, previews.

use http::Method;
use nimbus_tests::{Api, Lab, Tenant, eventually};
use serde_json::json;
use std::time::Duration;

const SUITE: &str = "workloads";

#[tokio::test]
async fn files_go_in_and_out_and_nowhere_else() {
    let lab = Lab::start(SUITE, "files").await;
    let tenant = lab.tenant("demo").await;
    let id = tenant.idle().await;
    let open = json!({"tenantId": "demo", "target": {"sandbox": {"id": id}}, "channels": ["files"], "requestedTtlMs": 60_000});
    let session = tenant.api.post("/api/sessions", &open).await.is(201).body;
    let name = session["metadata"]["id"].as_str().unwrap().to_owned();
    let files = format!("/api/sessions/{name}/channels/files");

    // Three megabytes: many chunks, and more than a window.
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let put = tenant
        .api
        .request(
            Method::PUT,
            &format!("{files}/content?path=/tmp/deep/file&createParents=1"),
        )
        .body(content.clone());
    let _ = Api::send(put).await.is(201);
    let sum = tenant.prints(&id, &["wc", "-c", "/tmp/deep/file"]).await;
    assert_eq!(sum, "3000000 /tmp/deep/file\n");
    let get = tenant
        .api
        .request(Method::GET, &format!("{files}/content?path=/tmp/deep/file"));
    let back = get.send().await.unwrap();
    assert_eq!(back.status(), 200);
    assert_eq!(back.bytes().await.unwrap(), content);
    let part = tenant
        .api
        .request(Method::GET, &format!("{files}/content?path=/tmp/deep/file"))
        .header("Range", "bytes=1000-1009");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), content[1000..1010]);
    let listed = tenant
        .api
        .get(&format!("{files}/list?path=/tmp/deep"))
        .await
        .is(200)
        .body;
    assert_eq!(
        (&listed["entries"][0]["name"], &listed["entries"][0]["size"]),
        (&json!("file"), &json!(3_000_000))
    );

    // A link that leads out of the sandbox leads to its own root.
    let _ = tenant
        .prints(&id, &["ln", "-s", "/../../../../etc/hostname", "/tmp/link"])
        .await;
    let through = tenant.api.get(&format!("{files}/content?path=/tmp/link")).await;
    let inside = tenant.prints(&id, &["cat", "/etc/hostname"]).await;
    assert_eq!(through.text, inside);
    let special = tenant
        .api
        .get(&format!("{files}/content?path=/dev/zero"))
        .await
        .is(409);
    assert_eq!(special.code(), "op.conflict");
    assert_eq!(
        tenant
            .api
            .get(&format!("{files}/stat?path=/nothing"))
            .await
            .is(404)
            .code(),
        "op.not_found"
    );

    let closed = tenant
        .api
        .post(&format!("/api/sessions/{name}/close"), &json!({"reason": "done"}))
        .await
        .is(200)
        .body;
    assert_eq!(
        (
            &closed["status"]["lifecycleState"],
            &closed["status"]["closeReason"]
        ),
        (&json!("closed"), &json!("done"))
    );
    let _ = tenant.api.get(&format!("{files}/list?path=/tmp")).await.is(409);
    lab.end().await;
}

#[tokio::test]
async fn a_lease_ends_with_its_time_and_with_its_target() {
    let lab = Lab::start(SUITE, "leases").await;
    let tenant = lab.tenant("demo").await;
    let id = tenant.idle().await;
    let open = |ttl: u64| json!({"tenantId": "demo", "target": {"sandbox": {"id": id}}, "channels": ["stdio"], "requestedTtlMs": ttl});
    let make = async |body: serde_json::Value| {
        let made = tenant.api.post("/api/sessions", &body).await.is(201).body;
        made["metadata"]["id"].as_str().unwrap().to_owned()
    };
    let state = async |name: &str| {
        let body = tenant
            .api
            .get(&format!("/api/sessions/{name}"))
            .await
            .is(200)
            .body;
        (
            body["status"]["lifecycleState"].clone(),
            body["status"]["closeReason"].clone(),
        )
    };
    let (short, long) = (make(open(1000)).await, make(open(600_000)).await);
    let expired = eventually(
        "the short one has expired",
        Duration::from_secs(20),
        async || state(&short).await,
        |(state, _)| state == "expired",
    )
    .await;
    assert_eq!(expired.1, "expired");
    let _ = tenant
        .api
        .touch(&tenant.path(&format!("/sandboxes/{id}/stop")))
        .await
        .is(200);
    let closed = eventually(
        "the other one ends with the sandbox",
        Duration::from_secs(30),
        async || state(&long).await,
        |(state, _)| state == "closed",
    )
    .await;
    assert_eq!(closed.1, "target_stopped");
    lab.end().await;
}

#[tokio::test]
async fn a_port_inside_is_shown_through_the_gateway() {
    let lab = Lab::start(SUITE, "preview").await;
    let tenant = lab.tenant("demo").await;
    let serve =
        "mkdir -p /tmp/www; echo shown > /tmp/www/index.html; exec httpd -f -p 127.0.0.1:8000 -h /tmp/www";
    let id = tenant.ready(&Tenant::body(&["sh", "-c", serve])).await;
    let path = tenant.path(&format!("/sandboxes/{id}/proxy/8000/index.html"));
    let shown = eventually(
        "the server inside answers",
        Duration::from_secs(20),
        async || tenant.api.get(&path).await,
        |answer| answer.status == 200,
    )
    .await;
    assert_eq!(shown.text, "shown\n");
    let nobody = Api::anonymous(lab.operator.base());
    assert_eq!(nobody.get(&path).await.is(401).code(), "auth.unauthorized");
    let link = tenant
        .api
        .post(
            &tenant.path(&format!("/sandboxes/{id}/preview-links")),
            &json!({"port": 8000, "ttlMs": 60_000}),
        )
        .await
        .is(201)
        .body;
    let url = link["url"].as_str().unwrap();
    let url = url.strip_prefix(lab.operator.base()).unwrap_or(url);
    let shown = nobody
        .get(&format!("{}/index.html", url.trim_end_matches('/')))
        .await;
    assert_eq!((shown.status, shown.text.as_str()), (200, "shown\n"));
    let mut forged = url.to_owned();
    forged.truncate(url.trim_end_matches('/').len() - 2);
    let _ = nobody.get(&format!("{forged}AA/index.html")).await.is(401);
    lab.end().await;
}
