//! How much a member does per second for what others send, so that nobody can make it work or send without bound.

use super::super::Time;

/// Runs that are told per second that they are not the newest at their address.
const CORRECTIONS: u32 = 100;
/// Suspects that are told per second that they are suspect.
const SUSPICION_NOTICES: u32 = 100;
/// Runs that are challenged per second.
const CHALLENGES: u32 = 2_000;
/// Runs that are asked per second to prove their agent key.
const PROOF_REQUESTS: u32 = 500;
/// Proofs that are made per second; each is a signature.
const PROOFS: u32 = 1_000;
/// How often this member dials its own address per second.
const OWN_ADDRESS_DIALS: u32 = 1;

/// An allowance for each second.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: u32,
    second: u64,
    used: u32,
}

impl RateLimit {
    fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: 0,
            used: 0,
        }
    }

    /// How much is left in this second.
    pub(super) fn left(&mut self, now: Time) -> u32 {
        if now.as_secs() != self.second {
            self.second = now.as_secs();
            self.used = 0;
        }
        self.per_second.saturating_sub(self.used)
    }

    /// Uses `count`, which may be more than is left.
    pub(super) fn spend(&mut self, count: u32) {
        self.used = self.used.saturating_add(count);
    }

    /// Uses one if any is left in this second.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let some = self.left(now) > 0;
        self.used += u32::from(some);
        some
    }
}

/// All allowances of a member.
#[derive(Debug)]
pub(super) struct RateLimits {
    /// Members that datagrams make known.
    pub new_members: RateLimit,
    pub corrections: RateLimit,
    pub suspicion_notices: RateLimit,
    pub challenges: RateLimit,
    pub proof_requests: RateLimit,
    pub proofs: RateLimit,
    pub own_address_dials: RateLimit,
}

impl RateLimits {
    pub(super) fn new(new_members: u32) -> Self {
        Self {
            new_members: RateLimit::new(new_members),
            corrections: RateLimit::new(CORRECTIONS),
            suspicion_notices: RateLimit::new(SUSPICION_NOTICES),
            challenges: RateLimit::new(CHALLENGES),
            proof_requests: RateLimit::new(PROOF_REQUESTS),
            proofs: RateLimit::new(PROOFS),
            own_address_dials: RateLimit::new(OWN_ADDRESS_DIALS),
        }
    }
}
