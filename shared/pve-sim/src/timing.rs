//! How long things take.
//!
//! Times are what a small cluster with local SSDs shows (clone of a 3.5 GiB image, boot of a cloud
//! image until its agent answers); waits of the API itself are the ones PVE has built in. All of them
//! are multiplied by the latency scale, and the work of tasks varies by a tenth with the seed.

use rand::{Rng, RngExt as _};

/// Something that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    WorkerStart,
    FullClone,
    LinkedClone,
    Create,
    Import,
    Config,
    Resize,
    Start,
    AgentUp,
    AddressUp,
    Stop,
    Shutdown,
    Reboot,
    Reset,
    Suspend,
    Resume,
    Destroy,
    Template,
    Download,
    DeleteVolume,
    GuestCommand,
    LockWait,
    Refresh,
    AuthRefused,
    AgentProbe,
}

impl Step {
    /// Milliseconds at scale 1.
    fn base(self) -> u64 {
        match self {
            Self::WorkerStart => 50,
            Self::FullClone => 25_000,
            Self::LinkedClone => 1_500,
            Self::Create => 1_000,
            Self::Import => 12_000,
            Self::Config => 200,
            Self::Resize => 500,
            Self::Start => 3_000,
            Self::AgentUp => 15_000,
            Self::AddressUp => 1_000,
            Self::Stop => 1_000,
            Self::Shutdown => 4_000,
            Self::Reboot => 6_000,
            Self::Reset => 300,
            Self::Suspend => 400,
            Self::Resume => 200,
            Self::Destroy => 2_000,
            Self::Template => 1_500,
            Self::Download => 20_000,
            Self::DeleteVolume => 300,
            Self::GuestCommand => 200,
            // From here on: constants of PVE.
            Self::LockWait => 10_000,
            Self::Refresh => 10_000,
            Self::AuthRefused | Self::AgentProbe => 3_000,
        }
    }

    fn varies(self) -> bool {
        !matches!(
            self,
            Self::LockWait | Self::Refresh | Self::AuthRefused | Self::AgentProbe | Self::WorkerStart
        )
    }
}

/// The latency scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    scale: f64,
}

impl Timing {
    pub(crate) fn new(scale: f64) -> Self {
        Self {
            scale: if scale.is_finite() {
                scale.clamp(0.0, 1000.0)
            } else {
                1.0
            },
        }
    }

    /// Milliseconds of a step whose length does not vary.
    pub(crate) fn fixed(self, step: Step) -> u64 {
        std::time::Duration::from_millis(step.base())
            .mul_f64(self.scale)
            .as_millis()
            .try_into()
            .unwrap_or(u64::MAX)
    }

    /// Milliseconds of a step.
    pub(crate) fn of(self, step: Step, rng: &mut impl Rng) -> u64 {
        let whole = self.fixed(step);
        if !step.varies() {
            return whole;
        }
        let percent: u64 = rng.random_range(90..=110);
        whole * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_zero_is_immediate() {
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        assert_eq!(Timing::new(0.0).of(Step::FullClone, &mut rng), 0);
        assert_eq!(Timing::new(0.5).fixed(Step::AgentProbe), 1_500);
        let clone = Timing::new(1.0).of(Step::FullClone, &mut rng);
        assert!((22_500..=27_500).contains(&clone), "{clone}");
    }
}
