//! A project as Quadlet units: what Podman's generator turns into services of systemd.
//!
//! Three forms: a `.container` for each service, with the project's networks and volumes as units of their
//! own; the same in one `.pod`; or one `.kube` with a Pod in Kubernetes' YAML. Every directive is looked up in
//! [`directive::DIRECTIVES`]. What cannot be kept is told; what would take isolation away (`privileged`, host
//! network, devices, capabilities, raw arguments) is told and never written.

pub mod directive;

mod container;
mod health;
mod kube;
mod lost;
mod place;
mod writer;

use camino::Utf8PathBuf;

use crate::discover::slug;
use crate::error::ComposeError;
use crate::model::{Project, Service, names};
use crate::notice::{Notice, Origin};
use crate::path;
use directive::{PODS, QUADLET, Version};

/// Longest name of a unit; with `.container` and a drop-in folder it stays readable.
const LONGEST_NAME: usize = 56;

/// Most replicas that become units of their own.
const MOST_REPLICAS: u64 = 16;

/// Which units are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A container unit for each service.
    #[default]
    Containers,
    /// The same, in one pod.
    Pod,
    /// One Pod in Kubernetes' YAML.
    Kube,
}

impl Mode {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Pod => "pod",
            Self::Kube => "kube",
        }
    }
}

/// What to write, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which units.
    pub mode: Mode,
    /// Only these services; all if none is named.
    pub services: Vec<String>,
    /// The Podman that will read them; the newest known if none.
    pub podman: Option<Version>,
    /// Where the project's folder will be on the host that runs the units, if not where it is now.
    pub bind_root: Option<Utf8PathBuf>,
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// The files, in a fixed order.
    pub artifacts: Vec<Artifact>,
    /// What has to be said.
    pub notices: Vec<Notice>,
}

/// Why a project cannot be written as units.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The Compose file is at fault.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// Podman does not have this form yet.
    #[error("--mode {mode} needs Podman {since} or later, not {target}")]
    TooOld {
        /// The form.
        mode: &'static str,
        /// Since when it is there.
        since: Version,
        /// What was asked for.
        target: Version,
    },
    /// Two things would be one file.
    #[error("{first} and {second} would both be {name}; rename one of them")]
    SameName {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// The file.
        name: String,
    },
    /// A value that no unit can hold.
    #[error("{at}: {key}: the value of {directive}= {why}")]
    Value {
        /// Where it stands.
        at: Origin,
        /// Which key.
        key: String,
        /// What it was to become.
        directive: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A name that no variable can have.
    #[error("{at}: {key}: `{name}` is no name of a variable; expected letters, digits, `_`, `.` and `-`")]
    Variable {
        /// Where it stands.
        at: Origin,
        /// Which key.
        key: String,
        /// The name.
        name: String,
    },
    /// A unit that would not be one.
    #[error("the unit cannot be written: {0}")]
    Unit(String),
}

/// What the parts of the export share.
struct Plan<'a> {
    project: &'a Project,
    options: &'a Options,
    services: Vec<&'a Service>,
}

impl Plan<'_> {
    /// The name of what belongs to the project.
    fn unit(&self, name: &str) -> String {
        slug(&format!("{}-{name}", self.project.name), LONGEST_NAME)
    }

    /// The units of a service, without their ending: one, or one for each replica where they do not get in
    /// each other's way.
    fn units(&self, service: &Service) -> Vec<String> {
        let apart = self.options.mode == Mode::Containers
            && service.container_name.is_none()
            && service.ports.iter().all(|port| port.published.is_none())
            && service
                .networks
                .values()
                .all(|there| there.ipv4.is_none() && there.ipv6.is_none() && there.mac.is_none());
        if !apart || !(2..=MOST_REPLICAS).contains(&service.replicas) {
            return vec![self.unit(&service.name)];
        }
        (1..=service.replicas)
            .map(|number| self.unit(&format!("{}-{number}", service.name)))
            .collect()
    }

    fn own(&self) -> String {
        slug(&self.project.name, LONGEST_NAME)
    }

    /// The Compose files as they are named in headers: the same wherever the project lies.
    fn sources(&self) -> String {
        let shown = self.project.files.iter().map(|file| {
            let inside = path::relative(&self.project.root, file);
            inside.map_or_else(
                || file.file_name().unwrap_or_default().to_owned(),
                Utf8PathBuf::into_string,
            )
        });
        shown.collect::<Vec<_>>().join(",")
    }

    /// Where that stands which has no line of its own.
    fn whole_file(&self) -> Origin {
        Origin {
            file: self.sources().as_str().into(),
            line: 0,
        }
    }

    /// A path on the host that runs the units.
    fn host_path(&self, source: &str) -> String {
        let inside = self
            .options
            .bind_root
            .as_ref()
            .and_then(|root| Some((root, path::relative(&self.project.root, source.into())?)));
        match inside {
            Some((root, inside)) if inside.as_str().is_empty() => root.to_string(),
            Some((root, inside)) => root.join(inside).into_string(),
            None => source.to_owned(),
        }
    }
}

/// Writes a project as units.
///
/// The same project and options give the same bytes.
///
/// # Errors
/// [`ExportError`]: a service that is not there, a form that the Podman named does not have, two services of
/// one name, a value that no unit can hold.
pub fn export(project: &Project, options: &Options) -> Result<Export, ExportError> {
    let since = if options.mode == Mode::Pod { PODS } else { QUADLET };
    if let Some(target) = options.podman
        && !target.has(since)
    {
        return Err(ExportError::TooOld {
            mode: options.mode.name(),
            since,
            target,
        });
    }
    for name in &options.services {
        project.service(name)?;
    }
    let services: Vec<&Service> = project
        .services
        .values()
        .filter(|service| options.services.is_empty() || options.services.contains(&service.name))
        .collect();
    let plan = Plan {
        project,
        options,
        services,
    };
    let mut out = Export::default();
    match options.mode {
        Mode::Containers | Mode::Pod => {
            if options.mode == Mode::Pod {
                place::pod(&plan, &mut out)?;
            }
            for service in &plan.services {
                let units = plan.units(service);
                for (index, unit) in units.iter().enumerate() {
                    let replica = (units.len() > 1).then_some(index + 1);
                    container::write(&plan, service, unit, replica, &mut out)?;
                }
            }
            place::networks(&plan, &mut out)?;
            place::volumes(&plan, &mut out)?;
            place::configs(&plan, &mut out);
            place::secrets(&plan, &mut out);
            place::folders(&plan, &mut out);
        }
        Mode::Kube => kube::write(&plan, &mut out)?,
    }
    unique(&plan, &out)?;
    out.notices.dedup();
    Ok(out)
}

/// Two services whose names differ only in signs that a unit's name cannot have.
fn unique(plan: &Plan<'_>, out: &Export) -> Result<(), ExportError> {
    for (index, artifact) in out.artifacts.iter().enumerate() {
        if out
            .artifacts
            .iter()
            .skip(index + 1)
            .any(|other| other.name == artifact.name)
        {
            let mut both = plan
                .services
                .iter()
                .map(|service| service.name.as_str())
                .filter(|name| artifact.name.strip_suffix(".container") == Some(plan.unit(name).as_str()));
            return Err(ExportError::SameName {
                first: both.next().unwrap_or("one").to_owned(),
                second: names(both),
                name: artifact.name.clone(),
            });
        }
    }
    Ok(())
}

/// An image as Podman is to know it: Compose takes short names for those of Docker Hub, Podman asks.
fn image(service: &Service) -> String {
    let image = service.image.as_str();
    let first = image.split('/').next().unwrap_or_default();
    let has_host = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    match (has_host, service.build.is_some(), image.contains('/')) {
        (true, _, _) => image.to_owned(),
        (false, true, _) => format!("localhost/{image}"),
        (false, false, true) => format!("docker.io/{image}"),
        (false, false, false) => format!("docker.io/library/{image}"),
    }
}
