//! Pure: decides which candidates of one cluster stay, which are removed, and which backends are added.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Update;
use super::proposals::{AddressProposals, Proposal, ProposalState, Proposals, is_alive};
use crate::discovery::gossip::admission::{CandidatePolicy, CandidateRefusal, Subscription, admit};
use crate::discovery::gossip::events::{CandidateEvent, EventKind};
use crate::discovery::gossip::flaps::{FlapDamping, FlapDecision};
use crate::discovery::gossip::guard::{Losses, RemovalDecision, RemovalGuard};
use crate::discovery::gossip::{Candidate, LocalHealth, MAX_CANDIDATES};
use crate::gossip::record::Revocation;
use crate::gossip::view::PeerSet;

/// How long a lost candidate stays if no check can tell.
const LOST: Duration = Duration::from_secs(30);
/// Refused addresses of a cluster that are remembered, so that each is reported once; more are refused silently.
const MAX_REFUSED: usize = 10_000;

/// What the update of one cluster uses and reports.
pub(super) struct ClusterUpdate<'a> {
    pub(super) now: Duration,
    pub(super) set: &'a PeerSet,
    /// The set was built from scratch, so members that are silent now may never have been heard.
    pub(super) restarted: bool,
    /// Only this proxy is in the set, so it is the one that is cut off.
    pub(super) alone: bool,
    pub(super) subscription: &'a Subscription<'a>,
    pub(super) policy: &'a CandidatePolicy<'a>,
    pub(super) health: &'a dyn Fn(&str, SocketAddr) -> LocalHealth,
    /// The last good set stands in for the real one.
    pub(super) stale: bool,
    pub(super) refusals: &'a mut [u64; CandidateRefusal::ALL.len()],
    pub(super) update: &'a mut Update,
}

impl ClusterUpdate<'_> {
    fn report(&mut self, backend: SocketAddr, kind: EventKind) {
        self.update.events.push(CandidateEvent {
            cluster: self.subscription.cluster.to_owned(),
            backend,
            kind,
        });
    }

    /// What this proxy itself knows of a candidate's health.
    fn health_of(&self, backend: SocketAddr) -> LocalHealth {
        (self.health)(self.subscription.cluster, backend)
    }

    /// The run of a member that is alive. O(log members).
    fn run_of(&self, member: SocketAddr) -> Option<u64> {
        let members = &self.set.members;
        let index = members.binary_search_by_key(&member, |member| member.address);
        let member = &members[index.ok()?];
        is_alive(member.liveness).then_some(member.epoch)
    }
}

/// The candidates of one cluster.
#[derive(Debug, Default)]
pub(super) struct ClusterCandidates {
    /// The name under which they are announced.
    pub(super) gossip: String,
    pub(super) candidates: BTreeMap<SocketAddr, KnownCandidate>,
    flaps: FlapDamping,
    guard: RemovalGuard,
    refused: BTreeMap<SocketAddr, CandidateRefusal>,
    /// Backends that were removed because a member drains them, with that member. While it does, nobody else adds them.
    drained: BTreeMap<SocketAddr, SocketAddr>,
    /// The candidates that were removed last had ordered that themselves.
    orderly: bool,
}

/// A candidate, and why it is one.
#[derive(Debug)]
pub(super) struct KnownCandidate {
    pub(super) candidate: Candidate,
    /// The run of its member in which it was announced; `None` once it was lost.
    run: Option<u64>,
    /// Since when it is lost.
    lost: Option<Duration>,
    /// It was reported that its check passes although it is lost.
    vouched: bool,
    /// Its token has expired, or it has none, and nothing better was heard since.
    expired: Option<Revocation>,
}

/// What happens to a candidate.
#[derive(Debug, Clone, Copy)]
enum Decision {
    Stay,
    /// It is lost and stays for now, although no check of ours passes.
    Missed,
    /// It is lost, and only the guard may keep it.
    Due {
        kind: EventKind,
        /// Only the set speaks against it, nothing of our own.
        hearsay: bool,
    },
    Remove(EventKind),
}

impl ClusterCandidates {
    /// Starts with the last good set.
    pub(super) fn new(gossip: &str, last_good: Option<&Vec<Candidate>>) -> Self {
        let known = |candidate: &Candidate| KnownCandidate::new(candidate.clone(), None);
        Self {
            gossip: gossip.to_owned(),
            candidates: last_good
                .into_iter()
                .flatten()
                .map(|candidate| (candidate.address, known(candidate)))
                .collect(),
            ..Self::default()
        }
    }

    /// Takes what the set says now.
    pub(super) fn update(&mut self, proposals: &Proposals<'_>, context: &mut ClusterUpdate<'_>) {
        let before = self.candidates.len();
        let refused = self.refuse(proposals, context);
        let all_were_allowed = self.candidates.len() == before;
        let by_order = self.judge_candidates(proposals, context);
        if self.candidates.len() < before {
            self.orderly = all_were_allowed && by_order;
        }
        self.add_ready(proposals, refused, context);
        self.flaps.forget_quiet(context.now);
    }

    /// Finds the backends that the file does not allow, and removes those of them that are candidates.
    fn refuse(
        &mut self,
        proposals: &Proposals<'_>,
        context: &mut ClusterUpdate<'_>,
    ) -> BTreeMap<SocketAddr, CandidateRefusal> {
        let mut refused = BTreeMap::new();
        for (&address, all) in proposals {
            let state = all.for_newcomer().state;
            if let (ProposalState::Ready | ProposalState::Unfit, Err(reason)) =
                (state, admit(address, context.policy))
                && refused.len() < MAX_REFUSED
            {
                refused.insert(address, reason);
            }
        }
        self.candidates
            .retain(|&address, _| match admit(address, context.policy) {
                Ok(()) => true,
                Err(reason) => {
                    refused.insert(address, reason);
                    context.update.changed = true;
                    false
                }
            });
        refused
    }

    /// Decides which candidates are removed; returns whether all of those had ordered it themselves.
    fn judge_candidates(
        &mut self,
        proposals: &Proposals<'_>,
        context: &mut ClusterUpdate<'_>,
    ) -> bool {
        let (mut due, mut gone) = (Vec::new(), Vec::new());
        let (mut lost, mut missed, mut hearsay, mut expired) = (0, 0, 0, 0);
        for (&address, known) in &mut self.candidates {
            let all = proposals.get(&address);
            let mut is_due = false;
            match known.judge(all, context) {
                Decision::Stay => {}
                Decision::Missed => missed += 1,
                Decision::Due { kind, hearsay: h } => {
                    due.push((address, kind, h));
                    hearsay += usize::from(h);
                    is_due = true;
                }
                Decision::Remove(kind) => {
                    if let (EventKind::Draining, Some(all)) = (kind, all) {
                        let by = all.for_candidate(known.candidate.member).member();
                        self.drained.insert(address, by);
                    }
                    gone.push((address, kind));
                }
            }
            expired += usize::from(known.expired.is_some());
            lost += usize::from(is_due || known.lost.is_some());
        }
        let candidates = self.candidates.len() - gone.len();
        let checked = context.subscription.checked;
        let all_are_due = !checked && due.len() == candidates;
        let losses = Losses {
            candidates,
            lost,
            unvouched: missed + due.len(),
            due: due.len(),
            endless: !checked && (context.alone || (all_are_due && hearsay == candidates)),
        };
        match self.guard.decide(context.now, losses) {
            RemovalDecision::Remove => {
                // The set's word alone never removes the last candidates.
                due.retain(|&(.., hearsay)| !(all_are_due && hearsay));
                gone.extend(due.iter().map(|&(address, kind, _)| (address, kind)));
            }
            RemovalDecision::HoldBegins => {
                let event = EventKind::MassRemovalHeld {
                    lost: losses.unvouched,
                    of: candidates,
                    expired,
                };
                context.report(due[0].0, event);
            }
            RemovalDecision::HoldEnds => {
                if let Some(&first) = self.candidates.keys().next() {
                    context.report(first, EventKind::MassRemovalOver);
                }
            }
            RemovalDecision::Held => {}
        }
        let ordered =
            |(_, kind): &(_, EventKind)| matches!(kind, EventKind::Draining | EventKind::Left);
        let by_order = gone.iter().all(ordered);
        for (address, kind) in gone {
            self.candidates.remove(&address);
            self.flaps.removed(address, context.now);
            context.update.changed = true;
            context.report(address, kind);
        }
        by_order
    }

    /// Whether the current candidates are worth storing: none is on hold, and if there are none, they left in order.
    pub(super) fn is_good(&self) -> bool {
        self.guard.held_until().is_none() && (!self.candidates.is_empty() || self.orderly)
    }

    /// Adds backends that are ready, as far as there is room.
    fn add_ready(
        &mut self,
        proposals: &Proposals<'_>,
        mut refused: BTreeMap<SocketAddr, CandidateRefusal>,
        context: &mut ClusterUpdate<'_>,
    ) {
        self.drained.retain(|address, by| {
            let own = proposals.get(address).and_then(|all| all.of(Some(*by)));
            own.is_some_and(|own| own.state == ProposalState::Draining && own.is_recent())
        });
        for (&address, all) in proposals {
            let proposal = all.for_newcomer();
            let is_settled =
                self.candidates.contains_key(&address) || self.drained.contains_key(&address);
            let is_new = proposal.state == ProposalState::Ready && !is_settled;
            if !is_new || admit(address, context.policy).is_err() {
                continue;
            }
            if self.candidates.len() >= MAX_CANDIDATES {
                if refused.len() < MAX_REFUSED {
                    refused.insert(address, CandidateRefusal::ClusterFull);
                }
                continue;
            }
            match self.flaps.try_add(address, context.now) {
                FlapDecision::Held => {}
                FlapDecision::HoldBegins(time) => {
                    context.report(address, EventKind::HeldDown(time));
                }
                FlapDecision::Join => {
                    let known =
                        KnownCandidate::new(proposal.candidate(address), Some(proposal.run()));
                    self.candidates.insert(address, known);
                    context.update.changed = true;
                    context.report(address, EventKind::Joined);
                }
            }
        }
        self.report_refused(&refused, context);
        self.refused = refused;
    }

    /// Counts and reports addresses that were not refused before, grouped by reason.
    fn report_refused(
        &self,
        refused: &BTreeMap<SocketAddr, CandidateRefusal>,
        context: &mut ClusterUpdate<'_>,
    ) {
        let mut fresh: BTreeMap<CandidateRefusal, (usize, SocketAddr)> = BTreeMap::new();
        for (address, reason) in refused {
            if self.refused.get(address) != Some(reason) {
                fresh.entry(*reason).or_insert((0, *address)).0 += 1;
            }
        }
        for (reason, (count, first)) in fresh {
            context.refusals[reason.index()] += count as u64;
            context.report(first, EventKind::Refused { reason, count });
        }
    }

    /// When time alone may change something.
    pub(super) fn next_deadline(&self, now: Duration, checked: bool) -> Option<Duration> {
        let hold = self.guard.held_until();
        let lost = self.candidates.values().filter_map(|known| known.lost);
        let ends = lost
            .map(|since| since + LOST)
            .filter(|_| !checked && hold.is_none());
        // A hold beyond its time waits for the set to change.
        hold.into_iter()
            .chain(ends)
            .filter(|&at| at > now)
            .chain(self.flaps.next_end(now))
            .min()
    }
}

impl KnownCandidate {
    fn new(candidate: Candidate, run: Option<u64>) -> Self {
        Self {
            candidate,
            run,
            lost: None,
            vouched: false,
            expired: None,
        }
    }

    fn judge(
        &mut self,
        all: Option<&AddressProposals<'_>>,
        context: &mut ClusterUpdate<'_>,
    ) -> Decision {
        let address = self.candidate.address;
        let owner = self.candidate.member;
        let proposal = all.map(|all| all.for_candidate(owner));
        // Another member's proposal does not make it the owner while the owner may come back.
        let owned = all.is_some_and(|all| all.of(owner).is_some_and(Proposal::is_recent));
        match proposal.map(|proposal| (proposal.state, proposal)) {
            Some((ProposalState::Draining, _)) => Decision::Remove(EventKind::Draining),
            Some((ProposalState::Left, _)) => Decision::Remove(EventKind::Left),
            Some((ProposalState::Revoked(why @ Revocation::NotPermitted), _)) => {
                Decision::Remove(EventKind::Revoked(why))
            }
            Some((
                ProposalState::Revoked(why @ (Revocation::Expired | Revocation::NoToken)),
                _,
            )) => self.expire(why),
            Some((ProposalState::Ready, proposal)) => {
                if self.lost.is_some() {
                    context.report(address, EventKind::Back);
                }
                self.found(proposal, owned, false, context);
                Decision::Stay
            }
            Some((ProposalState::Unfit, proposal)) => {
                self.found(proposal, owned, true, context);
                if context.subscription.checked {
                    return Decision::Stay;
                }
                Decision::Due {
                    kind: EventKind::Failing,
                    hearsay: context.health_of(address) != LocalHealth::Failing,
                }
            }
            Some((ProposalState::Down, _)) | None if let Some(why) = self.expired => {
                self.expire(why)
            }
            None if self.is_withdrawn(context) => Decision::Remove(EventKind::Withdrawn),
            Some((ProposalState::Down, _)) | None if context.stale => Decision::Stay,
            Some((ProposalState::Down, _)) | None => self.lose(context),
        }
    }

    /// Nobody announces it: whether its member has withdrawn it. That is certain if it was announced in the member's
    /// current run. In another run its record may only be late, or somebody has lied about the run, so it counts as
    /// lost.
    fn is_withdrawn(&mut self, context: &ClusterUpdate<'_>) -> bool {
        let announced_in = self.run.take();
        let run = self.candidate.member.and_then(|at| context.run_of(at));
        run.is_some() && announced_in == run && !context.restarted
    }

    /// The set has it. Takes over what its record says, unless the record is another member's than the owner's.
    fn found(
        &mut self,
        proposal: &Proposal<'_>,
        owned: bool,
        doubted: bool,
        context: &mut ClusterUpdate<'_>,
    ) {
        (self.lost, self.vouched, self.expired) = (None, false, None);
        if owned && self.candidate.member != Some(proposal.member()) {
            self.candidate.doubted = doubted;
            return;
        }
        self.run = Some(proposal.run());
        let next = proposal.candidate(self.candidate.address);
        context.update.changed |=
            (next.weight, &next.zone) != (self.candidate.weight, &self.candidate.zone);
        self.candidate = Candidate { doubted, ..next };
    }

    /// It counts as lost, since its agent ordered nothing and may only get its new token too late. But no check of ours
    /// can save it.
    fn expire(&mut self, why: Revocation) -> Decision {
        self.expired = Some(why);
        Decision::Due {
            kind: EventKind::Revoked(why),
            hearsay: false,
        }
    }

    fn lose(&mut self, context: &mut ClusterUpdate<'_>) -> Decision {
        let address = self.candidate.address;
        let health = context.health_of(address);
        let newly = self.lost.is_none();
        let since = *self.lost.get_or_insert(context.now);
        self.candidate.doubted = true;
        self.run = None;
        let is_failing = health == LocalHealth::Failing;
        if is_failing || (!context.subscription.checked && since + LOST <= context.now) {
            return Decision::Due {
                kind: EventKind::Removed,
                hearsay: !is_failing,
            };
        }
        if newly {
            let checked = context.subscription.checked;
            context.report(address, EventKind::Down { checked });
        } else if health == LocalHealth::Healthy && !self.vouched {
            self.vouched = true;
            context.report(address, EventKind::DownButPasses);
        }
        match health {
            LocalHealth::Healthy => Decision::Stay,
            LocalHealth::Failing | LocalHealth::Unknown => Decision::Missed,
        }
    }
}
