//! `nimbus compose export quadlet`.

use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use nimbus_compose::quadlet::directive::Version;
use nimbus_compose::quadlet::{Artifact, Mode, Options, export};
use nimbus_compose::{Level, Notice};

use super::{FileArgs, not_exported, tell};
use crate::output;
use crate::problem::{Outcome, Problem};

/// What to write, and where.
#[derive(Debug, clap::Args)]
pub(super) struct QuadletArgs {
    /// Only this service; may be repeated.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// A unit for each service, all of them in one pod, or one Pod in Kubernetes' YAML.
    #[arg(long, value_enum, default_value_t)]
    mode: ModeWord,
    /// Write files into this folder instead of printing them.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<Utf8PathBuf>,
    /// Replace files that are there.
    #[arg(long, requires = "output_dir")]
    overwrite: bool,
    /// Fail on any warning, and write nothing.
    #[arg(long)]
    strict: bool,
    /// The Podman that will read the units [default: the newest known].
    #[arg(long, value_name = "X.Y[.Z]")]
    podman_version: Option<Version>,
    /// Where the project's folder will be on the host that runs the units [default: where it is here].
    #[arg(long, value_name = "DIR")]
    bind_root: Option<Utf8PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum ModeWord {
    #[default]
    Containers,
    Pod,
    Kube,
}

pub(super) fn quadlet(files: &FileArgs, args: &QuadletArgs) -> Outcome<ExitCode> {
    let loaded = files.load(&args.service)?;
    let options = Options {
        mode: match args.mode {
            ModeWord::Containers => Mode::Containers,
            ModeWord::Pod => Mode::Pod,
            ModeWord::Kube => Mode::Kube,
        },
        services: args.service.clone(),
        podman: args.podman_version,
        bind_root: args.bind_root.clone(),
    };
    let done = export(&loaded.project, &options).map_err(|error| not_exported(&error))?;
    let notices: Vec<Notice> = loaded.notices.into_iter().chain(done.notices).collect();
    tell(&notices);
    let warnings = notices
        .iter()
        .filter(|notice| notice.level == Level::Warning)
        .count();
    if args.strict && warnings > 0 {
        return Err(Problem::failed(match warnings {
            1 => "--strict: there is a warning".to_owned(),
            count => format!("--strict: there are {count} warnings"),
        })
        .why("nothing was written")
        .next("change what they name, or leave --strict out"));
    }
    match &args.output_dir {
        None => {
            for Artifact { name, text } in &done.artifacts {
                output::line(&format!("### {name}\n{text}"))?;
            }
        }
        Some(folder) => write(folder, &done.artifacts, args.overwrite)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes all files or none: whoever is in the way is found before the first one.
fn write(folder: &Utf8Path, artifacts: &[Artifact], overwrite: bool) -> Outcome {
    let failed = |path: &Utf8Path| {
        let what = format!("could not write {path}");
        move |error: std::io::Error| Problem::failed(what.clone()).because(&error)
    };
    if !overwrite {
        for artifact in artifacts {
            let path = folder.join(&artifact.name);
            if path.symlink_metadata().is_ok() {
                return Err(Problem::refused(format!("{path} is there already"))
                    .why("nothing was written")
                    .next("add --overwrite to replace it"));
            }
        }
    }
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    for Artifact { name, text } in artifacts {
        let path = folder.join(name);
        // As a whole or not at all.
        let part = folder.join(format!(".{name}.{}.part", std::process::id()));
        std::fs::write(&part, text)
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|error| {
                let _ = std::fs::remove_file(&part);
                failed(&path)(error)
            })?;
        output::line(&format!("wrote: {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_written_or_none() {
        let dir = camino_tempfile::tempdir().unwrap();
        let folder = dir.path().join("units");
        let files = ["a.container", "b.container"].map(|name| Artifact {
            name: name.to_owned(),
            text: "one".to_owned(),
        });
        write(&folder, &files, false).unwrap();
        std::fs::remove_file(folder.join("a.container")).unwrap();
        let problem = write(&folder, &files, false).unwrap_err();
        assert!(
            problem.to_string().contains("b.container is there already"),
            "{problem}"
        );
        assert!(!folder.join("a.container").exists());
        write(&folder, &files, true).unwrap();
        let mut left: Vec<_> = folder
            .read_dir_utf8()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["a.container", "b.container"]);
    }
}
