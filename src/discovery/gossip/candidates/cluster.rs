//! Pure: the candidates of one cluster: who stays, who goes, who comes in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Update;
use super::proposals::{Proposal, Proposals, Voices, Word, is_alive};
use crate::discovery::gossip::admission::{Refusal, Rules, Wish, admit};
use crate::discovery::gossip::event::{Event, Kind};
use crate::discovery::gossip::flaps::{Entry, Flaps};
use crate::discovery::gossip::guard::{Guard, Losses, Verdict};
use crate::discovery::gossip::{Candidate, MAX_CANDIDATES, Opinion};
use crate::gossip::view::{PeerSet, Revocation};

/// How long a lost candidate stays where no check could tell.
const LOST: Duration = Duration::from_secs(30);
/// Refused addresses of a cluster that are remembered, so that each is said once; more are refused in silence.
const MOST_REFUSED: usize = 10_000;

/// What the update of one cluster sees and tells.
pub(super) struct Turn<'a> {
    pub(super) now: Duration,
    pub(super) set: &'a PeerSet,
    /// The set was built anew: who says nothing now may never have been heard.
    pub(super) anew: bool,
    /// Nobody but this proxy is in the set: it is the one that is cut off.
    pub(super) alone: bool,
    pub(super) wish: &'a Wish<'a>,
    pub(super) rules: &'a Rules<'a>,
    pub(super) opinion: &'a dyn Fn(&str, SocketAddr) -> Opinion,
    pub(super) stale: bool,
    pub(super) refusals: &'a mut [u64; Refusal::ALL.len()],
    pub(super) update: &'a mut Update,
}

impl Turn<'_> {
    fn say(&mut self, backend: SocketAddr, kind: Kind) {
        self.update.events.push(Event {
            cluster: self.wish.cluster.to_owned(),
            backend,
            kind,
        });
    }

    /// The run of a member that is in the set. O(log members).
    fn run_of(&self, member: SocketAddr) -> Option<u64> {
        let members = &self.set.members;
        let place = members.binary_search_by_key(&member, |member| member.address);
        let member = &members[place.ok()?];
        is_alive(member.liveness).then_some(member.epoch)
    }
}

/// A cluster that discovers.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) gossip: String,
    pub(super) members: BTreeMap<SocketAddr, Known>,
    flaps: Flaps,
    guard: Guard,
    refused: BTreeMap<SocketAddr, Refusal>,
    /// Backends that are out since this member drains them: as long as it does, nobody else brings them in.
    drained: BTreeMap<SocketAddr, SocketAddr>,
    /// Those that went last did so by their own order.
    orderly: bool,
}

/// A candidate that is in.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) candidate: Candidate,
    /// Of its member, in which it was announced; `None` once it was lost.
    run: Option<u64>,
    lost: Option<Duration>,
    /// It was said that its check passes though it is lost.
    vouched: bool,
    /// Its token has expired, or it has none, and nothing better was heard since.
    expired: Option<Revocation>,
}

/// What becomes of a candidate that is in.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Stays,
    /// It is lost, and stays for now, though no check of ours speaks for it.
    Missed,
    /// It is lost, and nothing but the guard holds it.
    Due {
        kind: Kind,
        /// Nothing of our own speaks against it.
        hearsay: bool,
    },
    Goes(Kind),
}

impl Cluster {
    /// With what was known last.
    pub(super) fn new(gossip: &str, last_good: Option<&Vec<Candidate>>) -> Self {
        let known = |candidate: &Candidate| Known::new(candidate.clone(), None);
        Self {
            gossip: gossip.to_owned(),
            members: last_good
                .into_iter()
                .flatten()
                .map(|candidate| (candidate.address, known(candidate)))
                .collect(),
            ..Self::default()
        }
    }

    /// Takes in what the set says now.
    pub(super) fn update(&mut self, proposals: &Proposals<'_>, turn: &mut Turn<'_>) {
        let before = self.members.len();
        let refused = self.refuse(proposals, turn);
        let all_were_allowed = self.members.len() == before;
        let by_order = self.judge_members(proposals, turn);
        if self.members.len() < before {
            self.orderly = all_were_allowed && by_order;
        }
        self.let_in(proposals, refused, turn);
        self.flaps.forget_quiet(turn.now);
    }

    /// Finds whom the file does not allow; those of them that were in go.
    fn refuse(
        &mut self,
        proposals: &Proposals<'_>,
        turn: &mut Turn<'_>,
    ) -> BTreeMap<SocketAddr, Refusal> {
        let mut refused = BTreeMap::new();
        for (&address, voices) in proposals {
            let proposal = voices.newcomer();
            if let (Word::Ready | Word::Unfit, Err(reason)) =
                (proposal.word, admit(address, turn.rules))
                && refused.len() < MOST_REFUSED
            {
                refused.insert(address, reason);
            }
        }
        self.members
            .retain(|&address, _| match admit(address, turn.rules) {
                Ok(()) => true,
                Err(reason) => {
                    refused.insert(address, reason);
                    turn.update.changed = true;
                    false
                }
            });
        refused
    }

    /// Decides who goes; says whether all who do have it so by their own order.
    fn judge_members(&mut self, proposals: &Proposals<'_>, turn: &mut Turn<'_>) -> bool {
        let (mut due, mut gone) = (Vec::new(), Vec::new());
        let (mut lost, mut missed, mut hearsay, mut expired) = (0, 0, 0, 0);
        for (&address, known) in &mut self.members {
            let voices = proposals.get(&address);
            let mut is_due = false;
            match known.judge(voices, turn) {
                Fate::Stays => {}
                Fate::Missed => missed += 1,
                Fate::Due { kind, hearsay: h } => {
                    due.push((address, kind, h));
                    hearsay += usize::from(h);
                    is_due = true;
                }
                Fate::Goes(kind) => {
                    if let (Kind::Draining, Some(voices)) = (kind, voices) {
                        let by = voices.of_known(known.candidate.member).member();
                        self.drained.insert(address, by);
                    }
                    gone.push((address, kind));
                }
            }
            expired += usize::from(known.expired.is_some());
            lost += usize::from(is_due || known.lost.is_some());
        }
        let members = self.members.len() - gone.len();
        let all_are_due = !turn.wish.checked && due.len() == members;
        let losses = Losses {
            members,
            lost,
            unvouched: missed + due.len(),
            due: due.len(),
            endless: !turn.wish.checked && (turn.alone || (all_are_due && hearsay == members)),
        };
        match self.guard.judge(turn.now, losses) {
            Verdict::Go => {
                // The set's word alone never takes out the last one.
                due.retain(|&(.., hearsay)| !(all_are_due && hearsay));
                gone.extend(due.iter().map(|&(address, kind, _)| (address, kind)));
            }
            Verdict::HoldBegins => {
                let held = Kind::MassRemovalHeld {
                    lost: losses.unvouched,
                    of: members,
                    expired,
                };
                turn.say(due[0].0, held);
            }
            Verdict::HoldEnds => {
                if let Some(&first) = self.members.keys().next() {
                    turn.say(first, Kind::MassRemovalOver);
                }
            }
            Verdict::Held => {}
        }
        let ordered = |(_, kind): &(_, Kind)| matches!(kind, Kind::Draining | Kind::Left);
        let by_order = gone.iter().all(ordered);
        for (address, kind) in gone {
            self.members.remove(&address);
            self.flaps.left(address, turn.now);
            turn.update.changed = true;
            turn.say(address, kind);
        }
        by_order
    }

    /// Whether what it has now is worth keeping: nobody is held, and if nobody is left, that is by their own order.
    pub(super) fn is_good(&self) -> bool {
        self.guard.held_until().is_none() && (!self.members.is_empty() || self.orderly)
    }

    /// Lets in those that are ready, as far as there is room.
    fn let_in(
        &mut self,
        proposals: &Proposals<'_>,
        mut refused: BTreeMap<SocketAddr, Refusal>,
        turn: &mut Turn<'_>,
    ) {
        self.drained.retain(|address, by| {
            let said = proposals.get(address).and_then(|all| all.of(Some(*by)));
            said.is_some_and(|said| said.word == Word::Draining && said.is_recent())
        });
        for (&address, voices) in proposals {
            let proposal = voices.newcomer();
            let is_settled =
                self.members.contains_key(&address) || self.drained.contains_key(&address);
            let wants_in = proposal.word == Word::Ready && !is_settled;
            if !wants_in || admit(address, turn.rules).is_err() {
                continue;
            }
            if self.members.len() >= MAX_CANDIDATES {
                if refused.len() < MOST_REFUSED {
                    refused.insert(address, Refusal::ClusterFull);
                }
                continue;
            }
            match self.flaps.enter(address, turn.now) {
                Entry::Held => {}
                Entry::HoldBegins(time) => turn.say(address, Kind::HeldDown(time)),
                Entry::Join => {
                    let known = Known::new(proposal.candidate(address), Some(proposal.run()));
                    self.members.insert(address, known);
                    turn.update.changed = true;
                    turn.say(address, Kind::Joined);
                }
            }
        }
        self.say_refused(&refused, turn);
        self.refused = refused;
    }

    /// Counts and says those that were not refused before, together by reason.
    fn say_refused(&self, refused: &BTreeMap<SocketAddr, Refusal>, turn: &mut Turn<'_>) {
        let mut fresh: BTreeMap<Refusal, (usize, SocketAddr)> = BTreeMap::new();
        for (address, reason) in refused {
            if self.refused.get(address) != Some(reason) {
                fresh.entry(*reason).or_insert((0, *address)).0 += 1;
            }
        }
        for (reason, (count, first)) in fresh {
            turn.refusals[reason.index()] += count as u64;
            turn.say(first, Kind::Refused { reason, count });
        }
    }

    /// When time alone may change something.
    pub(super) fn next_deadline(&self, now: Duration, checked: bool) -> Option<Duration> {
        let hold = self.guard.held_until();
        let lost = self.members.values().filter_map(|known| known.lost);
        let ends = lost
            .map(|since| since + LOST)
            .filter(|_| !checked && hold.is_none());
        // What is held beyond its time waits for the set.
        hold.into_iter()
            .chain(ends)
            .filter(|&at| at > now)
            .chain(self.flaps.next_end(now))
            .min()
    }
}

impl Known {
    fn new(candidate: Candidate, run: Option<u64>) -> Self {
        Self {
            candidate,
            run,
            lost: None,
            vouched: false,
            expired: None,
        }
    }

    fn judge(&mut self, voices: Option<&Voices<'_>>, turn: &mut Turn<'_>) -> Fate {
        let address = self.candidate.address;
        let owner = self.candidate.member;
        let proposal = voices.map(|voices| voices.of_known(owner));
        // What another says now does not make it the owner while that one may come back.
        let owned = voices.is_some_and(|voices| voices.of(owner).is_some_and(Proposal::is_recent));
        match proposal.map(|proposal| (proposal.word, proposal)) {
            Some((Word::Draining, _)) => Fate::Goes(Kind::Draining),
            Some((Word::Left, _)) => Fate::Goes(Kind::Left),
            Some((Word::Revoked(why @ Revocation::NotPermitted), _)) => {
                Fate::Goes(Kind::Revoked(why))
            }
            Some((Word::Revoked(why @ (Revocation::Expired | Revocation::NoToken)), _)) => {
                self.has_expired(why)
            }
            Some((Word::Ready, proposal)) => {
                if self.lost.is_some() {
                    turn.say(address, Kind::Back);
                }
                self.found(proposal, owned, false, turn);
                Fate::Stays
            }
            Some((Word::Unfit, proposal)) => {
                self.found(proposal, owned, true, turn);
                if turn.wish.checked {
                    return Fate::Stays;
                }
                let opinion = (turn.opinion)(turn.wish.cluster, address);
                Fate::Due {
                    kind: Kind::Failing,
                    hearsay: opinion != Opinion::Failing,
                }
            }
            Some((Word::Down, _)) | None if let Some(why) = self.expired => self.has_expired(why),
            None if self.is_withdrawn(turn) => Fate::Goes(Kind::Withdrawn),
            Some((Word::Down, _)) | None if turn.stale => Fate::Stays,
            Some((Word::Down, _)) | None => self.is_lost(turn),
        }
    }

    /// Nobody announces it: whether that is because its member does not any more. That is sure if it was announced in
    /// the very run of the member that is there; in another run it may only be late, or somebody has lied about the run,
    /// so that it counts as lost.
    fn is_withdrawn(&mut self, turn: &Turn<'_>) -> bool {
        let announced_in = self.run.take();
        let run = self.candidate.member.and_then(|at| turn.run_of(at));
        run.is_some() && announced_in == run && !turn.anew
    }

    /// The set has it; takes over what its record says, unless it is another's than that of the owner.
    fn found(&mut self, proposal: &Proposal<'_>, owned: bool, doubted: bool, turn: &mut Turn<'_>) {
        (self.lost, self.vouched, self.expired) = (None, false, None);
        if owned && self.candidate.member != Some(proposal.member()) {
            self.candidate.doubted = doubted;
            return;
        }
        self.run = Some(proposal.run());
        let next = proposal.candidate(self.candidate.address);
        turn.update.changed |=
            (next.weight, &next.zone) != (self.candidate.weight, &self.candidate.zone);
        self.candidate = Candidate { doubted, ..next };
    }

    /// No order of its agent, which may only have a new token too late, so it is a loss; but no check speaks for it.
    fn has_expired(&mut self, why: Revocation) -> Fate {
        self.expired = Some(why);
        Fate::Due {
            kind: Kind::Revoked(why),
            hearsay: false,
        }
    }

    fn is_lost(&mut self, turn: &mut Turn<'_>) -> Fate {
        let address = self.candidate.address;
        let opinion = (turn.opinion)(turn.wish.cluster, address);
        let newly = self.lost.is_none();
        let since = *self.lost.get_or_insert(turn.now);
        self.candidate.doubted = true;
        self.run = None;
        let is_failing = opinion == Opinion::Failing;
        if is_failing || (!turn.wish.checked && since + LOST <= turn.now) {
            return Fate::Due {
                kind: Kind::Removed,
                hearsay: !is_failing,
            };
        }
        if newly {
            let checked = turn.wish.checked;
            turn.say(address, Kind::Down { checked });
        } else if opinion == Opinion::Healthy && !self.vouched {
            self.vouched = true;
            turn.say(address, Kind::DownButPasses);
        }
        match opinion {
            Opinion::Healthy => Fate::Stays,
            Opinion::Failing | Opinion::Unknown => Fate::Missed,
        }
    }
}
