//! The main process.

use nimbus_proto::workloads::Process;

use super::{Scene, secret_name};
use crate::error::WorkError;

const VARIABLES: usize = 128;
const ENVIRONMENT_BYTES: usize = 32 << 10;
const ARGUMENTS_BYTES: usize = 128 << 10;
/// Variables that say who the sandbox is.
const RESERVED: &str = "NIMBUS_SANDBOX_";

pub(super) fn check(process: &Process, scene: Scene<'_>) -> Result<(), WorkError> {
    if !process.argv.is_empty() && (process.entrypoint.is_some() || process.command.is_some()) {
        return Err(scene.wrong(
            "process.argv",
            "it replaces entrypoint and command, so it cannot stand beside them",
        ));
    }
    let lists = [
        ("process.argv", Some(&process.argv)),
        ("process.entrypoint", process.entrypoint.as_ref()),
        ("process.command", process.command.as_ref()),
    ];
    for (field, list) in lists {
        let Some(list) = list else { continue };
        if list.iter().any(|one| one.contains('\0')) {
            return Err(scene.wrong(field, "an argument cannot contain a NUL byte"));
        }
        if list.iter().map(String::len).sum::<usize>() > ARGUMENTS_BYTES {
            return Err(scene.wrong(
                field,
                format!("all together have more than {ARGUMENTS_BYTES} bytes"),
            ));
        }
    }
    environment(process, scene)?;
    if process.cwd.as_ref().is_some_and(|cwd| !is_plain_path(cwd)) {
        return Err(scene.wrong("process.cwd", "it must be an absolute path without . or .."));
    }
    if process.user.as_ref().is_some_and(|user| !is_user(user)) {
        return Err(scene.wrong("process.user", "it must be uid, uid:gid or a name of the image"));
    }
    if process.terminal && scene.service.is_some() {
        return Err(scene.wrong("process.terminal", "a service's main process has no terminal"));
    }
    Ok(())
}

fn environment(process: &Process, scene: Scene<'_>) -> Result<(), WorkError> {
    let (plain, secret) = (process.env.len(), process.secrets.len());
    if plain + secret > VARIABLES {
        return Err(scene.wrong(
            "process.env",
            format!("there may be at most {VARIABLES} variables"),
        ));
    }
    let mut bytes = 0;
    for (index, variable) in process.env.iter().enumerate() {
        let field = format!("process.env[{index}]");
        name(&field, &variable.name, scene)?;
        let value = variable.value.reveal();
        if value.contains('\0') {
            return Err(scene.wrong(&field, "a value cannot contain a NUL byte"));
        }
        bytes += variable.name.len() + value.len() + 2;
    }
    if bytes > ENVIRONMENT_BYTES {
        return Err(scene.wrong(
            "process.env",
            format!("all together have more than {ENVIRONMENT_BYTES} bytes"),
        ));
    }
    for (index, used) in process.secrets.iter().enumerate() {
        let field = format!("process.secrets[{index}]");
        secret_name(&format!("{}.{field}.secret", scene.at), &used.secret)?;
        name(&format!("{field}.variable"), &used.variable, scene)?;
    }
    Ok(())
}

fn name(field: &str, name: &str, scene: Scene<'_>) -> Result<(), WorkError> {
    if name.is_empty()
        || name.len() > 256
        || name
            .chars()
            .any(|c| c == '=' || c.is_control() || c.is_whitespace())
    {
        return Err(scene.wrong(field, "it must be KEY=value with a key of one word"));
    }
    if name.starts_with(RESERVED) {
        return Err(scene.wrong(
            field,
            format!("variables that begin with {RESERVED} are the system's"),
        ));
    }
    Ok(())
}

/// Absolute, and every part is a name.
pub(super) fn is_plain_path(path: &str) -> bool {
    path.len() <= 4096 && path == "/"
        || path.strip_prefix('/').is_some_and(|rest| {
            !path.contains('\0')
                && rest
                    .strip_suffix('/')
                    .unwrap_or(rest)
                    .split('/')
                    .all(|part| !matches!(part, "" | "." | ".."))
        })
}

fn is_user(user: &str) -> bool {
    let part = |text: &str| {
        (1..=64).contains(&text.len())
            && !text.starts_with('-')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    match user.split_once(':') {
        None => part(user),
        Some((user, group)) => part(user) && part(group),
    }
}
