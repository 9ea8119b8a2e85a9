//! The boxes, the inference endpoint, and what was used of it.

use clap::ValueEnum;
use reqwest::Method;
use serde_json::{Value, json};

use super::Standing;
use crate::client::api::Api;
use crate::client::workloads::{cell, moment};
use crate::output::{self, Format};
use crate::problem::Outcome;

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) async fn list(api: &Api, format: Format) -> Outcome {
    let workers = api.get(&["gpu", "workers"], "could not list the boxes").await?;
    if format == Format::Json {
        return output::json(&workers);
    }
    let rows = rows(&workers).iter().map(|worker| {
        let gpus = worker.pointer("/gpus").map(rows).unwrap_or_default();
        let names: Vec<String> = gpus
            .iter()
            .map(
                |gpu| match gpu.pointer("/utilisation_percent").and_then(Value::as_f64) {
                    Some(percent) => format!("{} {percent:.0} %", cell(gpu, "/name")),
                    None => cell(gpu, "/name"),
                },
            )
            .collect();
        let is_busy = worker.pointer("/busy").and_then(Value::as_bool) == Some(true);
        [
            cell(worker, "/id"),
            cell(worker, "/state"),
            cell(worker, "/standing"),
            match cell(worker, "/job_id") {
                hidden if hidden == "-" && is_busy => "somebody's".to_owned(),
                job => job,
            },
            cell(worker, "/pool"),
            output::or_dash(Some(names.join(", ")).filter(|names| !names.is_empty())),
            cell(worker, "/link"),
            moment(worker, "/seen_at"),
            cell(worker, "/trouble"),
        ]
    });
    output::table(
        [
            "BOX", "STATE", "STANDING", "JOB", "POOL", "GPU", "LINK", "SEEN", "TROUBLE",
        ],
        rows.collect(),
        "No box is paired. `nimbus gpu pair` prints the line to paste on one.",
    )
}

pub(super) async fn pair(api: &Api, rotate: Option<&str>, format: Format) -> Outcome {
    let path = match rotate {
        Some(name) => vec!["settings", "gpu", "workers", name, "rotate"],
        None => vec!["settings", "gpu", "pairing"],
    };
    let pairing = api
        .send(Method::POST, &path, None, "could not make a pairing token")
        .await?;
    if format == Format::Json {
        return output::json(&pairing);
    }
    output::say(format_args!(
        "Paste this on the box within {} s; it works once:",
        cell(&pairing, "/expires_in_seconds")
    ));
    output::line(&cell(&pairing, "/curl"))
}

pub(super) async fn set(api: &Api, name: &str, standing: Standing, format: Format) -> Outcome {
    let what = format!("could not change {name}");
    let word = standing
        .to_possible_value()
        .map(|value| value.get_name().to_owned());
    let body = json!({ "standing": word });
    let worker = api
        .send(Method::PATCH, &["gpu", "workers", name], Some(&body), &what)
        .await?;
    match format {
        Format::Json => output::json(&worker),
        Format::Table => output::line(&format!("{name} {}", cell(&worker, "/standing"))),
    }
}

pub(super) async fn unpair(api: &Api, name: &str, yes: bool, format: Format) -> Outcome {
    output::confirm(&format!("Forget the box {name} and cancel what it runs"), yes)?;
    let what = format!("could not forget {name}");
    let gone = api
        .send(Method::DELETE, &["gpu", "workers", name], None, &what)
        .await?;
    if format == Format::Json {
        return output::json(&gone);
    }
    output::say(format_args!(
        "Forgot {name}; jobs cancelled: {}. To remove everything from the box, run there:",
        cell(&gone, "/cancelled_jobs")
    ));
    output::line(&cell(&gone, "/cleanup_cmd"))
}

pub(super) async fn inference(api: &Api, format: Format) -> Outcome {
    let inference = api
        .get(&["gpu", "inference"], "could not look at the inference endpoint")
        .await?;
    if format == Format::Json {
        return output::json(&inference);
    }
    let models = inference.pointer("/models").map(rows).unwrap_or_default();
    let models: Vec<&str> = models.iter().filter_map(Value::as_str).collect();
    output::facts(&[
        ("Status", cell(&inference, "/status")),
        ("Base URL", cell(&inference, "/base_url")),
        ("Model", cell(&inference, "/model")),
        (
            "Models",
            output::or_dash(Some(models.join(", ")).filter(|models| !models.is_empty())),
        ),
        ("Asked", moment(&inference, "/checked_at")),
    ])
}

pub(super) async fn usage(api: &Api, days: u32, all: bool, format: Format) -> Outcome {
    let request = api
        .request(Method::GET, &["gpu", "usage"])
        .query(&[("days", days.to_string()), ("all", all.to_string())]);
    let (page, _) = api.answer(request, "could not read what was used").await?;
    if format == Format::Json {
        return output::json(&page.data);
    }
    let rows = rows(&page.data).iter().map(|row| {
        let is_estimate = row.pointer("/estimated").and_then(Value::as_bool) == Some(true);
        [
            cell(row, "/day"),
            cell(row, "/user_id"),
            cell(row, "/model"),
            cell(row, "/requests"),
            cell(row, "/prompt_tokens"),
            cell(row, "/completion_tokens"),
            if is_estimate { "some counted by pieces" } else { "" }.to_owned(),
        ]
    });
    output::table(
        ["DAY", "USER", "MODEL", "REQUESTS", "SENT", "GOT", "NOTE"],
        rows.collect(),
        "Nothing was used.",
    )
}
