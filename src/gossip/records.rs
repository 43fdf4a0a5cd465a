//! Stores the announcements that were accepted, by member and cluster.
//!
//! The newest (epoch, version) of a member for a cluster wins. A member speaks for few clusters, and a token touches
//! only entries of its own cluster. The reasons for a refusal are a closed set.
//!
//! If tokens are required, a member is bound to the agent key that signed first. An announcement in its name by another
//! key counts only once the member has proved, for its current run, that it announces with that key (see `proofs`). So
//! an agent may restart with another token, or get one while it runs, and nobody else's token speaks for it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::Time;
use super::ed25519::PublicKey;
use super::identity::{Horizon, MemberKey, unpack_address};
use super::record::{Announced, Announcement, Revocation, ServiceState};
use super::token::{Authority, GRACE, Token, TokenError};

/// Clusters that one member may speak for.
const MAX_CLUSTERS: usize = 4;
/// How long an announcement is stored whose member is unknown, or continues in another run. An announcement that was
/// revoked keeps its entry, so that it can be seen.
const ORPHAN: Duration = Duration::from_secs(60);
/// One cluster gets at most half of all entries, and unknown members together at most a tenth.
const SHARES: (usize, usize) = (2, 10);

/// A member's announcement for a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    /// The member.
    pub member: MemberKey,
    /// Hash of the cluster's name.
    pub cluster: u64,
}

/// How new an announcement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition {
    /// The run.
    pub epoch: u64,
    /// The version in that run.
    pub version: u64,
}

/// Why an announcement is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefusal {
    /// The bytes are not an announcement, or exceed a limit.
    #[error("the announcement is malformed")]
    Malformed,
    /// It is of a later run than the one in which its member is known.
    #[error("the announcement is of a later run than its member's")]
    LaterRun,
    /// There is no room for one more.
    #[error("there is no room for another announcement of this member, of this cluster or at all")]
    Full,
    /// It carries no token, but one is required.
    #[error("the announcement carries no token")]
    NoToken,
    /// The member has not proved that it announces with this agent key.
    #[error("its member announces with another agent's key")]
    OtherAgent,
    /// Its member sent it, but what is known of this version, or of a later one, is something else.
    #[error(
        "another process announces in its member's name, in later versions and with the same token if there is one"
    )]
    Outdone,
    /// Its token is invalid, or does not permit it.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// An announcement that was accepted.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The bytes as they travel.
    pub bytes: Arc<[u8]>,
    /// What they say.
    pub announced: Announced,
    /// The agent key that signed it, which its token names.
    agent: Option<PublicKey>,
    /// How old it was when it was accepted.
    age: Duration,
    /// Since when it is an orphan, see [`ORPHAN`].
    orphan: Option<Time>,
}

impl Stored {
    /// Its age, as counted by the members that passed it on.
    pub fn age(&self, now: Time) -> Duration {
        self.age + now.saturating_sub(self.announced.accepted)
    }

    /// How new it is.
    pub fn edition(&self) -> Edition {
        Edition {
            epoch: self.announced.epoch,
            version: self.announced.version,
        }
    }
}

/// Who may announce what, and the wall-clock time at which that is judged.
#[derive(Debug, Clone, Copy)]
pub struct RecordPolicy<'a> {
    /// The operators whose tokens count; absent: every member may announce.
    pub authority: Option<&'a Authority>,
    /// Label of the set, which signatures cover.
    pub label: &'a str,
    /// The time, Unix seconds.
    pub unix: u64,
}

/// The store; see the module.
#[derive(Debug)]
pub struct Records {
    by_member: HashMap<MemberKey, Vec<(u64, Stored)>>,
    /// The key that a run has proved to announce with; only of members that announce something.
    proved: HashMap<MemberKey, (u64, PublicKey)>,
    by_cluster: HashMap<u64, usize>,
    count: usize,
    /// Announcements whose members were unknown on arrival, or at the last sweep.
    strangers: usize,
    capacity: usize,
}

/// How an announcement relates to what its member has announced before.
struct Relation {
    /// It is not newer.
    is_old: bool,
    /// It is signed with another key than the one that its member is bound to.
    other_key: bool,
    /// What was announced before is for a run that the member is not in.
    void: bool,
}

impl Records {
    /// An empty store for at most `capacity` announcements.
    pub fn new(capacity: usize) -> Self {
        Self {
            by_member: HashMap::new(),
            proved: HashMap::new(),
            by_cluster: HashMap::new(),
            count: 0,
            strangers: 0,
            capacity,
        }
    }

    /// Takes an announcement. Returns its key if it is news, `None` if it is known already.
    ///
    /// `run` tells the run in which its member is known: an announcement for a later one is refused, since it would
    /// override everything that the member itself announces. `live` tells which members are not down; it is called only
    /// when the number of backends of a token is used up.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn accept(
        &mut self,
        bytes: &[u8],
        age: Duration,
        now: Time,
        policy: &RecordPolicy<'_>,
        run: impl FnOnce(&MemberKey) -> Option<u64>,
        live: impl FnOnce() -> HashSet<MemberKey>,
    ) -> Result<Option<RecordKey>, RecordRefusal> {
        let read = Announcement::decode(bytes).map_err(|_| RecordRefusal::Malformed)?;
        if Horizon::at(policy.unix).excludes(read.epoch) {
            return Err(RecordRefusal::Malformed);
        }
        let key = RecordKey {
            member: read.member,
            cluster: cluster_hash(&read.record.cluster),
        };
        let edition = Edition {
            epoch: read.epoch,
            version: read.version,
        };
        let agent = read.agent().filter(|_| policy.authority.is_some());
        if self.has(&key, edition, agent) {
            return Ok(None);
        }
        let run = run(&key.member);
        if run.is_some_and(|run| edition.epoch > run) {
            return Err(RecordRefusal::LaterRun);
        }
        let relation = self.relation(&key, edition, agent, run);
        if relation.is_old {
            return Ok(None);
        }
        let (expires, max_backends) = permitted(&read, policy)?;
        if relation.other_key {
            let proved = self.proved.get(&key.member).copied();
            if proved != agent.map(|agent| (edition.epoch, agent)) {
                return Err(RecordRefusal::OtherAgent);
            }
        }
        if let (Some(max_backends), Some(agent)) = (max_backends, agent)
            && read.record.state != ServiceState::Left
            && !self.has_room_under(&agent, &key, read.record.backend, max_backends.into(), live)
        {
            return Err(TokenError::TooManyBackends.into());
        }
        if relation.other_key || relation.void {
            // What was announced with the previous key was not the member's, or will be announced again.
            self.forget(&key.member);
        }
        let stored = Stored {
            bytes: bytes.into(),
            announced: Announced {
                record: Arc::new(read.record),
                epoch: read.epoch,
                version: read.version,
                accepted: now,
                expires,
                revoked: None,
            },
            agent,
            age,
            orphan: None,
        };
        self.insert(&key, stored, run.is_none())?;
        Ok(Some(key))
    }

    /// Whether an announcement is known already: in this run, by the same key, in this version or a later one.
    fn has(&self, key: &RecordKey, edition: Edition, agent: Option<PublicKey>) -> bool {
        self.get(key).is_some_and(|known| {
            let at = known.edition();
            known.agent == agent && at.epoch == edition.epoch && at >= edition
        })
    }

    /// Compares an announcement with what its member, which is known in `run`, has announced before.
    fn relation(
        &self,
        key: &RecordKey,
        edition: Edition,
        agent: Option<PublicKey>,
        run: Option<u64>,
    ) -> Relation {
        let newest = self.newest(&key.member);
        let newest = newest.map(|newest| (newest.announced.epoch, newest.agent));
        // It was announced for a run that the member is not in, so not by the member itself.
        let void = newest.is_some_and(|(epoch, _)| run.is_some_and(|run| epoch > run));
        // An announcement by another key is not compared by version: its run decides, and then the proof.
        let (epoch, bound) = newest.filter(|_| !void).unzip();
        let bound = bound.flatten();
        let other_key = agent.is_some() && bound.is_some_and(|bound| agent != Some(bound));
        let is_old = match other_key {
            true => epoch.is_some_and(|known| known > edition.epoch),
            false => self.edition(key).is_some_and(|known| known >= edition) && !void,
        };
        Relation {
            is_old,
            other_key,
            void,
        }
    }

    /// Stores an announcement in place of the previous one, or as a new one if there is room.
    fn insert(
        &mut self,
        key: &RecordKey,
        stored: Stored,
        stranger: bool,
    ) -> Result<(), RecordRefusal> {
        let full = self.is_full(key.cluster, stranger);
        let known = self.by_member.get_mut(&key.member);
        let index = known
            .as_ref()
            .and_then(|list| list.iter().position(|(cluster, _)| *cluster == key.cluster));
        match (known, index) {
            (Some(list), Some(index)) => list[index].1 = stored,
            (Some(list), None) if list.len() >= MAX_CLUSTERS => return Err(RecordRefusal::Full),
            _ if full => return Err(RecordRefusal::Full),
            _ => {
                self.by_member
                    .entry(key.member)
                    .or_default()
                    .push((key.cluster, stored));
                self.count += 1;
                *self.by_cluster.entry(key.cluster).or_default() += 1;
                self.strangers += usize::from(stranger);
            }
        }
        Ok(())
    }

    /// Whether `agent` may announce this backend in addition to its others, of which at most `max_backends` different
    /// ones may stand. A backend that no live member announces makes room, and is revoked. O(announcements).
    fn has_room_under(
        &mut self,
        agent: &PublicKey,
        key: &RecordKey,
        backend: SocketAddr,
        max_backends: usize,
        live: impl FnOnce() -> HashSet<MemberKey>,
    ) -> bool {
        let others = || {
            let all = self.standing_under(agent).filter(|(of, _)| of != key);
            all.filter(|(_, other)| *other != backend)
        };
        let count = HashSet::<SocketAddr>::from_iter(others().map(|(_, other)| other)).len();
        if count < max_backends {
            return true;
        }
        let live = live();
        let is_live = |(of, _): &(RecordKey, SocketAddr)| live.contains(&of.member);
        let served: HashSet<SocketAddr> =
            others().filter(is_live).map(|(_, other)| other).collect();
        let Some((_, dead)) = others().find(|(_, other)| !served.contains(other)) else {
            return false;
        };
        let all = self.by_member.values_mut().flatten();
        for (_, stored) in all.filter(|(_, stored)| stored.agent.as_ref() == Some(agent)) {
            if stored.announced.record.backend == dead {
                stored.announced.revoked = Some(Revocation::NotPermitted);
            }
        }
        count <= max_backends
    }

    /// Backends that `agent` announces and that are neither revoked nor left.
    fn standing_under(&self, agent: &PublicKey) -> impl Iterator<Item = (RecordKey, SocketAddr)> {
        let of_it = |stored: &Stored| {
            let announced = &stored.announced;
            stored.agent.as_ref() == Some(agent)
                && announced.revoked.is_none()
                && announced.state() != ServiceState::Left
        };
        let all = self.iter().filter(move |(_, stored)| of_it(stored));
        all.map(|(key, stored)| (key, stored.announced.record.backend))
    }

    /// The newest run in which a member announces, and the key that it is bound to; `None` if no tokens are required.
    pub fn bound(&self, member: &MemberKey) -> Option<(u64, PublicKey)> {
        let newest = self.newest(member)?;
        newest.agent.map(|agent| (newest.announced.epoch, agent))
    }

    fn newest(&self, member: &MemberKey) -> Option<&Stored> {
        let list = self.by_member.get(member)?.iter();
        list.map(|(_, stored)| stored)
            .max_by_key(|stored| stored.edition())
    }

    /// Notes that a run has proved to announce with a key. Ignored for members that announce nothing.
    pub fn prove(&mut self, member: MemberKey, epoch: u64, agent: PublicKey) {
        if self.by_member.contains_key(&member) {
            self.proved.insert(member, (epoch, agent));
        }
    }

    /// Removes everything that a member announces.
    fn forget(&mut self, member: &MemberKey) {
        for (cluster, _) in self.by_member.remove(member).unwrap_or_default() {
            self.count -= 1;
            if let Some(count) = self.by_cluster.get_mut(&cluster) {
                *count -= 1;
            }
        }
    }

    /// Whether there is no room for another announcement of a cluster. Unknown members get less room.
    fn is_full(&self, cluster: u64, stranger: bool) -> bool {
        let (of_cluster, of_strangers) = SHARES;
        let in_cluster = self.by_cluster.get(&cluster).copied().unwrap_or_default();
        self.count >= self.capacity
            || in_cluster >= self.capacity.div_ceil(of_cluster)
            || (stranger && self.strangers >= self.capacity.div_ceil(of_strangers))
    }

    /// The announcement with this key.
    pub fn get(&self, key: &RecordKey) -> Option<&Stored> {
        let list = self.by_member.get(&key.member)?;
        list.iter()
            .find(|(cluster, _)| *cluster == key.cluster)
            .map(|(_, stored)| stored)
    }

    /// Run and version of the announcement with this key.
    pub fn edition(&self, key: &RecordKey) -> Option<Edition> {
        self.get(key).map(Stored::edition)
    }

    /// Everything that a member announces.
    pub fn of(&self, member: &MemberKey) -> impl Iterator<Item = (RecordKey, &Stored)> {
        let member = *member;
        self.by_member
            .get(&member)
            .into_iter()
            .flatten()
            .map(move |(cluster, stored)| {
                let cluster = *cluster;
                (RecordKey { member, cluster }, stored)
            })
    }

    /// All announcements.
    pub fn iter(&self) -> impl Iterator<Item = (RecordKey, &Stored)> {
        self.by_member.iter().flat_map(|(&member, list)| {
            list.iter().map(move |(cluster, stored)| {
                let cluster = *cluster;
                (RecordKey { member, cluster }, stored)
            })
        })
    }

    /// The number of announcements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no announcements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Judges all announcements again by another policy, and revokes those that it does not permit. An announcement
    /// counts as expired only if the policy permits it otherwise.
    pub fn judge_again(&mut self, policy: &RecordPolicy<'_>) {
        let timeless = RecordPolicy { unix: 0, ..*policy };
        for (_, stored) in self.by_member.values_mut().flatten() {
            let read = Announcement::decode(&stored.bytes);
            // Its member is bound to the key from now on, or no longer.
            stored.agent = match (&read, policy.authority) {
                (Ok(read), Some(_)) => read.agent(),
                _ => None,
            };
            let judged = read.map(|read| permitted(&read, &timeless));
            stored.announced.revoked = match judged {
                Ok(Ok((expires, _))) => {
                    stored.announced.expires = expires;
                    has_expired(expires, policy.unix).then_some(Revocation::Expired)
                }
                Ok(Err(RecordRefusal::NoToken)) => Some(Revocation::NoToken),
                Ok(Err(_)) | Err(_) => Some(Revocation::NotPermitted),
            };
        }
    }

    /// Revokes announcements whose token has expired, and drops those that have been orphans for long: `run` does not
    /// know their member, or knows it in another run. Returns whether something changed.
    pub fn sweep(&mut self, now: Time, unix: u64, run: impl Fn(&MemberKey) -> Option<u64>) -> bool {
        let mut changed = false;
        self.strangers = 0;
        self.by_cluster.clear();
        self.count = 0;
        self.by_member.retain(|member, list| {
            let run = run(member);
            // Once it announces something in its current run, only that counts; until then the previous run's stands.
            let current = |(_, stored): &(u64, Stored)| run == Some(stored.announced.epoch);
            let announces_now = list.iter().any(current);
            list.retain_mut(|(cluster, stored)| {
                let announced = &mut stored.announced;
                if announced.revoked.is_none() && has_expired(announced.expires, unix) {
                    (announced.revoked, changed) = (Some(Revocation::Expired), true);
                }
                if run.is_some() && (!announces_now || run == Some(announced.epoch)) {
                    stored.orphan = None;
                } else {
                    let since = *stored.orphan.get_or_insert(now);
                    if now.saturating_sub(since) >= ORPHAN {
                        changed = true;
                        return false;
                    }
                }
                self.strangers += usize::from(run.is_none());
                *self.by_cluster.entry(*cluster).or_default() += 1;
                self.count += 1;
                true
            });
            !list.is_empty()
        });
        let members = &self.by_member;
        self.proved.retain(|member, _| members.contains_key(member));
        changed
    }
}

fn has_expired(expires: Option<u64>, unix: u64) -> bool {
    expires.is_some_and(|expires| unix > expires.saturating_add(GRACE))
}

/// Checks that an announcement is permitted; returns when that ends and how many backends are allowed.
fn permitted(
    read: &Announcement<'_>,
    policy: &RecordPolicy<'_>,
) -> Result<(Option<u64>, Option<u16>), RecordRefusal> {
    let Some(authority) = policy.authority else {
        return Ok((None, None));
    };
    if read.token.is_empty() {
        return Err(RecordRefusal::NoToken);
    }
    let token = Token::decode(read.token)?;
    let signature = read.signature.try_into();
    let signature = signature.map_err(|_| TokenError::RecordForged)?;
    authority.verify_token(&token, policy.unix)?;
    authority.verify_record(&token, policy.label, read.signed, signature)?;
    let record = &read.record;
    let member = unpack_address(&read.member);
    token.permits(&record.cluster, record.backend.ip(), record.weight)?;
    token.permits_agent(member.ip())?;
    token.permits_label(policy.label)?;
    Ok((Some(token.expires()), token.claims().max_backends))
}

/// The hash of a cluster's name, which is the same on every member.
pub fn cluster_hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

#[cfg(test)]
mod tests;
