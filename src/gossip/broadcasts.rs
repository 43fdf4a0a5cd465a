//! Announcements that are still to be gossiped, and how often: a queue with limited retransmission.

use super::records::RecordKey;

/// Announcements to gossip, each a number of times; the least sent come first.
#[derive(Debug, Default)]
pub(super) struct Broadcasts(Vec<Broadcast>);

#[derive(Debug)]
struct Broadcast {
    key: RecordKey,
    left: u8,
}

impl Broadcasts {
    /// Gossips `key` from now on, `times` times.
    pub(super) fn add(&mut self, key: RecordKey, times: u8) {
        self.0.retain(|broadcast| broadcast.key != key);
        let left = times;
        let place = self.0.partition_point(|broadcast| broadcast.left > left);
        self.0.insert(place, Broadcast { key, left });
    }

    /// Whether nothing is left to gossip.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of announcements to gossip.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Offers all announcements to `fits`, the least sent first, and counts those that it accepts as sent once more.
    pub(super) fn send(&mut self, mut fits: impl FnMut(&RecordKey) -> bool) {
        for broadcast in &mut self.0 {
            if fits(&broadcast.key) {
                broadcast.left -= 1;
            }
        }
        self.0.retain(|broadcast| broadcast.left > 0);
        self.0
            .sort_by_key(|broadcast| std::cmp::Reverse(broadcast.left));
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_sent_is_sent_first() {
        let key = |last| RecordKey {
            member: [last; 18],
            cluster: 0,
        };
        let mut broadcasts = Broadcasts::default();
        broadcasts.add(key(1), 2);
        broadcasts.add(key(2), 3);
        broadcasts.add(key(1), 1);
        let mut sent = Vec::new();
        for _ in 0..5 {
            broadcasts.send(|key| {
                sent.push(key.member[0]);
                true
            });
        }
        assert_eq!(sent, [2, 1, 2, 2], "adding a key again replaces it");
        assert!(broadcasts.is_empty());
    }
}
