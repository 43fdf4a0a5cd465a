//! Lets a simulation begin in the middle. Only the simulator calls this.

use std::sync::Arc;
use std::time::Duration;

use foca::Member;

use super::super::Time;
use super::super::identity::{Identity, Role};
use super::Node;

impl Node {
    /// Makes this member know others, and a proxy their announcements, as if they had been together for some time. With
    /// `contacts` each of the others has also been challenged.
    pub fn acquaint(
        &mut self,
        members: &[Member<Identity>],
        records: &[Arc<[u8]>],
        contacts: bool,
        now: Time,
    ) {
        self.set_now(now);
        let nobody = Identity::new(([192, 0, 2, 1], 9).into(), 0, Role::Agent);
        self.merge_members(&nobody, false, members.to_vec());
        if contacts {
            for member in members {
                self.contacts.assume(member.id(), now);
            }
        }
        if self.stores_all() {
            for bytes in records {
                self.accept_record(bytes, Duration::ZERO, false);
            }
        }
        (self.joining.joined, self.joining.heard) = (true, true);
        self.push_pulls.churn = 0;
        self.retune();
    }
}
