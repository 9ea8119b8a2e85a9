//! What can be ordered: sizes and operating systems.

use serde::{Deserialize, Serialize};
use strum::VariantArray;

/// A size of machine.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Tier {
    /// 1 vCPU, 1 GiB, 15 GiB disk.
    Small,
    /// 2 vCPU, 2 GiB, 30 GiB disk.
    Medium,
    /// 4 vCPU, 4 GiB, 60 GiB disk.
    Large,
    /// 8 vCPU, 8 GiB, 120 GiB disk; administrators only.
    Xl,
}

impl Tier {
    /// Virtual CPUs.
    #[must_use]
    pub const fn vcpu(self) -> u32 {
        match self {
            Self::Small => 1,
            Self::Medium => 2,
            Self::Large => 4,
            Self::Xl => 8,
        }
    }

    /// Memory in MiB.
    #[must_use]
    pub const fn memory_mib(self) -> u64 {
        match self {
            Self::Small => 1024,
            Self::Medium => 2048,
            Self::Large => 4096,
            Self::Xl => 8192,
        }
    }

    /// Disk in GiB.
    #[must_use]
    pub const fn disk_gib(self) -> u64 {
        match self {
            Self::Small => 15,
            Self::Medium => 30,
            Self::Large => 60,
            Self::Xl => 120,
        }
    }

    /// Whether only administrators may order it.
    #[must_use]
    pub const fn admin_only(self) -> bool {
        matches!(self, Self::Xl)
    }

    /// Its name in requests and tables.
    #[must_use]
    pub fn key(self) -> &'static str {
        self.into()
    }

    /// All sizes, smallest first.
    #[must_use]
    pub fn all() -> &'static [Self] {
        Self::VARIANTS
    }
}

/// An operating system that machines can run.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    VariantArray,
)]
pub enum Os {
    /// Ubuntu 24.04 LTS.
    #[serde(rename = "ubuntu-24.04")]
    #[strum(serialize = "ubuntu-24.04")]
    Ubuntu2404,
    /// Ubuntu 22.04 LTS.
    #[serde(rename = "ubuntu-22.04")]
    #[strum(serialize = "ubuntu-22.04")]
    Ubuntu2204,
    /// Debian 12.
    #[serde(rename = "debian-12")]
    #[strum(serialize = "debian-12")]
    Debian12,
    /// Debian 11.
    #[serde(rename = "debian-11")]
    #[strum(serialize = "debian-11")]
    Debian11,
}

impl Os {
    /// Its name in requests, tables and template tags.
    #[must_use]
    pub fn key(self) -> &'static str {
        self.into()
    }

    /// Its name for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ubuntu2404 => "Ubuntu 24.04 LTS",
            Self::Ubuntu2204 => "Ubuntu 22.04 LTS",
            Self::Debian12 => "Debian 12",
            Self::Debian11 => "Debian 11",
        }
    }

    /// The login user that cloud-init sets up in its cloud image.
    #[must_use]
    pub const fn user(self) -> &'static str {
        match self {
            Self::Ubuntu2404 | Self::Ubuntu2204 => "ubuntu",
            Self::Debian12 | Self::Debian11 => "debian",
        }
    }

    /// Every operating system, newest first.
    #[must_use]
    pub fn all() -> &'static [Self] {
        Self::VARIANTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for os in Os::all() {
            assert_eq!(os.key().parse::<Os>().unwrap(), *os);
        }
        for tier in Tier::all() {
            assert_eq!(tier.key().parse::<Tier>().unwrap(), *tier);
        }
        assert!("windows".parse::<Os>().is_err());
    }
}
