//! The bus methods: decode, ask, answer.

use nimbus_bus::{Bus, BusError, Incoming, Method, Serving};
use nimbus_errors::Fault;
use nimbus_proto::auth::{
    ChangePassword, CreateJoinToken, CreateKey, CreateMachineToken, CreateToken, ExchangeAdmin, ExchangeKey,
    ExchangeSession, ExchangeToken, ForgetTenant, JoinHost, ListKeys, ListSessions, ListTokens, Login,
    Logout, Me, MintBus, Register, RevokeKey, RevokeMachineToken, RevokeSession, RevokeToken, RotateAdmin,
    Setup, VerifyingKeys,
};

use crate::auth::{Auth, require_account, require_person};

/// A handler of `M` with a clone of the service's state for each request.
fn with<M, F, R>(auth: &Auth, answer: F) -> impl Fn(Incoming<M>) -> R + Send + Sync + 'static
where
    M: Method,
    F: Fn(Auth, Incoming<M>) -> R + Send + Sync + 'static,
{
    let auth = auth.clone();
    move |call| answer(auth.clone(), call)
}

pub(crate) async fn serve(bus: &Bus, auth: &Auth) -> Result<Serving, BusError> {
    bus.serve(
        "auth",
        env!("CARGO_PKG_VERSION"),
        "Users, sessions, tenants and tokens",
    )
    .method::<Register, _, _>(with(auth, |auth, call: Incoming<Register>| async move {
        Ok(auth.register(call.request).await?)
    }))
    .method::<Login, _, _>(with(auth, |auth, call: Incoming<Login>| async move {
        Ok(auth.login(call.request).await?)
    }))
    .method::<Logout, _, _>(with(auth, |auth, call: Incoming<Logout>| async move {
        Ok(auth.logout(&call.request.secret).await?)
    }))
    .method::<ExchangeSession, _, _>(with(auth, |auth, call: Incoming<ExchangeSession>| async move {
        Ok(auth.exchange_session(&call.request.secret).await?)
    }))
    .method::<ExchangeToken, _, _>(with(auth, |auth, call: Incoming<ExchangeToken>| async move {
        Ok(auth.exchange_token(&call.request.secret).await?)
    }))
    .method::<Me, _, _>(with(auth, |auth, call: Incoming<Me>| async move {
        require_person(call.user()?)?;
        Ok(auth.me(call.user()?).await?)
    }))
    .method::<ChangePassword, _, _>(with(auth, |auth, call: Incoming<ChangePassword>| async move {
        let caller = call.user()?.clone();
        require_account(&caller)?;
        Ok(auth.change_password(&caller, call.request).await?)
    }))
    .method::<ListTokens, _, _>(with(auth, |auth, call: Incoming<ListTokens>| async move {
        require_account(call.user()?)?;
        Ok(auth.tokens(call.user()?).await?)
    }))
    .method::<CreateToken, _, _>(with(auth, |auth, call: Incoming<CreateToken>| async move {
        let caller = call.user()?.clone();
        require_account(&caller)?;
        Ok(auth.create_token(&caller, call.request).await?)
    }))
    .method::<RevokeToken, _, _>(with(auth, |auth, call: Incoming<RevokeToken>| async move {
        let caller = call.user()?;
        // Every token may end itself, as signing out on the command line does.
        if caller.token != Some(call.request) {
            require_account(caller)?;
        }
        Ok::<_, Fault>(auth.revoke_token(caller, call.request).await?)
    }))
    .method::<ExchangeKey, _, _>(with(auth, |auth, call: Incoming<ExchangeKey>| async move {
        Ok(auth.exchange_key(&call.request.secret).await?)
    }))
    .method::<ExchangeAdmin, _, _>(with(auth, |auth, call: Incoming<ExchangeAdmin>| async move {
        Ok(auth.exchange_admin(&call.request.secret)?)
    }))
    .method::<RotateAdmin, _, _>(with(auth, |auth, call: Incoming<RotateAdmin>| async move {
        auth.require_living(call.user()?).await?;
        Ok(auth.rotate_admin().await?)
    }))
    .method::<ListKeys, _, _>(with(auth, |auth, call: Incoming<ListKeys>| async move {
        Ok(auth.keys(call.user()?, &call.request).await?)
    }))
    .method::<CreateKey, _, _>(with(auth, |auth, call: Incoming<CreateKey>| async move {
        let caller = call.user()?.clone();
        Ok(auth.create_key(&caller, call.request).await?)
    }))
    .method::<RevokeKey, _, _>(with(auth, |auth, call: Incoming<RevokeKey>| async move {
        Ok(auth.revoke_key(call.user()?, &call.request).await?)
    }))
    .method::<ForgetTenant, _, _>(with(auth, |auth, call: Incoming<ForgetTenant>| async move {
        Ok(auth.forget_tenant(call.user()?, &call.request).await?)
    }))
    .method::<CreateMachineToken, _, _>(with(
        auth,
        |auth, call: Incoming<CreateMachineToken>| async move {
            Ok(auth.create_machine_token(call.request).await?)
        },
    ))
    .method::<RevokeMachineToken, _, _>(with(
        auth,
        |auth, call: Incoming<RevokeMachineToken>| async move {
            Ok(auth.revoke_machine_token(call.request).await?)
        },
    ))
    .method::<MintBus, _, _>(with(auth, |auth, call: Incoming<MintBus>| async move {
        Ok(auth.mint.mint(&call.request))
    }))
    .method::<CreateJoinToken, _, _>(with(auth, |auth, call: Incoming<CreateJoinToken>| async move {
        let caller = call.user()?.clone();
        auth.require_living(&caller).await?;
        Ok(auth.create_join_token(&caller, call.request).await?)
    }))
    .method::<JoinHost, _, _>(with(auth, |auth, call: Incoming<JoinHost>| async move {
        Ok(auth.join_host(&call.request).await?)
    }))
    .method::<ListSessions, _, _>(with(auth, |auth, call: Incoming<ListSessions>| async move {
        require_account(call.user()?)?;
        Ok(auth.sessions(call.user()?).await?)
    }))
    .method::<RevokeSession, _, _>(with(auth, |auth, call: Incoming<RevokeSession>| async move {
        require_account(call.user()?)?;
        Ok(auth.revoke_session(call.user()?, call.request).await?)
    }))
    .method::<VerifyingKeys, _, _>(with(auth, |auth, _: Incoming<VerifyingKeys>| async move {
        Ok(auth.signer.verifying_keys())
    }))
    .method::<Setup, _, _>(with(auth, |auth, _: Incoming<Setup>| async move {
        Ok(auth.setup().await?)
    }))
    .start()
    .await
}
