//! Signing up, signing in, tokens.

use nimbus_tests::api::{PASSWORD, PATIENCE, cookie_of, machine};
use nimbus_tests::wait::eventually;
use nimbus_tests::{Api, Opening};
use serde_json::json;

#[tokio::test]
async fn people_register_sign_in_and_out() {
    let world = Opening::of("system", "people_register_sign_in_and_out")
        .start()
        .await;
    let nobody = Api::anonymous(&world.server.url());
    let me = world.admin.get("/api/me").await.data();
    assert_eq!(
        (&me["email"], &me["is_admin"]),
        (&json!("ada@example.org"), &json!(true))
    );
    assert!(me["tenant_id"].as_str().unwrap().starts_with("ten_"), "{me}");
    // The installation has its administrator.
    let late = json!({"name": "Eve", "email": "eve@example.org", "password": PASSWORD});
    assert_eq!(nobody.post("/api/setup/admin", &late).await.status, 409);

    let person = json!({"name": "Bob", "email": " Bob@Example.org ", "password": PASSWORD});
    let bob = nobody.post("/api/auth/register", &person).await.is(201).data();
    assert_eq!(
        (&bob["email"], &bob["is_admin"]),
        (&json!("bob@example.org"), &json!(false))
    );
    assert_eq!(
        nobody.post("/api/auth/register", &person).await.is(409).code(),
        "op.already_exists"
    );

    let login = |email: &str, password: &str| json!({"email": email, "password": password});
    for (email, password) in [
        ("bob@example.org", "not the password"),
        ("nobody@example.org", PASSWORD),
    ] {
        let refused = nobody
            .post("/api/auth/login", &login(email, password))
            .await
            .is(401);
        assert_eq!(refused.body["error"], "Invalid email or password");
    }
    let answer = nobody
        .post("/api/auth/login", &login("bob@example.org", PASSWORD))
        .await
        .is(200);
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    for part in ["nimbus_sid=", "HttpOnly", "SameSite="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let session = nobody.with_cookie(&cookie_of(&answer));
    assert_eq!(session.get("/api/me").await.data()["name"], "Bob");
    assert_eq!(
        session.get("/api/nodes").await.is(403).code(),
        "auth.permission_denied"
    );

    // A page of another origin cannot use the cookie.
    let forged = session
        .request(http::Method::POST, "/api/vms")
        .header("Sec-Fetch-Site", "cross-site")
        .json(&machine("x"));
    assert_eq!(Api::send(forged).await.is(403).code(), "auth.forbidden");

    let other = session.login("bob@example.org", PASSWORD).await;
    let change = json!({"current_password": PASSWORD, "new_password": "another good one"});
    let _ = session.put("/api/account/password", &change).await.is(200);
    ended(&other).await;
    let _ = session.touch("/api/auth/logout").await.is(204);
    ended(&session).await;
    let _ = nobody.login("bob@example.org", "another good one").await;
}

/// Of several gateways one ends a session, and the others hear of it.
async fn ended(session: &Api) {
    let refused = async || {
        for _ in 0..4 {
            if session.get("/api/me").await.status != 401 {
                return false;
            }
        }
        true
    };
    let _ = eventually("the session has ended", PATIENCE, refused, |refused| *refused).await;
    assert_eq!(session.get("/api/me").await.is(401).code(), "auth.unauthorized");
}

#[tokio::test]
async fn tokens_hold_what_they_say_until_they_are_revoked() {
    let world = Opening::of("system", "tokens").start().await;
    let bob = world.admin.member("bob").await;
    // A token does not manage tokens.
    assert_eq!(
        bob.get("/api/tokens").await.is(403).code(),
        "auth.permission_denied"
    );
    let session = Api::anonymous(&world.server.url())
        .login("bob@example.org", PASSWORD)
        .await;
    let listed = session.get("/api/tokens").await.data();
    let row = &listed[0];
    assert_eq!(row["name"], "tests");
    assert!(
        row["prefix"].as_str().unwrap().starts_with("nbp_") && row.get("token").is_none(),
        "{row}"
    );
    assert_eq!(row["scopes"], json!(["machines:read", "machines:write"]));

    let reader = session.with_token(&session.token("reader", Some(&["machines:read"])).await);
    assert!(reader.machines().await.is_empty());
    assert_eq!(
        reader.post("/api/vms", &machine("reader")).await.is(403).code(),
        "auth.permission_denied"
    );
    let grab = session
        .post("/api/tokens", &json!({"name": "more", "scopes": ["admin"]}))
        .await;
    assert_eq!(grab.status, 403, "{}", grab.text);

    // The administrator's scope is not in a token that does not name it.
    let modest = Api::anonymous(&world.server.url())
        .login("ada@example.org", PASSWORD)
        .await;
    let modest = modest.with_token(&modest.token("modest", None).await);
    assert_eq!(
        modest.get("/api/nodes").await.is(403).code(),
        "auth.permission_denied"
    );

    let tokens = session.get("/api/tokens").await.data();
    let id = tokens
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["name"] == "reader")
        .unwrap()["id"]
        .clone();
    // Nobody revokes somebody else's.
    let path = format!("/api/tokens/{}", id.as_str().unwrap());
    let ada = Api::anonymous(&world.server.url())
        .login("ada@example.org", PASSWORD)
        .await;
    assert_eq!(ada.delete(&path).await.is(404).code(), "op.not_found");
    let _ = session.delete(&path).await.is(204);
    nimbus_tests::eventually(
        "the token is refused",
        std::time::Duration::from_secs(10),
        async || reader.get("/api/vms").await.status,
        |status| *status == 401,
    )
    .await;
}
