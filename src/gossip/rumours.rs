//! Which announcements are told on, and how often yet.

use super::records::RecordKey;

/// Announcements that are told on, each a number of times; the least told first.
#[derive(Debug, Default)]
pub(super) struct Rumours(Vec<Rumour>);

#[derive(Debug)]
struct Rumour {
    key: RecordKey,
    left: u8,
}

impl Rumours {
    /// Tells `key` on, `times` times from now.
    pub(super) fn add(&mut self, key: RecordKey, times: u8) {
        self.0.retain(|rumour| rumour.key != key);
        let left = times;
        let place = self.0.partition_point(|rumour| rumour.left > left);
        self.0.insert(place, Rumour { key, left });
    }

    /// Whether nothing is to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are to be told.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes those that `fits` takes, the least told first, and counts them as told once more.
    pub(super) fn tell(&mut self, mut fits: impl FnMut(&RecordKey) -> bool) {
        for rumour in &mut self.0 {
            if fits(&rumour.key) {
                rumour.left -= 1;
            }
        }
        self.0.retain(|rumour| rumour.left > 0);
        self.0.sort_by_key(|rumour| std::cmp::Reverse(rumour.left));
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_told_is_told_first() {
        let key = |last| RecordKey {
            member: [last; 18],
            cluster: 0,
        };
        let mut rumours = Rumours::default();
        rumours.add(key(1), 2);
        rumours.add(key(2), 3);
        rumours.add(key(1), 1);
        let mut told = Vec::new();
        for _ in 0..5 {
            rumours.tell(|key| {
                told.push(key.member[0]);
                true
            });
        }
        assert_eq!(told, [2, 1, 2, 2], "what is told anew replaces what was");
        assert!(rumours.is_empty());
    }
}
