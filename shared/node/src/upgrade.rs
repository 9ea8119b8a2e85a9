//! Another program in place of the one that runs, and back if it does not serve.
//!
//! ```text
//! stage beside ▶ says its version ▶ keep the old ▶ swap ▶ restart ▶ /ready ▶ done
//!                                                             └─ fails ▶ swap back ▶ restart ▶ /ready
//! ```
//! The place of the program is never empty: names are changed, and a crash in between leaves one or the other.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::commands::Commands;
use crate::error::NodeError;
use crate::files;
use crate::installed::Installed;
use crate::layout::{Layout, Target};
use crate::manifest::Manifest;
use crate::plan::allowed;
use crate::probe;
use crate::request::probe_address;

/// A program to put in place of the installed one.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// Where the node is.
    pub layout: Layout,
    /// The new program.
    pub program: Utf8PathBuf,
    /// How long it may take to get ready, once it is started.
    pub ready_within: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// It is the program that is there.
    Same {
        /// Its version.
        version: String,
    },
    /// It serves.
    Serves {
        /// The version before.
        from: String,
        /// The version now.
        to: String,
    },
    /// It is in its place, and nothing was running that could be asked.
    Placed {
        /// The version before.
        from: String,
        /// The version now.
        to: String,
    },
}

impl Upgrade {
    /// Does it; `say` hears what happens.
    ///
    /// # Errors
    /// [`NodeError::RolledBack`] if the old program is back and serves, [`NodeError::Down`] if it is back
    /// and does not; everything else leaves the old one running.
    pub fn run(&self, commands: &dyn Commands, mut say: impl FnMut(&str)) -> Result<Upgraded, NodeError> {
        let scope = self.layout.scope;
        let mut installed = Installed::read(&self.layout, Target::Systemd)?;
        if installed.is_none() && Manifest::read(&self.layout)?.is_some() {
            return Err(NodeError::Usage {
                reason: "a container gets another release through `nimbus node install --container --image … --overwrite --now`".to_owned(),
            });
        }
        let installed = installed.as_mut().ok_or(NodeError::NotInstalled {
            scope: scope.as_str(),
        })?;
        allowed(scope)?;
        let unit = installed.unit();
        let place = installed.place(&self.layout);
        let new = version(commands, &self.program)?;
        if files::digest(&place)? == files::digest(&self.program)? {
            return Ok(Upgraded::Same { version: new });
        }
        let old = version(commands, &place).unwrap_or_else(|_| "what was there".to_owned());
        let systemctl = |words: &[&str]| scope.systemctl(words);
        let active = |unit: &str| {
            let words = systemctl(&["is-active", "--quiet", unit]);
            commands.run(&words).is_ok_and(|ran| ran.ok())
        };
        let node = installed.node().map(|manifest| &manifest.request);
        let socket = node.is_some_and(|request| request.socket_activation);
        let serves = active(unit) || (socket && active("nimbus.socket"));
        // An agent has no address to ask: its unit counts as started once it is ready.
        let address = node.map(|request| probe_address(request.listen));

        let staged = files::stage(&self.program, &place)?;
        let kept = files::keep(&place)?;
        files::swap(&staged, &place)?;
        say(&format!("{place}: {old} -> {new}"));
        if !serves {
            files::remove(&kept)?;
            installed.replaced(&self.layout)?;
            return Ok(Upgraded::Placed { from: old, to: new });
        }
        let start = |say: &mut dyn FnMut(&str)| -> Result<(), String> {
            say(&format!("restarting {unit}"));
            let restart = systemctl(&["restart", unit]);
            match commands.run(&restart) {
                Ok(ran) if ran.ok() => {}
                Ok(ran) => return Err(first_line(&ran.stderr)),
                Err(error) => return Err(error.to_string()),
            }
            let Some(address) = address else {
                return Ok(());
            };
            say(&format!("waiting for http://{address}/ready"));
            probe::wait(address, self.ready_within, || {
                if active(unit) {
                    Ok(())
                } else {
                    Err(format!("{unit} is not active any more"))
                }
            })
        };
        let Err(reason) = start(&mut say) else {
            files::remove(&kept)?;
            installed.replaced(&self.layout)?;
            return Ok(Upgraded::Serves { from: old, to: new });
        };
        say(&format!("{new} failed: {reason}"));
        files::swap(&kept, &place)?;
        say(&format!("{place}: {new} -> {old}"));
        // Too many failed starts in a row would forbid the good one.
        let _ = commands.run(&systemctl(&["reset-failed", unit]));
        Err(match start(&mut say) {
            Ok(()) => NodeError::RolledBack { new, old, reason },
            Err(after) => NodeError::Down {
                new,
                old,
                reason,
                after,
            },
        })
    }
}

/// What a program says that it is, which also shows that it runs on this host.
pub(crate) fn version(commands: &dyn Commands, program: &Utf8Path) -> Result<String, NodeError> {
    let unusable = |reason: String| NodeError::Unusable {
        program: program.to_owned(),
        reason,
    };
    let ran = commands
        .run(&[program.to_string(), "version".to_owned()])
        .map_err(|error| unusable(error.to_string()))?;
    let said = ran.stdout.trim();
    if ran.ok() && said.starts_with("nimbus ") {
        return Ok(first_line(said));
    }
    Err(unusable(match ran.code {
        Some(0) => format!("it says {:?} instead of its version", first_line(said)),
        code => format!(
            "`{program} version` ended with {code:?}: {}",
            first_line(&ran.stderr)
        ),
    }))
}

/// The first line, as part of a sentence of ours.
fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or("no reason was given");
    line.trim_end_matches('.').to_owned()
}
