//! What an operator asks for, and what of it can be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;
use crate::image;
use crate::layout::{Layout, Scope, Target};

/// The port of a node, as of a server in the foreground.
pub const DEFAULT_PORT: u16 = 8080;

/// The flags of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// As what it runs.
    pub target: Target,
    /// Whose service manager runs it.
    pub scope: Scope,
    /// The program; the layout's place if it is not said.
    pub binary: Option<Utf8PathBuf>,
    /// The image of a container.
    pub image: Option<String>,
    /// Whether the image has to be named by its digest.
    pub require_digest: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether other computers may reach it there.
    pub allow_network: bool,
    /// Whether the first connection starts it.
    pub socket_activation: bool,
    /// Whether it gets to the socket of the container engine.
    pub engine: bool,
    /// Whether it starts with the host.
    pub enable: bool,
    /// Whether it starts now.
    pub now: bool,
}

impl Request {
    /// The least: this target, this scope, loopback.
    #[must_use]
    pub fn new(target: Target, scope: Scope) -> Self {
        Self {
            target,
            scope,
            binary: None,
            image: None,
            require_digest: false,
            listen: (Ipv4Addr::LOCALHOST, DEFAULT_PORT).into(),
            allow_network: false,
            socket_activation: false,
            engine: true,
            enable: false,
            now: false,
        }
    }

    /// Checks that the flags go together. `mirrors` are further repositories of images.
    ///
    /// # Errors
    /// What does not go together, or cannot stand in a unit.
    pub fn check(self, layout: &Layout, mirrors: &str) -> Result<Install, NodeError> {
        let usage = |reason: &str| {
            Err(NodeError::Usage {
                reason: reason.to_owned(),
            })
        };
        let mut warnings = Vec::new();
        match self.target {
            Target::Systemd => {
                if self.image.is_some() || self.require_digest {
                    return usage("--image and --require-digest are for --container");
                }
            }
            Target::Container => {
                if self.binary.is_some() {
                    return usage("--binary is for --systemd: a container runs the program of its image");
                }
                if self.socket_activation {
                    return usage(
                        "--socket-activation is for --systemd: a container publishes its port itself",
                    );
                }
                let Some(image) = &self.image else {
                    return usage("--container needs --image");
                };
                if image::check(image, mirrors)? == image::Pin::Tag {
                    if self.require_digest {
                        return Err(NodeError::Image {
                            image: image.clone(),
                            reason: "is not named by its digest".to_owned(),
                        });
                    }
                    warnings.push(format!("{image} is a tag, which can be moved: add the digest"));
                }
                // Inside, it listens on every address; what is published outside is another matter.
                warnings.push(format!(
                    "the container starts only with an admin token that was rotated within 30 days: `{}podman run --rm -v nimbus-data:/var/lib/nimbus {image} auth rotate-admin` puts one there",
                    if layout.scope == Scope::System { "sudo " } else { "" }
                ));
            }
        }
        let binary = self.binary.clone().unwrap_or_else(|| layout.binary.clone());
        let wrong = |sign: char| sign.is_whitespace() || sign.is_control() || "%;\"'\\$".contains(sign);
        if !binary.is_absolute() || binary.as_str().contains(wrong) {
            return usage(&format!(
                "--binary {binary:?} is no absolute path without spaces, quotes, %, ;, $ and \\"
            ));
        }
        if self.listen.port() == 0 {
            return usage("--port 0 is another port at every start: name one");
        }
        if !self.listen.ip().is_loopback() {
            if !self.allow_network {
                return Err(NodeError::Usage {
                    reason: format!(
                        "{} is an address that other computers reach: add --allow-network",
                        self.listen.ip()
                    ),
                });
            }
            warnings.push(
                "other computers will reach it: it starts only with an admin token that was rotated within 30 days"
                    .to_owned(),
            );
        }
        Ok(Install {
            request: self,
            binary,
            warnings,
        })
    }
}

/// A request that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// What was asked for.
    pub request: Request,
    /// Where the program is.
    pub binary: Utf8PathBuf,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl Install {
    /// The command that does the same again, with everything that matters spelled out.
    #[must_use]
    pub fn command(&self) -> String {
        let request = &self.request;
        let mut words = vec![
            "nimbus node install".to_owned(),
            request.target.flag().to_owned(),
            format!("--{}", request.scope.as_str()),
        ];
        match (request.target, &request.image) {
            (Target::Container, Some(image)) => words.push(format!("--image {image}")),
            _ => words.push(format!("--binary {}", self.binary)),
        }
        let default = Request::new(request.target, request.scope).listen;
        if request.listen.ip() != default.ip() {
            words.push(format!("--host {}", request.listen.ip()));
        }
        if request.listen.port() != default.port() {
            words.push(format!("--port {}", request.listen.port()));
        }
        for (given, flag) in [
            (request.require_digest, "--require-digest"),
            (request.allow_network, "--allow-network"),
            (request.socket_activation, "--socket-activation"),
            (!request.engine, "--without-engine"),
            (request.enable, "--enable"),
            (request.now, "--now"),
        ] {
            if given {
                words.push(flag.to_owned());
            }
        }
        words.join(" ")
    }

    /// Where a probe on this host finds it.
    #[must_use]
    pub fn probe_address(&self) -> SocketAddr {
        probe_address(self.request.listen)
    }
}

/// An address that stands for all of them is asked on loopback.
pub(crate) fn probe_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(Scope::System, |_| None).unwrap()
    }

    fn systemd(change: impl FnOnce(&mut Request)) -> Result<Install, NodeError> {
        let mut request = Request::new(Target::Systemd, Scope::System);
        change(&mut request);
        request.check(&layout(), "")
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        assert!(systemd(|_| ()).is_ok());
        for wrong in ["nimbus", "/opt/my nimbus", "/opt/%h", "/opt/a;b", "/a\nb", ""] {
            let refused = systemd(|request| request.binary = Some(wrong.into())).unwrap_err();
            assert!(refused.to_string().contains("--binary"), "{wrong:?}: {refused}");
        }
        assert!(systemd(|request| request.image = Some("ghcr.io/nimbus/nimbus:1".to_owned())).is_err());
        assert!(systemd(|request| request.listen.set_port(0)).is_err());
        assert!(systemd(|request| request.listen.set_ip([0, 0, 0, 0].into())).is_err());
        let open = systemd(|request| {
            request.listen.set_ip([0, 0, 0, 0].into());
            request.allow_network = true;
        });
        assert_eq!(open.unwrap().probe_address().to_string(), "127.0.0.1:8080");

        let container = |change: fn(&mut Request)| {
            let mut request = Request::new(Target::Container, Scope::System);
            request.image = Some("ghcr.io/nimbus/nimbus:1.2.3".to_owned());
            change(&mut request);
            request.check(&layout(), "")
        };
        let warnings = container(|_| ()).unwrap().warnings;
        assert!(
            warnings.len() == 2
                && warnings[0].contains("add the digest")
                && warnings[1].contains("`sudo podman run --rm -v nimbus-data:/var/lib/nimbus ghcr.io/nimbus/nimbus:1.2.3 auth rotate-admin`"),
            "{warnings:?}"
        );
        assert!(container(|request| request.image = None).is_err());
        assert!(container(|request| request.socket_activation = true).is_err());
        assert!(container(|request| request.require_digest = true).is_err());
    }

    #[test]
    fn the_command_can_be_repeated() {
        let install = systemd(|request| {
            request.listen.set_port(9000);
            request.socket_activation = true;
            request.enable = true;
        });
        assert_eq!(
            install.unwrap().command(),
            "nimbus node install --systemd --system --binary /usr/local/bin/nimbus --port 9000 --socket-activation --enable"
        );
    }
}
