//! The demonstration: the first person signs up, orders a machine and creates sandboxes, through the
//! same API as everybody.

mod sandbox;

use std::time::Instant;

use camino::Utf8Path;
use nimbus_model::Hostname;
use reqwest::Method;
use serde_json::json;
use url::Url;

use super::dev::random_hex;
use crate::client::api::{Api, Credential, read};
use crate::client::types::{Provisioned, Vm};
use crate::client::vm::{CreateArgs, Created, create};
use crate::output;
use crate::problem::{Outcome, Problem};

const EMAIL: &str = "demo@nimbus.local";

/// Signs up, orders, watches, and shows what came of it.
pub(crate) async fn show(url: Url, folder: &Utf8Path, image: &str) -> Outcome {
    let api = Api::new(url.clone(), Credential::None)?;
    let password = random_hex()?;
    let body = json!({ "name": "Demo", "email": EMAIL, "password": password });
    api.send(
        Method::POST,
        &["auth", "register"],
        Some(&body),
        "could not sign up",
    )
    .await?;
    output::say(format_args!(
        "\nSigned up the first person, who becomes administrator:\n  Email      {EMAIL}\n  Password   {password}\n"
    ));

    let session = api.with(api.sign_in(EMAIL, &password.as_str().into()).await?);
    let hostname: Hostname = "demo-1".parse().map_err(|error: nimbus_model::HostnameError| {
        Problem::failed("could not name the machine").because(&error)
    })?;
    let begun = Instant::now();
    let created = create(&session, &CreateArgs::demo(hostname, folder.join("demo-key"))).await?;
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (Created::Running { machine, .. }, Some(ssh)) = (&created, created.ssh()) else {
        return Err(Problem::failed(
            "the machine was ordered, but nobody waited for it",
        ));
    };
    let vm = running(&session, machine).await?;
    output::say(format_args!(
        "\n{} runs on {} after {}.",
        vm.hostname,
        output::or_dash(vm.node),
        output::span(took)
    ));
    output::line(&ssh)?;
    sandbox::show(&session, image).await?;
    output::say(format_args!("\nPortal: {url}"));
    Ok(())
}

/// The machine as the server lists it, if it runs.
async fn running(session: &Api, machine: &Provisioned) -> Outcome<Vm> {
    let what = "could not look at the machine";
    let row = session.get(&["vms", &machine.id], what).await?;
    let vm: Vm = read(&row, what)?;
    if vm.status != "running" {
        return Err(Problem::failed(format!(
            "{} is {}, not running",
            vm.hostname, vm.status
        )));
    }
    Ok(vm)
}
