//! The set as it is seen from outside, and since when each member is as it is.

use std::collections::HashMap;

use foca::State;

use super::super::Time;
use super::super::identity::Identity;
use super::super::record::ServiceState;
use super::super::view::{Announced, Liveness, Member, PeerSet};
use super::Node;

/// What was seen of each member at the last look.
#[derive(Debug, Default)]
pub(super) struct Observer {
    seen: HashMap<[u8; 18], Seen>,
    version: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    epoch: u64,
    state: State,
    changed: Time,
}

/// Looks at every member and counts who became suspect, and who contradicted. What comes and goes between two looks
/// is not seen.
pub(super) fn look(node: &mut Node, now: Time) {
    let Some(observer) = &mut node.observer else {
        return;
    };
    let mut count = 0;
    for member in node.swim.iter_membership_state() {
        count += 1;
        let next = Seen {
            epoch: member.id().epoch(),
            state: member.state(),
            changed: now,
        };
        let before = observer.seen.get(&member.id().key()).copied();
        let same = |seen: Seen| seen.epoch == next.epoch && seen.state == next.state;
        if before.is_some_and(same) {
            continue;
        }
        node.dirty = true;
        if next.state == State::Suspect {
            node.io.counters.suspicions += 1;
        }
        if before.is_some_and(|seen| seen.state == State::Suspect) && next.state == State::Alive {
            node.io.counters.refutations += 1;
        }
        observer.seen.insert(member.id().key(), next);
    }
    if observer.seen.len() > count {
        let known: std::collections::HashSet<[u8; 18]> = node
            .swim
            .iter_membership_state()
            .map(|member| member.id().key())
            .collect();
        observer.seen.retain(|key, _| known.contains(key));
        node.dirty = true;
    }
}

/// The set as it is now.
pub(super) fn view(node: &mut Node, now: Time) -> PeerSet {
    look(node, now);
    node.dirty = false;
    if let Some(observer) = &mut node.observer {
        observer.version += 1;
    }
    let seen = |key: &[u8; 18]| {
        let observer = node.observer.as_ref()?;
        observer.seen.get(key).map(|seen| seen.changed)
    };
    let own = node.identity();
    let mut members: Vec<Member> = node
        .swim
        .iter_membership_state()
        .filter(|member| member.id().key() != own.key())
        .map(|member| {
            let liveness = match member.state() {
                State::Alive => Liveness::Alive,
                State::Suspect => Liveness::Suspect,
                State::Down => Liveness::Down,
            };
            let changed = seen(&member.id().key()).unwrap_or(now);
            show(node, member.id(), liveness, changed)
        })
        .collect();
    members.push(show(node, &own, Liveness::Alive, node.started));
    members.sort_unstable_by_key(|member| member.address);
    PeerSet {
        version: node.observer.as_ref().map_or(0, |o| o.version),
        at: now,
        members,
    }
}

fn show(node: &Node, id: &Identity, liveness: Liveness, changed: Time) -> Member {
    let records: Vec<Announced> = node
        .records
        .of(&id.key())
        .map(|(_, stored)| stored.announced.clone())
        .collect();
    // By its own word about each of its services: one of them alone may be a word of somebody who has a token for that.
    let left = |r: &Announced| r.state() == ServiceState::Left && r.epoch == id.epoch();
    let has_left = !records.is_empty() && records.iter().all(left);
    let told = records.iter().map(|r| r.accepted).max();
    Member {
        address: id.address(),
        epoch: id.epoch(),
        role: id.role(),
        liveness: match liveness {
            Liveness::Down if has_left => Liveness::Left,
            other => other,
        },
        changed: told.map_or(changed, |told| told.max(changed)),
        records,
    }
}
