//! Where a machine goes: gates, score, choice. Pure; the cluster's figures are arguments.
//!
//! ```text
//! need      = (tier memory + buffer)
//! mem_head  = clamp01((free_mem - need) / maxmem)          free_mem = maxmem × ram_ratio − max(used, committed)
//! cpu_head  = clamp01((1 − load) − K × vcpu / threads)
//! disk_head = clamp01((free_disk − tier disk) / total_disk)
//! score     = 0.45 mem + 0.30 cpu + 0.25 disk              without a disk gate: 0.60 mem + 0.40 cpu
//! ```

use nimbus_model::{Os, Tier};
use nimbus_proto::node::{Refusal, Score};

use crate::config::ProvisionerConfig;

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;
/// Nodes whose scores differ by less are equal; then the one with fewer guests wins.
const TIE: f64 = 0.05;

/// What placement knows of one node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) online: bool,
    /// CPU load, 0 to 1.
    pub(crate) cpu: f64,
    pub(crate) threads: u32,
    pub(crate) mem_used: u64,
    pub(crate) mem_total: u64,
    /// Memory of all guests, stopped ones and machines in the making included.
    pub(crate) mem_committed: u64,
    pub(crate) cpu_committed: u32,
    /// The disk that machines go to; none when the node does not list it.
    pub(crate) disk: Option<DiskFacts>,
    pub(crate) guests: u32,
    pub(crate) templates: Vec<Os>,
}

/// The storage of machines' disks on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskFacts {
    pub(crate) used: u64,
    pub(crate) total: u64,
    /// Promised to machines in the making, not yet in `used`.
    pub(crate) promised: u64,
}

/// The operator's rules.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) excluded: Vec<String>,
    pub(crate) buffer_mib: u64,
    pub(crate) load_factor: f64,
    pub(crate) cpu_ratio: f64,
    pub(crate) ram_ratio: f64,
    pub(crate) disk_ratio: f64,
    /// Whether disks are looked at.
    pub(crate) disk_gate: bool,
}

impl Rules {
    pub(crate) fn of(config: &ProvisionerConfig) -> Self {
        let at_least_one = |ratio: f64, default: f64| if ratio >= 1.0 { ratio.min(64.0) } else { default };
        Self {
            excluded: config.excluded_nodes.0.clone(),
            buffer_mib: config.mem_buffer_mib,
            load_factor: config.cpu_load_factor.clamp(0.25, 1.0),
            cpu_ratio: at_least_one(config.cpu_ratio, 4.0),
            ram_ratio: at_least_one(config.ram_ratio, 1.0),
            disk_ratio: at_least_one(config.disk_ratio, 1.0),
            disk_gate: !config.disk_storage.is_empty(),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes below 2^53 are exact, and above it a score needs no more"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

fn clamp01(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

/// Every reason against the node, and its score; 0 when there is a reason.
pub(crate) fn score(node: &NodeFacts, tier: Tier, os: Option<Os>, rules: &Rules) -> Score {
    let mut reasons = Vec::new();
    if !node.online {
        reasons.push(Refusal::Offline);
    }
    if rules.excluded.contains(&node.name) {
        reasons.push(Refusal::Excluded);
    }
    if os.is_some_and(|os| !node.templates.contains(&os)) {
        reasons.push(Refusal::NoTemplate);
    }
    if node.mem_total == 0 {
        reasons.push(Refusal::NoCapacity);
    }
    if f64::from(node.cpu_committed) + f64::from(tier.vcpu())
        > (f64::from(node.threads) * rules.cpu_ratio).floor()
    {
        reasons.push(Refusal::InsufficientCores);
    }
    let free_mem = float(node.mem_total) * rules.ram_ratio - float(node.mem_used.max(node.mem_committed));
    let need = float(tier.memory_mib() + rules.buffer_mib) * MIB;
    if free_mem < need {
        reasons.push(Refusal::InsufficientMem);
    }
    let tier_disk = float(tier.disk_gib()) * GIB;
    let (free_disk, total_disk) = node.disk.map_or((0.0, 0.0), |disk| {
        (
            float(disk.total) * rules.disk_ratio - float(disk.used) - float(disk.promised),
            float(disk.total),
        )
    });
    if rules.disk_gate && free_disk < tier_disk {
        reasons.push(Refusal::InsufficientDisk);
    }

    let mem_headroom = if node.mem_total == 0 {
        0.0
    } else {
        clamp01((free_mem - need) / float(node.mem_total))
    };
    let cpu_headroom = if node.threads == 0 {
        0.0
    } else {
        clamp01((1.0 - node.cpu) - rules.load_factor * f64::from(tier.vcpu()) / f64::from(node.threads))
    };
    let disk_headroom = if rules.disk_gate && total_disk > 0.0 {
        clamp01((free_disk - tier_disk) / total_disk)
    } else {
        0.0
    };
    let (mem_weight, cpu_weight, disk_weight) = if rules.disk_gate {
        (0.45, 0.30, 0.25)
    } else {
        (0.60, 0.40, 0.0)
    };
    let (mem_weighted, cpu_weighted, disk_weighted) = (
        mem_weight * mem_headroom,
        cpu_weight * cpu_headroom,
        disk_weight * disk_headroom,
    );
    let gib_per_thread = float(node.mem_total) / GIB / f64::from(node.threads.max(1));
    let spec = if gib_per_thread < 4.0 {
        "cpu"
    } else if gib_per_thread > 8.0 {
        "memory"
    } else {
        "balanced"
    };
    Score {
        score: if reasons.is_empty() {
            mem_weighted + cpu_weighted + disk_weighted
        } else {
            0.0
        },
        mem_headroom,
        cpu_headroom,
        disk_headroom,
        mem_weighted,
        cpu_weighted,
        disk_weighted,
        spec: spec.to_owned(),
        reasons,
    }
}

/// The chosen node and its score, or what is against each.
pub(crate) struct Choice<'a> {
    pub(crate) winner: Option<(&'a NodeFacts, Score)>,
    pub(crate) rejected: Vec<(String, Vec<Refusal>)>,
}

/// Among the nodes within [`TIE`] of the best score: fewest guests, then higher score, then name.
pub(crate) fn choose<'a>(nodes: &'a [NodeFacts], tier: Tier, os: Option<Os>, rules: &Rules) -> Choice<'a> {
    let scored: Vec<(&NodeFacts, Score)> = nodes
        .iter()
        .map(|node| (node, score(node, tier, os, rules)))
        .collect();
    let best = scored.iter().map(|(_, score)| score.score).fold(0.0, f64::max);
    let rejected = scored
        .iter()
        .filter(|(_, score)| !score.reasons.is_empty())
        .map(|(node, score)| (node.name.clone(), score.reasons.clone()))
        .collect();
    let winner = scored
        .into_iter()
        .filter(|(_, score)| score.reasons.is_empty() && score.score > 0.0 && score.score >= best - TIE)
        .min_by(|(a, a_score), (b, b_score)| {
            a.guests
                .cmp(&b.guests)
                .then(b_score.score.total_cmp(&a_score.score))
                .then_with(|| a.name.cmp(&b.name))
        });
    Choice { winner, rejected }
}

/// How many more machines of this size the nodes take, one after the other, at most `most`.
pub(crate) fn fits(nodes: &[NodeFacts], tier: Tier, os: Option<Os>, rules: &Rules, most: u32) -> u32 {
    let mut nodes = nodes.to_vec();
    let mut count = 0;
    while count < most {
        let Some(name) = choose(&nodes, tier, os, rules)
            .winner
            .map(|(node, _)| node.name.clone())
        else {
            break;
        };
        if let Some(node) = nodes.iter_mut().find(|node| node.name == name) {
            promise(node, tier);
        }
        count += 1;
    }
    count
}

/// Counts a machine that is promised to a node, before the cluster shows it.
pub(crate) fn promise(node: &mut NodeFacts, tier: Tier) {
    node.mem_committed = node.mem_committed.saturating_add(tier.memory_mib() << 20);
    node.cpu_committed = node.cpu_committed.saturating_add(tier.vcpu());
    node.guests = node.guests.saturating_add(1);
    if let Some(disk) = &mut node.disk {
        disk.promised = disk.promised.saturating_add(tier.disk_gib() << 30);
    }
}

/// The reason for a choice, in words.
pub(crate) fn explain(winner: &Score, disk_gate: bool) -> String {
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let mut parts = vec![
        format!("{} of its memory", percent(winner.mem_headroom)),
        format!("{} of its CPU", percent(winner.cpu_headroom)),
    ];
    if disk_gate {
        parts.push(format!("{} of its disk", percent(winner.disk_headroom)));
    }
    let last = parts.pop().unwrap_or_default();
    format!("With this machine, {} and {last} stay free.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const G: u64 = 1 << 30;

    fn rules(disk_gate: bool) -> Rules {
        Rules {
            excluded: vec![],
            buffer_mib: 256,
            load_factor: 0.5,
            cpu_ratio: 4.0,
            ram_ratio: 1.0,
            disk_ratio: 1.0,
            disk_gate,
        }
    }

    fn node(
        name: &str,
        mem: (u64, u64, u64),
        cpu: f64,
        threads: u32,
        disk: (u64, u64),
        guests: u32,
    ) -> NodeFacts {
        NodeFacts {
            name: name.into(),
            online: true,
            cpu,
            threads,
            mem_total: mem.0,
            mem_used: mem.1,
            mem_committed: mem.2,
            cpu_committed: 0,
            disk: Some(DiskFacts {
                total: disk.0 * G,
                used: disk.1 * G,
                promised: 0,
            }),
            guests,
            templates: vec![Os::Debian12],
        }
    }

    /// Three nodes whose scores were computed by hand.
    fn three() -> Vec<NodeFacts> {
        vec![
            node("A", (64 * G, 20 * G, 24 * G), 0.10, 16, (800, 200), 9),
            node("B", (32 * G, 14 * G, 10 * G), 0.05, 8, (400, 100), 1),
            node("C", (16 * G, 13 * G + 9 * G / 10, 8 * G), 0.20, 8, (400, 385), 0),
        ]
    }

    #[test]
    fn the_worked_example_is_reproduced() {
        let nodes = three();
        let scores: Vec<Score> = nodes
            .iter()
            .map(|n| score(n, Tier::Medium, Some(Os::Debian12), &rules(true)))
            .collect();
        for (got, want) in [
            (scores[0].score, 0.694_805),
            (scores[1].score, 0.637_734),
            (scores[0].mem_headroom, 0.589_844),
            (scores[0].cpu_headroom, 0.837_5),
            (scores[0].disk_headroom, 0.712_5),
        ] {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
        assert_eq!(
            scores[2].reasons,
            [Refusal::InsufficientMem, Refusal::InsufficientDisk]
        );
        let without: Vec<f64> = nodes
            .iter()
            .map(|n| score(n, Tier::Medium, Some(Os::Debian12), &rules(false)).score)
            .collect();
        assert!(
            (without[0] - 0.688_906).abs() < 1e-6 && (without[1] - 0.625_312).abs() < 1e-6,
            "{without:?}"
        );
        // A leads by 0.057, more than a tie, so its many guests do not matter.
        assert_eq!(
            choose(&nodes, Tier::Medium, Some(Os::Debian12), &rules(true))
                .winner
                .unwrap()
                .0
                .name,
            "A"
        );
    }

    #[test]
    fn within_a_tie_the_emptier_node_wins() {
        let mut nodes = three();
        nodes[1].mem_used = 13 * G;
        let choice = choose(&nodes, Tier::Medium, Some(Os::Debian12), &rules(true));
        assert_eq!(choice.winner.unwrap().0.name, "B");
        assert_eq!(choice.rejected.len(), 1);
    }

    #[test]
    fn a_dead_node_lists_every_reason() {
        let dead = NodeFacts {
            online: false,
            cpu: 0.0,
            threads: 0,
            mem_used: 0,
            mem_total: 0,
            disk: None,
            templates: vec![],
            ..node("X", (0, 0, 0), 0.0, 0, (0, 0), 0)
        };
        let excluded = Rules {
            excluded: vec!["X".into()],
            ..rules(true)
        };
        assert_eq!(
            score(&dead, Tier::Small, Some(Os::Debian12), &excluded).reasons,
            [
                Refusal::Offline,
                Refusal::Excluded,
                Refusal::NoTemplate,
                Refusal::NoCapacity,
                Refusal::InsufficientCores,
                Refusal::InsufficientMem,
                Refusal::InsufficientDisk
            ]
        );
    }

    #[test]
    fn an_unset_disk_storage_turns_the_gate_off() {
        let mut full = three().remove(2);
        full.mem_used = 0;
        assert_eq!(
            score(&full, Tier::Medium, None, &rules(true)).reasons,
            [Refusal::InsufficientDisk]
        );
        assert!(score(&full, Tier::Medium, None, &rules(false)).reasons.is_empty());
    }

    proptest! {
        #[test]
        fn scores_are_fractions_and_refused_nodes_never_win(
            facts in proptest::collection::vec((0u64..200, 0u64..200, 0u64..200, 0.0f64..1.2, 0u32..64, 0u64..2000, 0u64..2000, 0u32..50, any::<bool>()), 0..8),
            gate: bool,
        ) {
            let nodes: Vec<NodeFacts> = facts.iter().enumerate().map(|(i, f)| NodeFacts {
                online: f.8, ..node(&format!("n{i}"), (f.0 * G, f.1 * G, f.2 * G), f.3, f.4, (f.5, f.6), f.7)
            }).collect();
            for tier in Tier::all() {
                let choice = choose(&nodes, *tier, Some(Os::Debian12), &rules(gate));
                for n in &nodes {
                    let s = score(n, *tier, Some(Os::Debian12), &rules(gate));
                    prop_assert!((0.0..=1.0).contains(&s.score));
                    prop_assert_eq!(s.reasons.is_empty(), !choice.rejected.iter().any(|(name, _)| *name == n.name));
                }
                if let Some((winner, won)) = choice.winner {
                    prop_assert!(won.reasons.is_empty() && winner.online);
                    // Fits is the number of times the same choice can be made.
                    prop_assert!(fits(&nodes, *tier, Some(Os::Debian12), &rules(gate), 3) >= 1);
                }
            }
        }
    }
}
