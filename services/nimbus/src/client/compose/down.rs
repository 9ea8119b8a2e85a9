//! `nimbus compose down`.

use std::collections::HashSet;

use nimbus_compose::{Project, Service};
use reqwest::Method;

use super::{is_absent, refused};
use crate::client::sandbox::wait;
use crate::client::workloads::Workloads;
use crate::output;
use crate::problem::Outcome;

/// Stops services, those first that depend on others.
pub(super) async fn down(
    workloads: &Workloads,
    project: &Project,
    wanted: &[String],
    remove: bool,
) -> Outcome {
    let named: HashSet<&String> = wanted.iter().collect();
    let order = project.order(&[]).map_err(|error| refused(&error))?;
    for service in order.into_iter().rev() {
        if named.is_empty() || named.contains(&service.name) {
            stop(workloads, service, remove).await?;
        }
    }
    Ok(())
}

/// Stops one service and waits until it has ended.
pub(super) async fn stop(workloads: &Workloads, service: &Service, remove: bool) -> Outcome {
    let name = service.name.as_str();
    let path = ["services", name];
    let what = format!("could not stop {name}");
    let current = match workloads.get(&path, &what).await {
        Ok(current) => current,
        Err(problem) if is_absent(&problem) => {
            return output::line(&format!("{name}: already_stopped"));
        }
        Err(problem) => return Err(problem),
    };
    if wait::is_over(&current) {
        output::line(&format!("{name}: already_stopped"))?;
    } else {
        let asked = workloads
            .send(Method::POST, &["services", name, "stop"], None, &what)
            .await?;
        let grace = service.stop_grace_period.unwrap_or_default();
        wait::until(workloads, &path, Some(asked), wait::END + grace, wait::is_over).await?;
        output::line(&format!("{name}: stopped"))?;
    }
    if remove {
        let what = format!("could not remove {name}");
        let current = workloads.get(&path, &what).await?;
        let generation = current
            .pointer("/metadata/generation")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default();
        let request = workloads
            .request(Method::DELETE, &path)
            .query(&[("ifMatchGeneration", generation.to_string())]);
        workloads.api.resource(request, &what).await?;
        output::line(&format!("{name}: removed"))?;
    }
    Ok(())
}
