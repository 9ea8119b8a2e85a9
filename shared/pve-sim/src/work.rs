//! What workers do: checks when they begin, effects when they end, traces removed when they fail.

use std::collections::BTreeMap;

use crate::formats;
use crate::guest::{CLOUD_IMAGE, Guest, GuestKind, MAX_DISK};
use crate::options::{Change, is_drive};
use crate::timing::Step;
use crate::world::{Due, File, World};

/// The job of a worker.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Clone {
        source: u32,
        newid: u32,
        node: String,
        target: String,
        change: Change,
        full: bool,
    },
    Create {
        vmid: u32,
        node: String,
        change: Change,
        start: bool,
    },
    Config {
        vmid: u32,
        change: Change,
    },
    Resize {
        vmid: u32,
        disk: String,
        size: String,
    },
    Start {
        vmid: u32,
        agent: bool,
    },
    Stop {
        vmid: u32,
    },
    Shutdown {
        vmid: u32,
    },
    Reboot {
        vmid: u32,
        agent: bool,
    },
    Reset {
        vmid: u32,
        agent: bool,
    },
    Suspend {
        vmid: u32,
    },
    Resume {
        vmid: u32,
    },
    Destroy {
        vmid: u32,
    },
    Template {
        vmid: u32,
    },
    Download {
        file: File,
    },
    DeleteVolume {
        node: String,
        volid: String,
    },
}

impl Work {
    /// The guest whose config file it locks.
    fn locks(&self) -> Option<u32> {
        match self {
            Self::Config { vmid, .. }
            | Self::Resize { vmid, .. }
            | Self::Start { vmid, .. }
            | Self::Stop { vmid }
            | Self::Shutdown { vmid }
            | Self::Reboot { vmid, .. }
            | Self::Reset { vmid, .. }
            | Self::Suspend { vmid }
            | Self::Resume { vmid }
            | Self::Destroy { vmid }
            | Self::Template { vmid } => Some(*vmid),
            Self::Clone { .. } | Self::Create { .. } | Self::Download { .. } | Self::DeleteVolume { .. } => {
                None
            }
        }
    }

    fn step(&self) -> Step {
        match self {
            Self::Clone { full: true, .. } => Step::FullClone,
            Self::Clone { .. } => Step::LinkedClone,
            Self::Create { change, .. } if change.set.values().any(|v| v.contains("import-from")) => {
                Step::Import
            }
            Self::Create { .. } => Step::Create,
            Self::Config { .. } => Step::Config,
            Self::Resize { .. } => Step::Resize,
            Self::Start { .. } => Step::Start,
            Self::Stop { .. } => Step::Stop,
            Self::Shutdown { .. } => Step::Shutdown,
            Self::Reboot { .. } => Step::Reboot,
            Self::Reset { .. } => Step::Reset,
            Self::Suspend { .. } => Step::Suspend,
            Self::Resume { .. } => Step::Resume,
            Self::Destroy { .. } => Step::Destroy,
            Self::Template { .. } => Step::Template,
            Self::Download { .. } => Step::Download,
            Self::DeleteVolume { .. } => Step::DeleteVolume,
        }
    }
}

/// What the beginning of a worker leads to.
enum Begun {
    /// It works until the step's time is over.
    Works,
    /// There is nothing to do.
    Nothing,
    /// It ends with this sentence.
    Fails(String),
}

impl World {
    /// The worker of a task starts.
    pub(crate) fn begin(&mut self, number: u64) {
        let now = self.now;
        let Some(task) = self.tasks.get(number) else {
            return;
        };
        let (Some(work), posted) = (task.work.clone(), task.started) else {
            return;
        };
        if let Some(guest) = work.locks().and_then(|vmid| self.guests.get(&vmid))
            && guest.busy_until > now
        {
            let (free, vmid) = (guest.busy_until, guest.vmid);
            let patience = posted + self.timing.fixed(Step::LockWait);
            if free > patience {
                let text = format!("can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout");
                self.end(number, text);
            } else {
                self.schedule(free, Due::Begin(number));
            }
            return;
        }
        match self.check(&work) {
            Begun::Nothing => self.end(number, "OK".to_owned()),
            Begun::Fails(text) => self.end(number, text),
            Begun::Works => {
                let length = self.step(work.step());
                let until = now + length;
                self.enter(number, &work, until);
                if let Some(guest) = work.locks().and_then(|vmid| self.guests.get_mut(&vmid)) {
                    guest.busy_until = until;
                }
                if let Some(task) = self.tasks.get_mut(number) {
                    task.begun = true;
                }
                self.schedule(until, Due::Finish(number));
            }
        }
    }

    fn end(&mut self, number: u64, exit: String) {
        let now = self.now;
        if let Some(task) = self.tasks.get_mut(number) {
            task.end(now, exit);
            task.work = None;
        }
    }

    /// Refusals that PVE makes inside the worker.
    fn check(&mut self, work: &Work) -> Begun {
        let fails = |text: &str| Begun::Fails(text.to_owned());
        match work {
            Work::Clone { newid, node, .. } => match self.guests.get(newid) {
                Some(other) if other.node == *node => {
                    Begun::Fails(format!("unable to create VM {newid}: config file already exists"))
                }
                Some(_) => Begun::Fails(format!(
                    "close (rename) atomic file '/etc/pve/nodes/{node}/qemu-server/{newid}.conf' failed: File exists"
                )),
                None => Begun::Works,
            },
            Work::Create { vmid, .. } => match self.guests.get(vmid) {
                Some(other) => Begun::Fails(format!(
                    "unable to create VM {vmid} - VM {vmid} already exists on node '{}'",
                    other.node
                )),
                None => Begun::Works,
            },
            Work::Download { file } if self.volume_on(&file.node, &file.volid) => {
                Begun::Fails(format!("refusing to override existing file '{}'", file.volid))
            }
            Work::Download { .. } | Work::DeleteVolume { .. } => Begun::Works,
            Work::Config { vmid, .. }
            | Work::Resize { vmid, .. }
            | Work::Start { vmid, .. }
            | Work::Stop { vmid }
            | Work::Shutdown { vmid }
            | Work::Reboot { vmid, .. }
            | Work::Reset { vmid, .. }
            | Work::Suspend { vmid }
            | Work::Resume { vmid }
            | Work::Destroy { vmid }
            | Work::Template { vmid } => {
                let Some(guest) = self.guests.get(vmid) else {
                    return Begun::Fails(format!(
                        "Configuration file 'nodes/*/qemu-server/{vmid}.conf' does not exist"
                    ));
                };
                if let Some(lock) = guest.lock() {
                    return Begun::Fails(format!("VM is locked ({lock})"));
                }
                match work {
                    Work::Start { .. } if guest.is_template() => {
                        fails("you can't start a vm if it's a template")
                    }
                    Work::Start { .. } if guest.boot.is_some() => {
                        Begun::Fails(format!("VM {vmid} already running"))
                    }
                    Work::Stop { .. } | Work::Shutdown { .. } if guest.boot.is_none() => Begun::Nothing,
                    Work::Reboot { .. } | Work::Reset { .. } | Work::Suspend { .. } | Work::Resume { .. }
                        if guest.boot.is_none() =>
                    {
                        Begun::Fails(format!("VM {vmid} not running"))
                    }
                    Work::Destroy { .. } if guest.boot.is_some() => {
                        Begun::Fails(format!("VM {vmid} is running - destroy failed"))
                    }
                    Work::Resize { disk, size, .. } => check_resize(guest, disk, size),
                    _ => Begun::Works,
                }
            }
        }
    }

    fn volume_on(&self, node: &str, volid: &str) -> bool {
        self.files
            .iter()
            .any(|file| file.node == node && file.volid == volid)
    }

    /// What is to be seen while the worker works.
    fn enter(&mut self, number: u64, work: &Work, until: u64) {
        let now = self.now;
        let mut lines: Vec<(u64, String)> = Vec::new();
        match work {
            Work::Clone {
                source,
                newid,
                node,
                change,
                full,
                ..
            } => {
                let Some(template) = self.guests.get(source) else {
                    return;
                };
                lines = clone_lines(template, *full, now, until);
                let mut guest = Guest {
                    vmid: *newid,
                    kind: GuestKind::Qemu,
                    node: node.clone(),
                    config: template.config.clone(),
                    pending: BTreeMap::new(),
                    boot: None,
                    created: now,
                    busy_until: 0,
                    foreign: false,
                };
                guest.config.remove("template");
                // Disks appear when they have been copied.
                guest.config.retain(|name, _| !is_drive(name));
                guest.config.extend(change.set.clone());
                self.make_unique(&mut guest);
                guest.config.insert("lock".to_owned(), "clone".to_owned());
                self.guests.insert(*newid, guest);
            }
            Work::Create { vmid, node, .. } => {
                let mut guest = Guest {
                    vmid: *vmid,
                    kind: GuestKind::Qemu,
                    node: node.clone(),
                    config: BTreeMap::new(),
                    pending: BTreeMap::new(),
                    boot: None,
                    created: now,
                    busy_until: 0,
                    foreign: false,
                };
                guest.config.insert("lock".to_owned(), "create".to_owned());
                self.guests.insert(*vmid, guest);
            }
            Work::Config { vmid, .. } => lines.push((now, format!("update VM {vmid}"))),
            Work::Start { .. } => lines.push((now, "generating cloud-init ISO".to_owned())),
            Work::Download { file } => lines.push((now, format!("downloading to {}", file.volid))),
            _ => {}
        }
        if let Some(task) = self.tasks.get_mut(number) {
            task.lines.extend(lines);
        }
        self.version += 1;
    }

    fn make_unique(&mut self, guest: &mut Guest) {
        let (uuid, generation) = (self.new_uuid(), self.new_uuid());
        guest.config.insert("smbios1".to_owned(), format!("uuid={uuid}"));
        guest.config.insert("vmgenid".to_owned(), generation);
        let nets: Vec<String> = guest
            .config
            .keys()
            .filter(|name| name.starts_with("net"))
            .cloned()
            .collect();
        for net in nets {
            let mac = self.new_mac();
            if let Some(value) = guest.config.get_mut(&net)
                && let Some((model, rest)) = value.split_once('=')
            {
                let rest = rest
                    .split_once(',')
                    .map(|(_, rest)| format!(",{rest}"))
                    .unwrap_or_default();
                *value = format!("{model}={mac}{rest}");
            }
        }
    }

    /// The worker of a task ends.
    pub(crate) fn finish(&mut self, number: u64) {
        let Some(task) = self.tasks.get_mut(number) else {
            return;
        };
        // Stopped by hand in the meantime.
        if !task.is_running() {
            return;
        }
        let Some(work) = task.work.take() else { return };
        let exit = match task.doom.take() {
            Some(doom) if doom.starts_with("WARNINGS") || doom == "OK" => match self.carry_out(work) {
                Ok(()) => doom,
                Err(text) => text,
            },
            Some(doom) => {
                self.undo(&work);
                doom
            }
            None => match self.carry_out(work) {
                Ok(()) => "OK".to_owned(),
                Err(text) => text,
            },
        };
        self.version += 1;
        self.end(number, exit);
    }

    /// Ends a task before its time.
    pub(crate) fn abort(&mut self, number: u64) {
        let Some(task) = self.tasks.get_mut(number).filter(|task| task.is_running()) else {
            return;
        };
        let begun = task.begun;
        if let Some(work) = task.work.take()
            && begun
        {
            self.undo(&work);
        }
        self.version += 1;
        self.end(number, "interrupted by signal".to_owned());
    }

    /// A worker that fails takes its half-made guest away and lets the lock go.
    fn undo(&mut self, work: &Work) {
        match work {
            Work::Clone { newid, .. } => {
                self.guests.remove(newid);
            }
            Work::Create { vmid, .. } => {
                self.guests.remove(vmid);
            }
            other => {
                let now = self.now;
                if let Some(guest) = other.locks().and_then(|vmid| self.guests.get_mut(&vmid)) {
                    guest.busy_until = now;
                }
            }
        }
    }

    fn carry_out(&mut self, work: Work) -> Result<(), String> {
        let gone = |vmid: u32| format!("Configuration file 'nodes/*/qemu-server/{vmid}.conf' does not exist");
        match work {
            Work::Clone {
                source,
                newid,
                target,
                full,
                ..
            } => {
                let disks = self
                    .guests
                    .get(&source)
                    .map(|template| copied_disks(template, newid, full));
                let disks = disks.ok_or_else(|| format!("clone failed: {}", gone(source)))?;
                let guest = self.guests.get_mut(&newid).ok_or_else(|| gone(newid))?;
                guest.config.remove("lock");
                guest.config.extend(disks);
                guest.node = target;
            }
            Work::Create {
                vmid, change, start, ..
            } => {
                let uuid = self.new_uuid();
                let guest = self.guests.get_mut(&vmid).ok_or_else(|| gone(vmid))?;
                guest.config.remove("lock");
                guest
                    .config
                    .entry("smbios1".to_owned())
                    .or_insert_with(|| format!("uuid={uuid}"));
                guest
                    .config
                    .entry("memory".to_owned())
                    .or_insert_with(|| "512".to_owned());
                let made = guest.apply(change);
                if let Err(text) = made {
                    self.guests.remove(&vmid);
                    return Err(format!("unable to create VM {vmid} - {text}"));
                }
                if start {
                    self.boot(vmid, true);
                }
            }
            Work::Config { vmid, change } => {
                let guest = self.guests.get_mut(&vmid).ok_or_else(|| gone(vmid))?;
                let before = guest.clone();
                if let Err(text) = guest.apply(change) {
                    *guest = before;
                    return Err(text);
                }
            }
            Work::Resize { vmid, disk, size } => {
                let guest = self.guests.get_mut(&vmid).ok_or_else(|| gone(vmid))?;
                resize(guest, &disk, &size);
            }
            Work::Start { vmid, agent } | Work::Reboot { vmid, agent } | Work::Reset { vmid, agent } => {
                self.boot(vmid, agent)
            }
            Work::Stop { vmid } | Work::Shutdown { vmid } => {
                let guest = self.guests.get_mut(&vmid).ok_or_else(|| gone(vmid))?;
                guest.boot = None;
                guest.apply_pending();
            }
            Work::Suspend { vmid } => self.pause(vmid, true),
            Work::Resume { vmid } => self.pause(vmid, false),
            Work::Destroy { vmid } => {
                self.guests.remove(&vmid);
                self.execs.retain(|_, exec| exec.vmid != vmid);
            }
            Work::Template { vmid } => {
                let guest = self.guests.get_mut(&vmid).ok_or_else(|| gone(vmid))?;
                guest.config.insert("template".to_owned(), "1".to_owned());
                for (name, value) in &mut guest.config {
                    if is_drive(name) {
                        *value = value.replace(&format!(":vm-{vmid}-disk"), &format!(":base-{vmid}-disk"));
                    }
                }
            }
            Work::Download { file } => self.files.push(file),
            Work::DeleteVolume { node, volid } => {
                self.files.retain(|file| file.node != node || file.volid != volid)
            }
        }
        Ok(())
    }

    fn pause(&mut self, vmid: u32, paused: bool) {
        if let Some(boot) = self.guests.get_mut(&vmid).and_then(|guest| guest.boot.as_mut()) {
            boot.paused = paused;
        }
    }
}

fn clone_lines(template: &Guest, full: bool, now: u64, until: u64) -> Vec<(u64, String)> {
    let mut lines = Vec::new();
    for (slot, volume, size) in template
        .disks()
        .filter(|(_, volume, _)| !volume.contains("cloudinit"))
    {
        if !full {
            lines.push((now, format!("create linked clone of drive {slot} ({volume})")));
            continue;
        }
        lines.push((now, format!("create full clone of drive {slot} ({volume})")));
        for tenth in 0..=10 {
            let mib = (size >> 20) * tenth / 10;
            let text = format!("transferred {mib} MiB of {} MiB ({}.00%)", size >> 20, tenth * 10);
            lines.push((now + (until - now) * tenth / 10, text));
        }
    }
    lines
}

fn copied_disks(template: &Guest, newid: u32, full: bool) -> Vec<(String, String)> {
    let own = format!("-{}-", template.vmid);
    let disks = template.config.iter().filter(|(name, _)| is_drive(name));
    disks
        .map(|(name, value)| {
            let (volume, rest) = value.split_once(',').unwrap_or((value, ""));
            let (storage, file) = volume.split_once(':').unwrap_or(("", volume));
            let copy = file.replace("base-", "vm-").replace(&own, &format!("-{newid}-"));
            let base = if full || file.contains("cloudinit") {
                String::new()
            } else {
                format!("{file}/")
            };
            let rest = if rest.is_empty() {
                String::new()
            } else {
                format!(",{rest}")
            };
            if storage.is_empty() {
                (name.clone(), value.clone())
            } else {
                (name.clone(), format!("{storage}:{base}{copy}{rest}"))
            }
        })
        .collect()
}

/// Bytes a disk will have, and has now.
fn sizes(guest: &Guest, disk: &str, size: &str) -> Option<(u64, u64)> {
    let now = formats::prop(guest.option(disk)?, "size")
        .and_then(formats::parse_size)
        .unwrap_or(CLOUD_IMAGE);
    let wanted = match size.strip_prefix('+') {
        Some(more) => now.checked_add(formats::parse_size(more)?)?,
        None => formats::parse_size(size)?,
    };
    Some((wanted, now))
}

fn check_resize(guest: &Guest, disk: &str, size: &str) -> Begun {
    let Some(value) = guest.option(disk) else {
        return Begun::Fails(format!("disk '{disk}' does not exist"));
    };
    if value.contains("media=cdrom") {
        return Begun::Fails("you can't resize a cdrom".to_owned());
    }
    match sizes(guest, disk, size) {
        Some((wanted, now)) if wanted < now => Begun::Fails("shrinking disks is not supported".to_owned()),
        Some((wanted, now)) if wanted == now => Begun::Nothing,
        Some((wanted, _)) if wanted > MAX_DISK => {
            Begun::Fails("lvextend error: insufficient free space".to_owned())
        }
        Some(_) => Begun::Works,
        None => Begun::Fails(format!("unable to parse size '{size}'")),
    }
}

fn resize(guest: &mut Guest, disk: &str, size: &str) {
    let Some((wanted, _)) = sizes(guest, disk, size) else {
        return;
    };
    if let Some(value) = guest.config.get_mut(disk) {
        let parts: Vec<&str> = value
            .split(',')
            .filter(|part| !part.starts_with("size="))
            .collect();
        *value = format!("{},size={}", parts.join(","), formats::format_size(wanted));
    }
}
