//! What nobody should send: throttling, limits, absurd values, wrong types.

use http::Method;
use nimbus_tests::api::{PASSWORD, machine};
use nimbus_tests::{Answer, Api, Opening};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends bytes and reads until the server closes.
async fn raw(base: &str, bytes: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(base.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    // The server may refuse, and close, before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = nimbus_tests::wait::within("an answer", std::time::Duration::from_secs(20), read).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A refusal: a client's error in the envelope, with a code of the catalogue.
#[track_caller]
fn refused(what: &str, answer: &Answer) {
    assert!(
        (400..500).contains(&answer.status),
        "{what}: status {}: {}",
        answer.status,
        answer.text
    );
    assert_eq!(answer.body["success"], false, "{what}: {}", answer.text);
    for key in ["code", "message", "requestId", "timestamp", "severity"] {
        assert!(
            answer.body["fault"][key].is_string(),
            "{what}: no {key} in {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn guessing_passwords_gets_slow() {
    let world = Opening::of("input", "guessing_passwords").start().await;
    let nobody = Api::anonymous(&world.server.url());
    let _ = world.admin.member("bob").await;
    for email in ["nobody@example.org", "bob@example.org"] {
        let wrong = json!({"email": email, "password": "guess"});
        let (mut guesses, mut wait) = (0, 0);
        // Until a wait is long enough to be sure to hit it below.
        while wait < 4 {
            let answer = nobody.post("/api/auth/login", &wrong).await;
            if answer.status == 429 {
                assert_eq!(answer.code(), "rate.limited");
                assert_eq!(answer.body["fault"]["retryable"], true);
                let longer = answer.headers["retry-after"]
                    .to_str()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap();
                assert!((1..=60).contains(&longer), "{longer}");
                wait = longer;
                if wait < 4 {
                    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
                }
            } else {
                assert_eq!(answer.is(401).body["error"], "Invalid email or password");
                guesses += 1;
                assert!(guesses < 30, "{email} can be guessed at without end");
            }
        }
        // Ten cost nothing, then each wait allows one more; the same for accounts that do not exist.
        assert_eq!(guesses, 12, "{email}");
    }
    // Also with the right password, and not for others.
    let right = json!({"email": "bob@example.org", "password": PASSWORD});
    assert_eq!(nobody.post("/api/auth/login", &right).await.status, 429);
    let _ = nobody.login("ada@example.org", PASSWORD).await;
}

#[tokio::test]
async fn one_address_gets_only_so_many_attempts_and_requests() {
    let world = Opening::of("input", "one_address")
        .with("NIMBUS_LOGIN_BURST", 5)
        .with("NIMBUS_LOGIN_REFILL_SECONDS", "60s")
        .with("RATE_LIMIT_ADDRESS_PER_SECOND", 1)
        .with("RATE_LIMIT_ADDRESS_BURST", 20)
        .with("RATE_LIMIT_USER_PER_SECOND", 1)
        .with("RATE_LIMIT_USER_BURST", 30)
        .start()
        .await;
    let nobody = Api::anonymous(&world.server.url());
    // From here on the token is known; one that is not counts as its address.
    assert_eq!(world.admin.get("/api/me").await.status, 200);
    let mut seen = Vec::new();
    for n in 0..8 {
        let wrong = json!({"email": format!("n{n}@example.org"), "password": "guess"});
        // Nobody believes a client about its own address.
        let request = nobody
            .request(Method::POST, "/api/auth/login")
            .header("X-Forwarded-For", format!("203.0.113.{n}"));
        seen.push(Api::send(request.json(&wrong)).await.status);
    }
    // What the administrator used at the start counts, too.
    let taken = seen.iter().take_while(|status| **status == 401).count();
    assert!(
        (1..=5).contains(&taken) && seen[taken..].iter().all(|status| *status == 429),
        "{seen:?}"
    );
    let mut first = None;
    for n in 0..60 {
        let answer = nobody.get("/api/setup/status").await;
        if answer.status == 429 {
            assert_eq!(answer.code(), "rate.limited");
            assert!(answer.headers.contains_key("retry-after"));
            first = Some(n);
            break;
        }
    }
    assert!(first.is_some(), "an address has no limit");
    // A user has their own.
    assert_eq!(world.admin.get("/api/me").await.status, 200);
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(world.admin.get("/api/me").await.status);
    }
    assert!(statuses.contains(&429) && statuses[0] == 200, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 429)),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn bodies_and_heads_have_limits() {
    let world = Opening::of("input", "limits").start().await;
    let base = world.server.url();
    let nobody = Api::anonymous(&base);
    let big = json!({"name": "x".repeat(2 << 20), "email": "a@example.org", "password": PASSWORD});
    let answer = Api::try_send(nobody.request(Method::POST, "/api/auth/register").json(&big)).await;
    // The server may close before everything was sent.
    if let Ok(answer) = answer {
        assert_eq!(answer.is(413).code(), "op.payload_too_large");
    }
    let mut chunked = b"POST /api/auth/register HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_vec();
    for _ in 0..40 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b' '; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = raw(&base, &chunked).await;
    assert!(answer.is_empty() || answer.contains(" 413 "), "{answer}");

    let get = |headers: &str| {
        format!("GET /api/setup/status HTTP/1.1\r\nHost: n\r\nConnection: close\r\n{headers}\r\n")
            .into_bytes()
    };
    for (what, headers) in [
        ("one long header", format!("X-Long: {}\r\n", "x".repeat(20_000))),
        ("a huge header", format!("X-Long: {}\r\n", "x".repeat(200_000))),
        (
            "many headers",
            (0..150).map(|n| format!("X-{n}: 1\r\n")).collect(),
        ),
    ] {
        let answer = raw(&base, &get(&headers)).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
            "{what}: {answer}"
        );
    }
    for (what, bytes) in [
        (
            "no HTTP",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        (
            "a bad length",
            b"POST /api/auth/login HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n\r\n".to_vec(),
        ),
        (
            "two lengths",
            b"POST /api/auth/login HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
                .to_vec(),
        ),
        (
            "a long target",
            format!("GET /{} HTTP/1.1\r\nHost: n\r\n\r\n", "a".repeat(70_000)).into_bytes(),
        ),
    ] {
        let answer = raw(&base, &bytes).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{what}: {answer}"
        );
    }
    assert_eq!(nobody.get("/api/setup/status").await.status, 200);
}

#[tokio::test]
async fn routes_methods_and_types_that_do_not_exist_are_named() {
    let world = Opening::of("input", "routes").start().await;
    let api = &world.admin;
    assert_eq!(
        api.get("/api/nothing").await.is(404).code(),
        "service.route_not_found"
    );
    assert_eq!(
        api.get("/api/vms/x/y/z").await.is(404).code(),
        "service.route_not_found"
    );
    let answer = api.put("/api/vms", &json!({})).await.is(405);
    assert_eq!(answer.code(), "op.method_not_allowed");
    let allow = answer.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    let text = api
        .request(Method::POST, "/api/vms")
        .header("Content-Type", "text/plain")
        .body(machine("a").to_string());
    assert_eq!(Api::send(text).await.is(415).code(), "op.unsupported_media_type");
    let query = api.get("/api/vms?colour=blue").await.is(400);
    assert_eq!(
        (query.code(), &query.body["fault"]["detail"]["field"]),
        ("op.invalid_input", &json!("colour"))
    );
    for path in [
        "/api/vms?limit=0",
        "/api/vms?limit=-1",
        "/api/vms?limit=99999999999999999999",
        "/api/vms?cursor=%00",
        "/api/nodes?preview_tier=huge",
    ] {
        let answer = api.get(path).await;
        refused(path, &answer);
    }
    for id in [
        "x",
        "vm_",
        "vm_zz",
        "op_01a2009a49a777f5b12f0dcb1e9ce718",
        "%00",
        "..%2f..",
        "vm_01a2009a49a777f5b12f0dcb1e9ce718",
        &"a".repeat(5000),
    ] {
        for (method, path) in [
            (Method::GET, format!("/api/vms/{id}")),
            (Method::DELETE, format!("/api/vms/{id}")),
            (Method::POST, format!("/api/vms/{id}/start")),
            (Method::GET, format!("/api/operations/{id}")),
            (Method::GET, format!("/api/operations/{id}/trace")),
            (Method::POST, format!("/api/operations/{id}/private-key")),
            (Method::GET, format!("/api/traces/{id}")),
        ] {
            let answer = Api::send(api.request(method.clone(), &path)).await;
            refused(&format!("{method} {path:.80}"), &answer);
        }
    }
    for (name, value) in [
        ("Authorization", "Bearer"),
        ("Authorization", "Basic YTpi"),
        ("Cookie", "nimbus_sid=\u{1}"),
        ("Cookie", "nimbus_sid=abc"),
    ] {
        let request = Api::anonymous(api.base())
            .request(Method::GET, "/api/me")
            .header(name, value.replace('\u{1}', "zz zz"));
        assert_eq!(
            Api::send(request).await.is(401).code(),
            "auth.unauthorized",
            "{name}: {value}"
        );
    }
}

#[tokio::test]
async fn wrong_types_and_absurd_values_are_refused_by_name() {
    let world = Opening::of("input", "wrong_types").start().await;
    let session = Api::anonymous(&world.server.url())
        .login("ada@example.org", PASSWORD)
        .await;
    let good = [
        (
            Method::POST,
            "/api/vms",
            json!({"hostname": "good", "tier": "small", "os_template": "debian-12", "generate_key": true}),
        ),
        (
            Method::POST,
            "/api/auth/register",
            json!({"name": "Bob", "email": "bob@example.org", "password": PASSWORD}),
        ),
        (
            Method::POST,
            "/api/auth/login",
            json!({"email": "bob@example.org", "password": PASSWORD}),
        ),
        (
            Method::POST,
            "/api/tokens",
            json!({"name": "good", "scopes": ["machines:read"], "expires_in_days": 3}),
        ),
        (
            Method::PUT,
            "/api/account/password",
            json!({"current_password": "wrong one", "new_password": "another one"}),
        ),
        (
            Method::POST,
            "/api/setup/admin",
            json!({"name": "Bob", "email": "bob@example.org", "password": PASSWORD}),
        ),
    ];
    let send = |method: &Method, path: &str, body: String| {
        let request = session
            .request(method.clone(), path)
            .header("Content-Type", "application/json");
        Api::send(request.body(body))
    };
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    for (method, path, body) in &good {
        for text in [
            "",
            "null",
            "[]",
            "1",
            "\"x\"",
            "{",
            "{}",
            "{}{}",
            "\u{0}",
            "{\"a\":1e999}",
            &deep,
        ] {
            let answer = send(method, path, text.to_owned()).await;
            refused(&format!("{path} with {text:.20}"), &answer);
        }
        let mut unknown = body.clone();
        unknown["colour"] = "blue".into();
        let answer = send(method, path, unknown.to_string()).await.is(400);
        assert_eq!(
            answer.body["fault"]["detail"]["field"], "colour",
            "{path}: {}",
            answer.text
        );
        for (field, value) in body.as_object().unwrap() {
            for wrong in [
                json!({}),
                json!([[]]),
                json!(true),
                json!(-1),
                json!(1.5),
                json!("\u{0}"),
                json!(null),
                json!("x".repeat(100_000)),
            ] {
                // What the field takes, or may be left out.
                if (value.is_boolean() && (wrong.is_boolean() || wrong.is_null()))
                    || (field == "scopes" || field == "expires_in_days") && wrong.is_null()
                {
                    continue;
                }
                let mut bad = body.clone();
                bad[field] = wrong.clone();
                let answer = send(method, path, bad.to_string()).await;
                refused(
                    &format!("{path} with {field}: {:.40}", wrong.to_string()),
                    &answer,
                );
            }
        }
    }
    let with = |field: &str, value: Value| {
        let mut body = good[0].2.clone();
        body[field] = value;
        body
    };
    for hostname in [
        "",
        "-a",
        "a-",
        "a_b",
        "a.b",
        "A",
        "ä",
        "a b",
        &"a".repeat(64),
        "a\n",
        "127.0.0.1",
        "\u{202e}evil",
        "../etc",
    ] {
        let answer = world
            .admin
            .post("/api/vms", &with("hostname", hostname.into()))
            .await;
        refused(&format!("hostname {hostname:?}"), &answer);
    }
    for key in [
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "ssh-rsa !!!! x",
        "a\nb",
    ] {
        let mut body = with("ssh_pubkey", key.into());
        body.as_object_mut().unwrap().remove("generate_key");
        let answer = world.admin.post("/api/vms", &body).await.is(400);
        assert_eq!(
            answer.body["fault"]["detail"]["field"], "ssh_pubkey",
            "{key}: {}",
            answer.text
        );
    }
    for days in [json!(0), json!(367), json!(u64::MAX)] {
        let answer = session
            .post("/api/tokens", &json!({"name": "x", "expires_in_days": days}))
            .await;
        refused(&format!("expires_in_days {days}"), &answer);
    }
    for email in [
        "",
        "a",
        "@",
        "a@",
        "@b",
        "a@b@c",
        "a b@example.org",
        "a@example.org\r\nBcc: x",
        &format!("{}@example.org", "a".repeat(300)),
    ] {
        let answer = session
            .post(
                "/api/auth/register",
                &json!({"name": "x", "email": email, "password": PASSWORD}),
            )
            .await;
        refused(&format!("email {email:?}"), &answer);
    }
    for password in ["", "short12", &"x".repeat(257)] {
        let answer = session
            .post(
                "/api/auth/register",
                &json!({"name": "x", "email": "x@example.org", "password": password}),
            )
            .await;
        refused(&format!("a password of {} characters", password.len()), &answer);
    }
    for key in ["", "with space", &"k".repeat(256)] {
        let request = world
            .admin
            .request(Method::POST, "/api/vms")
            .header("Idempotency-Key", key)
            .json(&good[0].2);
        refused(
            &format!("an idempotency key of {} characters", key.len()),
            &Api::send(request).await,
        );
    }
    // Looks are fine, for instance the one that follows a sign-in.
    let state = world.sim.state().await;
    let changes: Vec<&String> = state["requests"]
        .as_object()
        .unwrap()
        .keys()
        .filter(|call| !call.starts_with("GET "))
        .collect();
    assert!(
        changes.is_empty(),
        "refused orders reached the cluster: {changes:?}"
    );
    assert!(world.admin.machines().await.is_empty() && world.sim.made().await.is_empty());
}
