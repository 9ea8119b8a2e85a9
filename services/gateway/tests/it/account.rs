//! Credentials: cookies, tokens, their cache and their end.

use nimbus_gateway::GatewayConfig;
use nimbus_proto::event::CredentialRevoked;
use reqwest::Method;
use serde_json::json;

use crate::peers::Person::{Ada, Bob, BobsReader};
use crate::world::{World, answer, config, refusal, within};

#[tokio::test]
async fn signing_in_sets_a_cookie_that_scripts_cannot_read_and_signing_out_ends_it() {
    let world = World::start().await;
    let credentials = json!({"email": "ada@example.org", "password": "correct horse"});
    let login = world
        .plain(Method::POST, "/api/auth/login")
        .json(&credentials)
        .header("user-agent", "test/1")
        .send()
        .await
        .unwrap();
    assert_eq!(login.status(), 200);
    let cookie = login.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in [
        "nimbus_sid=ada-session",
        "HttpOnly",
        "SameSite=Lax",
        "Path=/",
        "Max-Age=3",
    ] {
        assert!(cookie.contains(part), "{part} is not in {cookie}");
    }
    assert!(
        !cookie.contains("Secure"),
        "the connection is not encrypted: {cookie}"
    );
    let seen = world.books.last_login();
    assert_eq!(
        (seen.address.as_str(), seen.user_agent.as_str()),
        ("127.0.0.1", "test/1")
    );

    let (status, me) = answer(world.browser(Ada, Method::GET, "/api/me")).await;
    assert_eq!(
        (status.as_u16(), me["data"]["email"].as_str()),
        (200, Some("ada@example.org"))
    );
    let (_, account) = answer(world.browser(Ada, Method::GET, "/api/account")).await;
    assert_eq!(account["data"]["has_password"], true);

    let logout = world
        .browser(Ada, Method::POST, "/api/auth/logout")
        .send()
        .await
        .unwrap();
    assert_eq!(logout.status(), 204);
    assert!(
        logout.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    let refused = refusal(world.browser(Ada, Method::GET, "/api/me")).await;
    assert_eq!(refused, (401, "auth.unauthorized".to_owned()));
}

#[tokio::test]
async fn wrong_passwords_and_throttling_come_through_as_they_are() {
    let world = World::start().await;
    let login = |email: &str| {
        world
            .plain(Method::POST, "/api/auth/login")
            .json(&json!({"email": email, "password": "wrong"}))
    };
    let (status, body) = answer(login("ada@example.org")).await;
    assert_eq!(
        (status.as_u16(), body["error"].as_str()),
        (401, Some("Invalid email or password"))
    );
    let throttled = login("throttled@example.org").send().await.unwrap();
    assert_eq!(
        (
            throttled.status().as_u16(),
            throttled.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "42")
    );
    let setup = json!({"name": "Zoe", "email": "zoe@example.org", "password": "correct horse"});
    assert_eq!(
        refusal(world.plain(Method::POST, "/api/setup/admin").json(&setup)).await,
        (409, "op.conflict".to_owned())
    );
    let (status, user) = answer(world.plain(Method::POST, "/api/auth/register").json(&setup)).await;
    assert_eq!(
        (status.as_u16(), user["data"]["email"].as_str()),
        (201, Some("zoe@example.org"))
    );
}

#[tokio::test]
async fn a_proxy_of_ours_says_who_the_client_is_and_that_it_is_encrypted() {
    let trusting = GatewayConfig {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..config()
    };
    let world = World::with(trusting, true).await;
    let login = world
        .plain(Method::POST, "/api/auth/login")
        .json(&json!({"email": "ada@example.org", "password": "correct horse"}))
        .header("x-forwarded-for", "6.6.6.6, 203.0.113.9")
        .header("x-forwarded-proto", "https")
        .send()
        .await
        .unwrap();
    assert!(
        login.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("; Secure")
    );
    assert!(login.headers().contains_key("strict-transport-security"));
    assert_eq!(world.books.last_login().address, "203.0.113.9");
}

#[tokio::test]
async fn many_requests_at_once_ask_for_one_exchange_and_later_ones_for_none() {
    let world = World::start().await;
    world.books.may_exchange.send_replace(false);
    let requests: Vec<_> = (0..40)
        .map(|_| tokio::spawn(world.by(Ada, Method::GET, "/api/me").send()))
        .collect();
    let mut exchanges = world.books.exchanges.subscribe();
    within(exchanges.wait_for(|count| *count > 0)).await.unwrap();
    world.books.may_exchange.send_replace(true);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    world.get(Ada, "/api/me").await;
    // Requests that arrived after the answer found it in the cache; none asked a second time.
    assert_eq!(*world.books.exchanges.borrow(), 1);
}

#[tokio::test]
async fn a_revoked_credential_is_refused_although_its_access_token_still_lives() {
    let world = World::start().await;
    let browser = || world.browser(Bob, Method::GET, "/api/me");
    let script = || world.by(Bob, Method::GET, "/api/me");
    assert_eq!(
        (answer(browser()).await.0, answer(script()).await.0),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
    let mut stream = world
        .browser(Bob, Method::GET, "/api/events")
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);

    world.books.revoke(&Bob.session());
    assert_eq!(answer(browser()).await.0, 200, "still cached");
    let identity = world.books.identity(Bob);
    let revoked = CredentialRevoked {
        user: identity.user,
        session: identity.session,
        token: None,
        key: None,
        machine: None,
    };
    World::publish(&world.auth, "auth", &revoked).await;
    // The stream ends when the event has arrived, and the cache has forgotten by then.
    within(async { while stream.chunk().await.unwrap().is_some() {} }).await;
    assert_eq!(refusal(browser()).await, (401, "auth.unauthorized".to_owned()));
    assert_eq!(answer(script()).await.0, 200, "the token was not revoked");
}

#[tokio::test]
async fn pages_of_other_origins_cannot_use_the_cookie() {
    let world = World::start().await;
    let create = |origin: Option<(&'static str, String)>| {
        let mut request = world
            .browser(Ada, Method::POST, "/api/tokens")
            .json(&json!({"name": "laptop"}));
        if let Some((name, value)) = origin {
            request = request.header(name, value);
        }
        request
    };
    for foreign in [
        ("origin", "http://evil.example".to_owned()),
        ("origin", "null".to_owned()),
        ("sec-fetch-site", "cross-site".to_owned()),
    ] {
        assert_eq!(
            refusal(create(Some(foreign.clone()))).await,
            (403, "auth.forbidden".to_owned()),
            "{foreign:?}"
        );
    }
    for ours in [
        None,
        Some(("origin", world.url(""))),
        Some(("sec-fetch-site", "same-origin".to_owned())),
    ] {
        let (status, body) = answer(create(ours.clone())).await;
        assert_eq!(
            (status.as_u16(), body["data"]["token"].as_str()),
            (201, Some("nbp_00ff")),
            "{ours:?}: {body}"
        );
    }
    let script = world
        .by(Ada, Method::POST, "/api/tokens")
        .json(&json!({"name": "laptop"}))
        .header("origin", "http://evil.example");
    assert_eq!(
        answer(script).await.0,
        201,
        "a page cannot send another's token by accident"
    );
}

#[tokio::test]
async fn tokens_are_made_with_the_scopes_that_were_asked_for_and_do_no_more_than_theirs() {
    let world = World::start().await;
    let (_, token) = answer(
        world
            .by(Ada, Method::POST, "/api/tokens")
            .json(&json!({"name": "ci"})),
    )
    .await;
    assert_eq!(
        token["data"]["scopes"],
        json!(["machines:read", "machines:write"])
    );
    let named = json!({"name": "ci", "scopes": ["machines:read"], "expires_in_days": 30});
    let (_, token) = answer(world.by(Ada, Method::POST, "/api/tokens").json(&named)).await;
    assert_eq!(token["data"]["scopes"], json!(["machines:read"]));
    let (status, refused) = answer(
        world
            .by(Ada, Method::POST, "/api/tokens")
            .json(&json!({"name": "ci", "scopes": ["all"]})),
    )
    .await;
    assert_eq!(
        (status.as_u16(), refused["fault"]["detail"]["field"].as_str()),
        (400, Some("scopes[0]")),
        "{refused}"
    );

    assert_eq!(world.get(BobsReader, "/api/vms").await.0, 200);
    for (method, path, body) in [
        (
            Method::POST,
            "/api/vms",
            json!({"hostname": "a", "tier": "small", "os_template": "debian-12", "generate_key": true}),
        ),
        (Method::POST, "/api/tokens", json!({"name": "more"})),
        (
            Method::PUT,
            "/api/account/password",
            json!({"current_password": "a", "new_password": "b"}),
        ),
    ] {
        let refused = refusal(world.by(BobsReader, method, path).json(&body)).await;
        assert_eq!(refused, (403, "auth.permission_denied".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn what_is_no_credential_is_refused_without_asking_anybody() {
    let world = World::start().await;
    for header in ["Basic YTpi", "Bearer abc", "Bearer nbp_a b", "nbp_1"] {
        let refused = refusal(
            world
                .plain(Method::GET, "/api/me")
                .header("authorization", header),
        )
        .await;
        assert_eq!(refused, (401, "auth.unauthorized".to_owned()), "{header}");
    }
    assert_eq!(*world.books.exchanges.borrow(), 0);
    let refused = refusal(world.plain(Method::GET, "/api/me").bearer_auth("nbp_unknown")).await;
    assert_eq!(refused, (401, "auth.unauthorized".to_owned()));
}
