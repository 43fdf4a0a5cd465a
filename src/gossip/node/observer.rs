//! Watches the set for changes, and shows it to the outside.

use std::collections::{HashMap, HashSet};

use foca::State;

use super::super::Time;
use super::super::identity::{Identity, MemberKey};
use super::super::record::{Announced, ServiceState};
use super::super::view::{Liveness, Member, PeerSet};
use super::Node;

/// What changed since the last view.
#[derive(Debug)]
pub(super) struct Observer {
    /// What was seen of each member at the last look; `None` if changes are not observed.
    seen: Option<HashMap<MemberKey, Observed>>,
    /// Number of the last view; 0 if changes are not observed.
    version: u64,
    /// Something that a view shows has changed.
    pub dirty: bool,
}

#[derive(Debug, Clone, Copy)]
struct Observed {
    epoch: u64,
    state: State,
    changed: Time,
}

impl Observer {
    pub(super) fn new(observed: bool) -> Self {
        Self {
            seen: observed.then(HashMap::new),
            version: 0,
            dirty: true,
        }
    }

    /// When a member last changed, if that is known.
    fn changed(&self, key: &MemberKey) -> Option<Time> {
        self.seen.as_ref()?.get(key).map(|seen| seen.changed)
    }
}

/// Looks at every member, and counts those that became suspect or refuted. A change that is undone between two looks is
/// not seen.
pub(super) fn observe(node: &mut Node, now: Time) {
    let observer = &mut node.observer;
    let Some(seen) = &mut observer.seen else {
        return;
    };
    for member in node.swim.iter_membership_state() {
        let next = Observed {
            epoch: member.id().epoch(),
            state: member.state(),
            changed: now,
        };
        let before = seen.get(&member.id().key()).copied();
        let same = |seen: Observed| seen.epoch == next.epoch && seen.state == next.state;
        if before.is_some_and(same) {
            continue;
        }
        observer.dirty = true;
        if next.state == State::Suspect {
            node.io.counters.suspicions += 1;
        }
        if before.is_some_and(|seen| seen.state == State::Suspect) && next.state == State::Alive {
            node.io.counters.refutations += 1;
        }
        seen.insert(member.id().key(), next);
    }
    let members = node.swim.iter_membership_state();
    if seen.len() > members.len() {
        let known: HashSet<MemberKey> = members.map(|member| member.id().key()).collect();
        seen.retain(|key, _| known.contains(key));
        observer.dirty = true;
    }
}

/// The set as it is now.
pub(super) fn view(node: &mut Node, now: Time) -> PeerSet {
    observe(node, now);
    node.observer.dirty = false;
    if node.observer.seen.is_some() {
        node.observer.version += 1;
    }
    let own = node.identity();
    let mut members: Vec<Member> = node
        .members()
        .filter(|member| member.id().key() != own.key())
        .map(|member| {
            let liveness = match member.state() {
                State::Alive => Liveness::Alive,
                State::Suspect => Liveness::Suspect,
                State::Down => Liveness::Down,
            };
            let changed = node.observer.changed(&member.id().key()).unwrap_or(now);
            show(node, member.id(), liveness, changed)
        })
        .collect();
    members.push(show(node, &own, Liveness::Alive, node.started));
    members.sort_unstable_by_key(|member| member.address);
    PeerSet {
        version: node.observer.version,
        at: now,
        members,
    }
}

fn show(node: &Node, id: &Identity, liveness: Liveness, changed: Time) -> Member {
    let records: Vec<Announced> = node
        .records()
        .of(&id.key())
        .map(|(_, stored)| stored.announced.clone())
        .collect();
    // A member has left if it says so of each of its services: a single record may be somebody else's, who has a token
    // for that cluster.
    let left = |r: &Announced| r.state() == ServiceState::Left && r.epoch == id.epoch();
    let has_left = !records.is_empty() && records.iter().all(left);
    let accepted = records.iter().map(|record| record.accepted).max();
    Member {
        address: id.address(),
        epoch: id.epoch(),
        role: id.role(),
        liveness: match liveness {
            Liveness::Down if has_left => Liveness::Left,
            other => other,
        },
        changed: accepted.map_or(changed, |accepted| accepted.max(changed)),
        records,
    }
}
