//! The announcements that were accepted, by member and cluster.
//!
//! The newest (epoch, version) of a member for a cluster wins. A member speaks for few clusters, so that one token
//! touches only entries of its own cluster. What is dropped and why is a closed set.
//!
//! Where tokens are asked for, a member is bound to the agent key that signed first. An announcement in its name by
//! another key counts only once the member has proved, for the run in which it is now, that it announces by that key
//! (see `proofs`): so an agent may restart with another token or take one up while it runs, and nobody
//! else's token speaks for it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::Time;
use super::identity::{Horizon, unpack_address};
use super::record::{Announcement, ServiceState};
use super::token::{Authority, GRACE, PUBLIC_LEN, Token, TokenError};
use super::view::{Announced, Revocation};

type Agent = [u8; PUBLIC_LEN];

/// Clusters that one member speaks for, at the most.
const MOST_CLUSTERS: usize = 4;
/// How long an announcement is kept whose member is not known, or goes on in another run. One that may not be announced
/// any more has its place as before, so that it can be seen.
const ORPHAN: Duration = Duration::from_secs(60);
/// Of all places, one cluster has half at the most, and members that are not known have a tenth.
const SHARES: (usize, usize) = (2, 10);

/// A member's announcement for a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    /// The member.
    pub member: [u8; 18],
    /// Hash of the cluster's name.
    pub cluster: u64,
}

/// How new an announcement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition {
    /// The run.
    pub epoch: u64,
    /// The version in it.
    pub version: u64,
}

/// Why an announcement is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefusal {
    /// The bytes are none, or break a limit.
    #[error("the announcement is malformed")]
    Malformed,
    /// It is of a later run than the one in which its member is known.
    #[error("the announcement is of a later run than its member's")]
    LaterRun,
    /// There is no place for one more.
    #[error("there is no place for one more announcement of this member, this cluster or in all")]
    Full,
    /// A token is asked for.
    #[error("the announcement carries no token")]
    NoToken,
    /// The member has not proved that it announces by this agent key.
    #[error("its member announces by another agent's key")]
    OtherAgent,
    /// Its member says it, but in a version that is known already, and says something else.
    #[error(
        "somebody else announces in its member's name, in later versions and by the same token if there is one"
    )]
    Outdone,
    /// Its token is of no use, or does not permit it.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// What is known of an announcement.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As it travels.
    pub bytes: Arc<[u8]>,
    /// As it is read.
    pub announced: Announced,
    /// The key that signed it, as its token says.
    agent: Option<Agent>,
    /// How old it was when it was accepted.
    age: Duration,
    /// Since when it is an orphan.
    orphan: Option<Time>,
}

impl Stored {
    /// How old it is, as far as those who passed it on have counted.
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

/// Who may announce what, and at what time of the world this is asked.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The operator; absent: every member may.
    pub authority: Option<&'a Authority>,
    /// Of the set; signatures bind it.
    pub label: &'a str,
    /// Unix seconds.
    pub unix: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Records {
    by_member: HashMap<[u8; 18], Vec<(u64, Stored)>>,
    /// Runs that have proved by which key they announce; only of members that announce something.
    proved: HashMap<[u8; 18], (u64, Agent)>,
    by_cluster: HashMap<u64, usize>,
    count: usize,
    /// Of members that were not known when they came, or at the last sweep.
    strangers: usize,
    most: usize,
}

impl Records {
    /// Empty, for at most `most`.
    pub fn new(most: usize) -> Self {
        Self {
            by_member: HashMap::new(),
            proved: HashMap::new(),
            by_cluster: HashMap::new(),
            count: 0,
            strangers: 0,
            most,
        }
    }

    /// Takes an announcement. Its key if it is news, `None` if it is known already. `run` tells in which run its member
    /// is known: nobody announces for a later one, which would stand against all that the member itself says; `live`,
    /// which members are not held for dead. That is asked only where a token's backends are used up.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn accept(
        &mut self,
        bytes: &[u8],
        age: Duration,
        now: Time,
        rules: &Rules<'_>,
        run: impl FnOnce(&[u8; 18]) -> Option<u64>,
        live: impl FnOnce() -> HashSet<[u8; 18]>,
    ) -> Result<Option<RecordKey>, RecordRefusal> {
        let read = Announcement::decode(bytes).map_err(|_| RecordRefusal::Malformed)?;
        if Horizon::at(rules.unix).excludes(read.epoch) {
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
        let agent = read.agent().filter(|_| rules.authority.is_some());
        let known = self.get(&key).map(|known| (known.edition(), known.agent));
        let is_known = |(known, by): (Edition, Option<Agent>)| {
            by == agent && known.epoch == edition.epoch && known >= edition
        };
        if known.is_some_and(is_known) {
            return Ok(None);
        }
        let run = run(&key.member);
        if run.is_some_and(|run| edition.epoch > run) {
            return Err(RecordRefusal::LaterRun);
        }
        let newest = self.newest(&key.member);
        let newest = newest.map(|newest| (newest.announced.epoch, newest.agent));
        // It was announced for a run that the member is not in: by nobody who knew.
        let void = newest.is_some_and(|(epoch, _)| run.is_some_and(|run| epoch > run));
        // What another key says is held against what the member says, not against how new that is.
        let (epoch, bound) = newest.filter(|_| !void).unzip();
        let other = agent.is_some() && bound.flatten().is_some_and(|bound| agent != Some(bound));
        let is_old = match other {
            true => epoch.is_some_and(|known| known > edition.epoch),
            false => known.is_some_and(|(known, _)| known >= edition) && !void,
        };
        if is_old {
            return Ok(None);
        }
        let (expires, most) = permitted(&read, rules)?;
        if other {
            let proved = self.proved.get(&key.member).copied();
            if proved != agent.map(|agent| (edition.epoch, agent)) {
                return Err(RecordRefusal::OtherAgent);
            }
        }
        if let (Some(most), Some(agent)) = (most, agent)
            && read.record.state != ServiceState::Left
            && !self.has_room_under(&agent, &key, read.record.backend, most.into(), live)
        {
            return Err(TokenError::TooManyBackends.into());
        }
        if other || void {
            // What it has announced by the key before was somebody else's, or is said again.
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
        let full = self.is_full(key.cluster, run.is_none());
        let known = self.by_member.get_mut(&key.member);
        let place = known
            .as_ref()
            .and_then(|list| list.iter().position(|(cluster, _)| *cluster == key.cluster));
        match (known, place) {
            (Some(list), Some(place)) => list[place].1 = stored,
            (Some(list), None) if list.len() >= MOST_CLUSTERS => return Err(RecordRefusal::Full),
            _ if full => return Err(RecordRefusal::Full),
            _ => {
                self.by_member
                    .entry(key.member)
                    .or_default()
                    .push((key.cluster, stored));
                self.count += 1;
                *self.by_cluster.entry(key.cluster).or_default() += 1;
                self.strangers += usize::from(run.is_none());
            }
        }
        Ok(Some(key))
    }

    /// Whether `agent` may announce this backend beside the others that it announces: at most `most` different ones that
    /// stand. One that no live member announces makes room, and may not be announced any more. O(announcements).
    fn has_room_under(
        &mut self,
        agent: &Agent,
        key: &RecordKey,
        backend: SocketAddr,
        most: usize,
        live: impl FnOnce() -> HashSet<[u8; 18]>,
    ) -> bool {
        let others = || {
            let all = self.standing_under(agent).filter(|(of, _)| of != key);
            all.filter(|(_, other)| *other != backend)
        };
        let count = HashSet::<SocketAddr>::from_iter(others().map(|(_, other)| other)).len();
        if count < most {
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
        count <= most
    }

    /// The backends that `agent` announces, which may be used and have not left.
    fn standing_under(&self, agent: &Agent) -> impl Iterator<Item = (RecordKey, SocketAddr)> {
        let of_it = |stored: &Stored| {
            let announced = &stored.announced;
            stored.agent.as_ref() == Some(agent)
                && announced.revoked.is_none()
                && announced.state() != ServiceState::Left
        };
        let all = self.iter().filter(move |(_, stored)| of_it(stored));
        all.map(|(key, stored)| (key, stored.announced.record.backend))
    }

    /// The newest run in which a member announces, and the key by which it does; `None` while no key counts.
    pub fn bound(&self, member: &[u8; 18]) -> Option<(u64, Agent)> {
        let newest = self.newest(member)?;
        newest.agent.map(|agent| (newest.announced.epoch, agent))
    }

    fn newest(&self, member: &[u8; 18]) -> Option<&Stored> {
        let list = self.by_member.get(member)?.iter();
        list.map(|(_, stored)| stored)
            .max_by_key(|stored| stored.edition())
    }

    /// A run of a member has proved that it announces by a key. Kept only where that is about to be announced.
    pub fn prove(&mut self, member: [u8; 18], epoch: u64, agent: Agent) {
        if self.by_member.contains_key(&member) {
            self.proved.insert(member, (epoch, agent));
        }
    }

    /// Forgets what a member announces.
    fn forget(&mut self, member: &[u8; 18]) {
        for (cluster, _) in self.by_member.remove(member).unwrap_or_default() {
            self.count -= 1;
            if let Some(count) = self.by_cluster.get_mut(&cluster) {
                *count -= 1;
            }
        }
    }

    /// Whether there is no place for one more of a cluster; less for members that are not known.
    fn is_full(&self, cluster: u64, stranger: bool) -> bool {
        let (of_cluster, of_strangers) = SHARES;
        let in_cluster = self.by_cluster.get(&cluster).copied().unwrap_or_default();
        self.count >= self.most
            || in_cluster >= self.most.div_ceil(of_cluster)
            || (stranger && self.strangers >= self.most.div_ceil(of_strangers))
    }

    /// An announcement.
    pub fn get(&self, key: &RecordKey) -> Option<&Stored> {
        let list = self.by_member.get(&key.member)?;
        list.iter()
            .find(|(cluster, _)| *cluster == key.cluster)
            .map(|(_, stored)| stored)
    }

    /// How new what is known is.
    pub fn edition(&self, key: &RecordKey) -> Option<Edition> {
        self.get(key).map(Stored::edition)
    }

    /// What a member announces.
    pub fn of(&self, member: &[u8; 18]) -> impl Iterator<Item = (RecordKey, &Stored)> {
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Judges all of them by other rules: those that do not stand are revoked. That a token has expired is said only of
    /// what the rules permit else.
    pub fn judge_again(&mut self, rules: &Rules<'_>) {
        let timeless = Rules { unix: 0, ..*rules };
        for (_, stored) in self.by_member.values_mut().flatten() {
            let read = Announcement::decode(&stored.bytes);
            // An agent key is bound from now on, or no longer.
            stored.agent = match (&read, rules.authority) {
                (Ok(read), Some(_)) => read.agent(),
                _ => None,
            };
            let judged = read.map(|read| permitted(&read, &timeless));
            stored.announced.revoked = match judged {
                Ok(Ok((expires, _))) => {
                    stored.announced.expires = expires;
                    has_expired(expires, rules.unix).then_some(Revocation::Expired)
                }
                Ok(Err(RecordRefusal::NoToken)) => Some(Revocation::NoToken),
                Ok(Err(_)) | Err(_) => Some(Revocation::NotPermitted),
            };
        }
    }

    /// Revokes those whose token has expired, and drops those that have been orphans for long: of another run than the
    /// one in which `run` knows their member. True if something has changed.
    pub fn sweep(&mut self, now: Time, unix: u64, run: impl Fn(&[u8; 18]) -> Option<u64>) -> bool {
        let mut changed = false;
        self.strangers = 0;
        self.by_cluster.clear();
        self.count = 0;
        self.by_member.retain(|member, list| {
            let run = run(member);
            // What it says in the run that is there is all that it says; until then what it said before stands.
            let current = |(_, stored): &(u64, Stored)| run == Some(stored.announced.epoch);
            let has_spoken = list.iter().any(current);
            list.retain_mut(|(cluster, stored)| {
                let announced = &mut stored.announced;
                if announced.revoked.is_none() && has_expired(announced.expires, unix) {
                    (announced.revoked, changed) = (Some(Revocation::Expired), true);
                }
                if run.is_some() && (!has_spoken || run == Some(announced.epoch)) {
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

/// When the permission ends, and for how many backends it is.
fn permitted(
    read: &Announcement<'_>,
    rules: &Rules<'_>,
) -> Result<(Option<u64>, Option<u16>), RecordRefusal> {
    let Some(authority) = rules.authority else {
        return Ok((None, None));
    };
    if read.token.is_empty() {
        return Err(RecordRefusal::NoToken);
    }
    let token = Token::decode(read.token)?;
    let signature = read.signature.try_into();
    let signature = signature.map_err(|_| TokenError::RecordForged)?;
    authority.verify_token(&token, rules.unix)?;
    authority.verify_record(&token, rules.label, read.signed, signature)?;
    let record = &read.record;
    let member = unpack_address(&read.member);
    token.permits(&record.cluster, record.backend.ip(), record.weight)?;
    token.permits_agent(member.ip())?;
    token.permits_label(rules.label)?;
    Ok((Some(token.expires()), token.claims().max_backends))
}

/// Hash of a cluster's name, the same on every member.
pub fn cluster_hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

#[cfg(test)]
mod tests;
