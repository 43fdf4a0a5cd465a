//! Resolves names to addresses, and keeps the addresses fresh.
//!
//! The system's resolver answers (so `/etc/hosts` and the search list count), on threads of its own
//! ([`super::lookup`]). If a look-up fails, the last answer is kept; a name that never resolved has none. Addresses are
//! sorted: resolvers rotate them, and another order alone is not a change.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use super::lookup;
use crate::model::address::BackendAddress;

/// Most addresses of one name that are used: the first ones in their order.
const MOST_ADDRESSES: usize = 256;

/// A new answer for a name.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The name.
    pub name: BackendAddress,
    /// Its addresses, sorted; never empty.
    pub addresses: Arc<[SocketAddr]>,
}

/// Keeps a set of names fresh, with one task for each name.
#[derive(Debug)]
pub(crate) struct Resolver {
    answers: mpsc::Sender<Resolved>,
    tasks: HashMap<BackendAddress, (Duration, AbortHandle)>,
}

impl Resolver {
    /// A resolver of no names that will send changed addresses to `answers`.
    pub(crate) fn new(answers: mpsc::Sender<Resolved>) -> Self {
        Self {
            answers,
            tasks: HashMap::new(),
        }
    }

    /// Resolves exactly these names from now on, each at its interval; `known` is what is published already.
    pub(crate) fn follow(
        &mut self,
        names: &HashMap<BackendAddress, Duration>,
        known: &HashMap<BackendAddress, Arc<[SocketAddr]>>,
    ) {
        self.tasks.retain(|name, (interval, task)| {
            let stays = names.get(name) == Some(interval);
            if !stays {
                task.abort();
            }
            stays
        });
        for (name, interval) in names {
            if !self.tasks.contains_key(name) {
                let task = keep_fresh(
                    name.clone(),
                    *interval,
                    known.get(name).cloned(),
                    self.answers.clone(),
                );
                self.tasks
                    .insert(name.clone(), (*interval, tokio::spawn(task).abort_handle()));
            }
        }
    }
}

/// Looks a name up at every interval, and sends its addresses when they have changed.
async fn keep_fresh(
    name: BackendAddress,
    interval: Duration,
    mut last: Option<Arc<[SocketAddr]>>,
    answers: mpsc::Sender<Resolved>,
) {
    let mut failing = false;
    let mut too_many = false;
    loop {
        match look_up(&name).await {
            Ok((addresses, left_out)) => {
                if left_out > 0 && !too_many {
                    warn!(%name, used = addresses.len(), left_out, "the name has too many addresses");
                }
                too_many = left_out > 0;
                if failing {
                    info!(%name, "the name resolves again");
                }
                failing = false;
                if last.as_deref() != Some(&addresses) {
                    let addresses: Arc<[SocketAddr]> = addresses.into();
                    last = Some(Arc::clone(&addresses));
                    if answers
                        .send(Resolved {
                            name: name.clone(),
                            addresses,
                        })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
            Err(error) => {
                if !failing {
                    warn!(%name, %error, kept = last.is_some(), "the name does not resolve");
                }
                failing = true;
            }
        }
        tokio::time::sleep(interval).await;
    }
}

/// Looks up all `names` at once, for at most `bound`. Names without an answer are left out.
pub(crate) async fn resolve_all(
    names: impl Iterator<Item = BackendAddress>,
    bound: Duration,
) -> HashMap<BackendAddress, Arc<[SocketAddr]>> {
    let mut look_ups: JoinSet<_> = names
        .map(|name| async move { resolve(&name).await.ok().map(|addresses| (name, addresses)) })
        .collect();
    let mut answers = HashMap::new();
    let gather = async {
        while let Some(result) = look_ups.join_next().await {
            if let Ok(Some((name, addresses))) = result {
                answers.insert(name, addresses.into());
            }
        }
    };
    // What is not answered by then is unresolved for now; the tasks keep asking.
    let _ = timeout(bound, gather).await;
    answers
}

/// Looks up a name: its addresses, sorted, of which there is at least one.
pub(super) async fn resolve(name: &BackendAddress) -> std::io::Result<Vec<SocketAddr>> {
    Ok(look_up(name).await?.0)
}

/// Looks up a name: its addresses, sorted, of which there is at least one, and how many more were left out.
async fn look_up(name: &BackendAddress) -> std::io::Result<(Vec<SocketAddr>, usize)> {
    let BackendAddress::Name { host, port } = name else {
        return Ok((Vec::new(), 0));
    };
    let found = lookup::look_up(host, *port).await?;
    let (addresses, left_out) = in_order(found);
    if addresses.is_empty() {
        Err(std::io::Error::other("the name has no address"))
    } else {
        Ok((addresses, left_out))
    }
}

/// The addresses in an order of their own, each once and at most [`MOST_ADDRESSES`], and how many are left out.
fn in_order(mut addresses: Vec<SocketAddr>) -> (Vec<SocketAddr>, usize) {
    addresses.sort_unstable();
    addresses.dedup();
    let left_out = addresses.len().saturating_sub(MOST_ADDRESSES);
    addresses.truncate(MOST_ADDRESSES);
    (addresses, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_one_order_and_a_bound() {
        let address = |n: u16| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 80));
        let forwards: Vec<_> = (0..300).map(address).collect();
        let backwards: Vec<_> = (0..300).rev().chain([7, 8]).map(address).collect();
        let expected: Vec<_> = (0..256).map(address).collect();
        assert_eq!(in_order(forwards), (expected.clone(), 44));
        assert_eq!(in_order(backwards), (expected, 44));
        let few = vec![address(2), address(1), address(2)];
        assert_eq!(in_order(few), (vec![address(1), address(2)], 0));
    }

    #[tokio::test]
    async fn names_are_resolved_and_what_does_not_exist_is_left_out() {
        let good: BackendAddress = "localhost:80".parse().unwrap();
        let bad: BackendAddress = "no-such-host.invalid:80".parse().unwrap();
        let answers = resolve_all(
            [good.clone(), bad.clone()].into_iter(),
            Duration::from_secs(30),
        )
        .await;
        assert!(
            answers[&good]
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 80)
        );
        assert!(!answers.contains_key(&bad));
    }
}
