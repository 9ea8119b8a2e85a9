//! Making the books agree with the cluster. [`plan`] decides and is pure; [`run`] looks and acts.
//!
//! | The cluster says | The books say | What is done |
//! |---|---|---|
//! | VM v has it | v has it | noted as seen |
//! | v has it | w has it | nothing: a conflict, for a person to decide |
//! | v has it | free, promised, or an unknown host has it | v has it, adopted |
//! | nobody has it | promised longer than the reservation's time | free |
//! | nobody has it | promised | nothing |
//! | nobody has it | in use, its guest's node cannot be seen | nothing |
//! | nobody has it | in use | a miss; free when there are enough in a row |
//! | nobody has it | an unknown host has it, or free | nothing |

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use nimbus_model::Timestamp;
use nimbus_proto::ippool::{AddressSource, AddressStatus, Conflict};

use crate::snapshot::{Guest, Snapshot, Whereabouts};
use crate::state::Row;

pub(crate) mod run;

/// The rules' numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) reservation_ttl: Duration,
    /// Misses in a row after which an address is free.
    pub(crate) vacate_after: u32,
    /// Whether this run counts misses. Runs that a sign-in starts do not, or a busy day would free
    /// addresses in seconds.
    pub(crate) count_misses: bool,
}

/// What is known about the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) whereabouts: &'a Whereabouts,
    /// Nodes whose guests may run although they do not show.
    pub(crate) away: &'a BTreeSet<String>,
}

/// What to do with one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Its guest has it.
    Seen(Guest),
    /// A guest has it that the books do not know of.
    Adopt(Guest),
    /// The promise ran out.
    Expire,
    /// Its guest does not show, and could not.
    Spare,
    /// Its guest does not show.
    Miss,
    /// Its guest is gone.
    Vacate,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<(Row, Action)>,
    pub(crate) conflicts: Vec<Conflict>,
    /// Rows that are as the cluster says.
    pub(crate) no_ops: u32,
}

/// Compares the books with the cluster.
pub(crate) fn plan(rows: &[Row], real: Real<'_>, policy: Policy, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for row in rows {
        match real.snapshot.held.get(&row.ip).map(Vec::as_slice) {
            Some([first, others @ ..]) => plan.held(row, first, others),
            Some([]) | None => plan.not_held(row, real, policy, now),
        }
    }
    plan
}

impl Plan {
    fn held(&mut self, row: &Row, first: &Guest, others: &[Guest]) {
        let Some(local) = row.vmid.filter(|_| row.status == AddressStatus::Allocated) else {
            self.actions.push((row.clone(), Action::Adopt(first.clone())));
            // Two guests with one address: the books can only name one of them.
            self.conflicts
                .extend(others.iter().map(|other| conflict(row.ip, first.vmid, other)));
            return;
        };
        for guest in std::iter::once(first).chain(others) {
            if guest.vmid == local {
                self.actions.push((row.clone(), Action::Seen(guest.clone())));
                self.no_ops += 1;
            } else {
                self.conflicts.push(conflict(row.ip, local, guest));
            }
        }
    }

    fn not_held(&mut self, row: &Row, real: Real<'_>, policy: Policy, now: Timestamp) {
        match row.status {
            AddressStatus::Free => {}
            AddressStatus::Reserved => {
                let expired = row
                    .reserved_at
                    .is_none_or(|at| now.since(at) > policy.reservation_ttl);
                if expired {
                    self.actions.push((row.clone(), Action::Expire));
                } else {
                    self.no_ops += 1;
                }
            }
            AddressStatus::Allocated if row.source == AddressSource::External && row.vmid.is_none() => {}
            AddressStatus::Allocated if out_of_sight(row, real) => {
                self.actions.push((row.clone(), Action::Spare));
                self.no_ops += 1;
            }
            AddressStatus::Allocated if !policy.count_misses => self.no_ops += 1,
            AddressStatus::Allocated => {
                let action = if row.missed_cycles + 1 >= policy.vacate_after {
                    Action::Vacate
                } else {
                    Action::Miss
                };
                self.actions.push((row.clone(), action));
            }
        }
    }
}

/// Whether the row's guest may run where it cannot be seen. When nobody knows where it is, any node
/// that is away may have it.
fn out_of_sight(row: &Row, real: Real<'_>) -> bool {
    let node = row
        .vmid
        .and_then(|vmid| real.whereabouts.guests.get(&vmid))
        .or(row.node.as_ref());
    match node {
        Some(node) => real.away.contains(node),
        None => !real.away.is_empty(),
    }
}

fn conflict(ip: Ipv4Addr, local_vmid: u32, holder: &Guest) -> Conflict {
    Conflict {
        ip,
        local_vmid,
        proxmox_vmid: holder.vmid,
        node: holder.node.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nimbus_model::MachineId;
    use proptest::prelude::*;

    use super::*;
    use crate::state::Event;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const POLICY: Policy = Policy {
        reservation_ttl: Duration::from_secs(600),
        vacate_after: 3,
        count_misses: true,
    };

    fn guest(vmid: u32) -> Guest {
        Guest {
            vmid,
            name: Some("found".into()),
            node: "pve1".into(),
        }
    }

    fn reserved(age: Duration) -> Row {
        Row::free(IP, 0)
            .reserve(MachineId::fresh(), "web", NOW.before(age))
            .unwrap()
    }

    fn allocated(vmid: u32, missed_cycles: u32) -> Row {
        let machine = MachineId::fresh();
        let row = Row::free(IP, 0)
            .reserve(machine, "web", NOW)
            .unwrap()
            .allocate(machine, vmid, NOW)
            .unwrap();
        Row { missed_cycles, ..row }
    }

    fn external() -> Row {
        Row {
            status: AddressStatus::Allocated,
            source: AddressSource::External,
            allocated_at: Some(NOW),
            ..Row::free(IP, 0)
        }
    }

    fn look(row: &Row, held_by: &[u32], away: &[&str], policy: Policy) -> Plan {
        let held: Vec<Guest> = held_by.iter().map(|vmid| guest(*vmid)).collect();
        let held = if held.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([(IP, held)])
        };
        let snapshot = Snapshot {
            taken_at: NOW,
            held,
            nodes: BTreeSet::new(),
        };
        let whereabouts = Whereabouts {
            nodes: vec![],
            guests: BTreeMap::from([(101, "pve1".to_owned())]),
        };
        let away = away.iter().map(|name| (*name).to_owned()).collect();
        plan(
            std::slice::from_ref(row),
            Real {
                snapshot: &snapshot,
                whereabouts: &whereabouts,
                away: &away,
            },
            policy,
            NOW,
        )
    }

    fn actions(plan: &Plan) -> Vec<Action> {
        plan.actions.iter().map(|(_, action)| action.clone()).collect()
    }

    /// Name, row, holders, nodes away; actions, number of conflicts, number of no-ops.
    type Case = (
        &'static str,
        Row,
        &'static [u32],
        &'static [&'static str],
        Vec<Action>,
        usize,
        u32,
    );

    #[test]
    fn every_line_of_the_table() {
        let minute = Duration::from_secs(60);
        let cases: Vec<Case> = vec![
            (
                "its own guest",
                allocated(101, 2),
                &[101],
                &[],
                vec![Action::Seen(guest(101))],
                0,
                1,
            ),
            ("another guest", allocated(101, 0), &[102], &[], vec![], 1, 0),
            (
                "both",
                allocated(101, 0),
                &[101, 102],
                &[],
                vec![Action::Seen(guest(101))],
                1,
                1,
            ),
            (
                "free, held",
                Row::free(IP, 0),
                &[102],
                &[],
                vec![Action::Adopt(guest(102))],
                0,
                0,
            ),
            (
                "free, held twice",
                Row::free(IP, 0),
                &[102, 103],
                &[],
                vec![Action::Adopt(guest(102))],
                1,
                0,
            ),
            (
                "promised, held",
                reserved(minute),
                &[102],
                &[],
                vec![Action::Adopt(guest(102))],
                0,
                0,
            ),
            (
                "promised long ago, held",
                reserved(minute * 60),
                &[102],
                &[],
                vec![Action::Adopt(guest(102))],
                0,
                0,
            ),
            (
                "unknown host, held",
                external(),
                &[102],
                &[],
                vec![Action::Adopt(guest(102))],
                0,
                0,
            ),
            ("promised", reserved(minute * 10), &[], &[], vec![], 0, 1),
            (
                "promised too long",
                reserved(minute * 11),
                &[],
                &[],
                vec![Action::Expire],
                0,
                0,
            ),
            (
                "first miss",
                allocated(101, 0),
                &[],
                &[],
                vec![Action::Miss],
                0,
                0,
            ),
            (
                "second miss",
                allocated(101, 1),
                &[],
                &[],
                vec![Action::Miss],
                0,
                0,
            ),
            (
                "third miss",
                allocated(101, 2),
                &[],
                &[],
                vec![Action::Vacate],
                0,
                0,
            ),
            (
                "its node is away",
                allocated(101, 2),
                &[],
                &["pve1"],
                vec![Action::Spare],
                0,
                1,
            ),
            (
                "another node is away",
                allocated(101, 2),
                &[],
                &["pve2"],
                vec![Action::Vacate],
                0,
                0,
            ),
            (
                "guest nobody knows, a node away",
                allocated(999, 2),
                &[],
                &["pve2"],
                vec![Action::Spare],
                0,
                1,
            ),
            ("unknown host", external(), &[], &[], vec![], 0, 0),
            ("free", Row::free(IP, 0), &[], &[], vec![], 0, 0),
        ];
        for (name, row, held_by, away, wanted, conflicts, no_ops) in cases {
            let plan = look(&row, held_by, away, POLICY);
            assert_eq!(actions(&plan), wanted, "{name}");
            assert_eq!(plan.conflicts.len(), conflicts, "{name}");
            assert_eq!(plan.no_ops, no_ops, "{name}");
        }
    }

    #[test]
    fn a_conflict_names_both_sides() {
        let plan = look(&allocated(101, 0), &[102], &[], POLICY);
        let wanted = Conflict {
            ip: IP,
            local_vmid: 101,
            proxmox_vmid: 102,
            node: "pve1".into(),
        };
        assert_eq!(plan.conflicts, [wanted]);
    }

    #[test]
    fn a_run_that_does_not_count_misses_frees_nothing_in_use() {
        let plan = look(
            &allocated(101, 2),
            &[],
            &[],
            Policy {
                count_misses: false,
                ..POLICY
            },
        );
        assert_eq!((actions(&plan), plan.no_ops), (vec![], 1));
    }

    proptest! {
        /// Whatever the books and the cluster say, each action is a legal step of its row.
        #[test]
        fn plans_are_legal(kind in 0_u8..4, missed in 0_u32..5, age_s in 0_u64..2000, held in proptest::collection::vec(100_u32..105, 0..3), away in any::<bool>(), count_misses: bool) {
            let row = match kind {
                0 => Row::free(IP, 0),
                1 => reserved(Duration::from_secs(age_s)),
                2 => allocated(101, missed),
                _ => external(),
            };
            let away: &[&str] = if away { &["pve1"] } else { &[] };
            let plan = look(&row, &held, away, Policy { count_misses, ..POLICY });
            prop_assert!(plan.actions.len() <= held.len().max(1));
            for (row, action) in &plan.actions {
                let legal = match action {
                    Action::Adopt(guest) => row.adopt(guest, NOW).is_ok(),
                    Action::Expire => row.give_back(Event::Expire).is_ok(),
                    Action::Vacate => row.give_back(Event::Vacate).is_ok() && held.is_empty(),
                    Action::Seen(_) | Action::Spare | Action::Miss => row.status == AddressStatus::Allocated,
                };
                prop_assert!(legal, "{row:?} {action:?}");
            }
        }
    }
}
