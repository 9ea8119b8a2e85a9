//! The manners of PVE's web server, seen without a client.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::*;

const TOKEN: &str = "Authorization: PVEAPIToken=root@pam!nimbus=0123456789abcdef\r\n";

/// Sends bytes and reads until the connection is closed, or as much as one answer with a length.
async fn raw(sim: &nimbus_pve_sim::RunningSim, request: &str) -> String {
    let mut stream = TcpStream::connect(sim.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut chunk))
            .await
            .unwrap()
            .unwrap_or(0);
        answer.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let length = text
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|t| t.split("\r\n").next()?.parse::<usize>().ok());
        let whole = text
            .split_once("\r\n\r\n")
            .zip(length)
            .is_some_and(|((_, body), length)| body.len() >= length);
        if read == 0 || (whole && !text.contains("connection: close")) {
            return text;
        }
    }
}

fn get(path: &str, headers: &str) -> String {
    format!("GET /api2/json{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn refusals_on_the_wire() {
    let (sim, _) = start(immediate()).await;
    let answer = raw(&sim, &get("/nodes/pve1/qemu/4711/config", TOKEN)).await;
    let sentence = "Configuration file 'nodes/pve1/qemu-server/4711.conf' does not exist";
    assert!(
        answer.starts_with(&format!("HTTP/1.1 500 {sentence}\r\n")),
        "{answer}"
    );
    assert!(answer.contains("connection: close"));
    assert_eq!(body(&answer)["message"], format!("{sentence}\n"));
    assert_eq!(body(&answer)["data"], Value::Null);

    let answer = raw(&sim, &get("/nowhere", TOKEN)).await;
    assert!(
        answer.starts_with("HTTP/1.1 501 Method 'GET /nowhere' not implemented\r\n"),
        "{answer}"
    );

    for (headers, phrase) in [
        ("", "No ticket"),
        (
            "Authorization: PVEAPIToken=root@pam!nimbus=x\r\n",
            "Authentication failed!",
        ),
    ] {
        let answer = raw(&sim, &get("/version", headers)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 401 {phrase}\r\n")),
            "{answer}"
        );
        assert!(
            answer.ends_with("\r\n\r\n") && !answer.contains("content-type"),
            "{answer}"
        );
    }
    let answer = raw(&sim, &get("/cluster/nextid?vmid=99", TOKEN)).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 Parameter verification failed.\r\n"),
        "{answer}"
    );
    assert_eq!(
        body(&answer)["errors"]["vmid"],
        "value must have a minimum value of 100"
    );
}

#[tokio::test]
async fn bodies_where_there_must_be_none() {
    let (sim, _) = start(immediate()).await;
    let request = format!(
        "DELETE /api2/json/nodes/pve1/qemu/100 HTTP/1.1\r\nHost: x\r\n{TOKEN}Content-Length: 2\r\n\r\n{{}}"
    );
    let answer = raw(&sim, &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 501 Unexpected content for method 'DELETE'\r\n"),
        "{answer}"
    );
    let request = format!(
        "POST /api2/json/nodes/pve1/qemu/100/status/start HTTP/1.1\r\nHost: x\r\n{TOKEN}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    assert!(raw(&sim, &request).await.starts_with("HTTP/1.1 501 "));
    let request = format!(
        "POST /api2/json/nodes/pve1/qemu HTTP/1.1\r\nHost: x\r\n{TOKEN}Content-Length: 524289\r\n\r\n"
    );
    assert!(
        raw(&sim, &request)
            .await
            .starts_with("HTTP/1.1 501 for data too large")
    );
}

#[tokio::test]
async fn too_many_headers() {
    let (sim, _) = start(immediate()).await;
    let many: String = (0..80).map(|n| format!("X-{n}: y\r\n")).collect();
    let answer = raw(&sim, &get("/version", &format!("{TOKEN}{many}"))).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let long = format!("X-Long: {}\r\n", "y".repeat(20_000));
    let answer = raw(&sim, &get("/version", &format!("{TOKEN}{long}"))).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn forms_and_json() {
    let (sim, client) = start(immediate()).await;
    let vm = cloned(&client, 100).await;
    let put = |kind: &str, body: &str| {
        format!(
            "PUT /api2/json/nodes/pve1/qemu/100/config HTTP/1.1\r\nHost: x\r\n{TOKEN}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = raw(&sim, &put("application/json", r#"{"cores": 3, "onboot": true}"#)).await;
    assert_eq!(body(&answer)["data"], Value::Null);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(
        client.vm_config("pve1", vm).await.unwrap().get("cores"),
        Some("3")
    );
    // An unencoded semicolon splits the form.
    let answer = raw(&sim, &put("application/x-www-form-urlencoded", "tags=a;b")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(client.vm_config("pve1", vm).await.unwrap().tags(), ["a"]);
}

#[tokio::test]
async fn a_login() {
    let (sim, _) = start(immediate()).await;
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let url = |path: &str| format!("{}/api2/json{path}", sim.url);
    let form = |password: &str| {
        http.post(url("/access/ticket"))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("username=root%40pam&password={password}"))
    };
    assert_eq!(form("wrong").send().await.unwrap().status(), 401);
    let answer: Value =
        serde_json::from_str(&form("hunter2").send().await.unwrap().text().await.unwrap()).unwrap();
    let data = &answer["data"];
    let cookie = format!("PVEAuthCookie={}", data["ticket"].as_str().unwrap());
    let read = http
        .get(url("/nodes"))
        .header("Cookie", &cookie)
        .send()
        .await
        .unwrap();
    assert!(read.status().is_success());
    let stop = || {
        http.post(url("/nodes/pve1/qemu/110/status/stop"))
            .header("Cookie", &cookie)
    };
    assert_eq!(stop().send().await.unwrap().status(), 401, "no CSRF token");
    let csrf = data["CSRFPreventionToken"].as_str().unwrap();
    let answer = stop()
        .header("CSRFPreventionToken", csrf)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(answer.contains("qmstop:110:root@pam:"), "{answer}");
}

#[tokio::test]
async fn a_connection_ends_after_a_hundred_requests() {
    let (sim, _) = start(immediate()).await;
    let mut stream = TcpStream::connect(sim.addr).await.unwrap();
    for _ in 0..100 {
        stream.write_all(get("/version", TOKEN).as_bytes()).await.unwrap();
    }
    let mut answers = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answers))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 100);
    assert_eq!(answers.matches("connection: close").count(), 1);
}
