//! Tasks.

use serde_json::{Value, json};

use super::Call;
use crate::error::ApiError;
use crate::task::{Task, is_upid};

pub(super) fn of_cluster(call: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(call.world.tasks.all().take(50).map(Task::row).collect())
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let params = &call.params;
    let node = call.text("node");
    let source = params.get("source").unwrap_or("archive");
    let vmid = params.get("vmid");
    let fits = |task: &&Task| {
        let alive = task.is_running();
        let wanted = match source {
            "archive" => !alive,
            "active" => alive,
            _ => true,
        };
        let failed = task
            .exit
            .as_deref()
            .is_some_and(|exit| exit != "OK" && !exit.starts_with("WARNINGS"));
        wanted
            && task.node == node
            && vmid.is_none_or(|vmid| task.id == vmid)
            && params.get("typefilter").is_none_or(|kind| task.kind == kind)
            && params
                .get("userfilter")
                .is_none_or(|user| task.user.contains(user))
            && params
                .number::<u64>("since")
                .is_none_or(|since| task.started_unix >= since)
            && params
                .number::<u64>("until")
                .is_none_or(|until| task.started_unix <= until)
            && (!params.flag("errors") || failed)
    };
    let (skip, limit) = (
        params.number("start").unwrap_or(0),
        params.number("limit").unwrap_or(50),
    );
    Ok(call
        .world
        .tasks
        .all()
        .filter(fits)
        .skip(skip)
        .take(limit)
        .map(Task::row)
        .collect())
}

fn find<'a>(call: &'a Call<'_>) -> Result<(u64, &'a Task), ApiError> {
    let upid = call.text("upid");
    if !is_upid(&upid) {
        return Err(ApiError::parameter("upid", "unable to parse worker upid"));
    }
    let found = call
        .world
        .tasks
        .find(&upid)
        .filter(|(_, task)| task.node == call.text("node"));
    found.ok_or_else(|| ApiError::parameter("upid", "no such task"))
}

pub(super) fn status(call: &mut Call<'_>) -> Result<Value, ApiError> {
    Ok(find(call)?.1.status())
}

pub(super) fn log(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (_, task) = find(call)?;
    let (skip, limit) = (
        call.params.number("start").unwrap_or(0),
        call.params.number("limit").unwrap_or(50),
    );
    let limit = if limit == 0 { usize::MAX } else { limit };
    let now = call.world.now;
    let visible = task
        .lines
        .iter()
        .filter(|(at, _)| *at <= now)
        .map(|(_, line)| line);
    let lines: Vec<Value> = visible
        .enumerate()
        .skip(skip)
        .take(limit)
        .map(|(at, line)| json!({"n": at + 1, "t": line}))
        .collect();
    if lines.is_empty() {
        return Ok(json!([{"n": 1, "t": "no content"}]));
    }
    Ok(lines.into())
}

pub(super) fn stop(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (number, _) = find(call)?;
    call.world.abort(number);
    Ok(Value::Null)
}
