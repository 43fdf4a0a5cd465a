//! Whether a listener may have one more connection: its limit, the descriptors of the process and the share of them that
//! each listener has, and the limit for each client address.

use std::net::SocketAddr;

use crate::limit::connections::ConnectionPermit;
use crate::snapshot::{Listener, Snapshot};
use crate::telemetry::outcome::Reason;
use crate::transport::descriptors::Descriptors;

/// A place for one more connection of `listener`, or why the next one must wait.
pub(crate) fn admit(
    snapshot: &Snapshot,
    listener: &Listener,
    descriptors: &Descriptors,
) -> Result<ConnectionPermit, Reason> {
    if !has_descriptors(snapshot, listener, descriptors) {
        return Err(Reason::DescriptorLimit);
    }
    let most = listener.limits.connections.unwrap_or(u32::MAX);
    let permit = listener.state.connections.try_acquire(most);
    permit.ok_or(Reason::ConnectionLimit)
}

/// Whether there are descriptors for one more connection of `listener`. When they are scarce, one that uses more than
/// its share leaves the others what they lack of theirs.
fn has_descriptors(snapshot: &Snapshot, listener: &Listener, descriptors: &Descriptors) -> bool {
    let reserved = if descriptors.is_scarce() && exceeds_share(snapshot, listener, descriptors) {
        let share = share_of(snapshot, descriptors);
        let others = snapshot.listeners.iter();
        others
            .map(|other| share.saturating_sub(used_by(other)))
            .sum()
    } else {
        0
    };
    descriptors.has_room(reserved)
}

/// Whether the listener uses its share of the descriptors, or more.
pub(crate) fn exceeds_share(
    snapshot: &Snapshot,
    listener: &Listener,
    descriptors: &Descriptors,
) -> bool {
    used_by(listener) >= share_of(snapshot, descriptors)
}

/// Half of all descriptors, divided among the listeners.
fn share_of(snapshot: &Snapshot, descriptors: &Descriptors) -> usize {
    descriptors.limit() / 2 / snapshot.listeners.len().max(1)
}

/// About the descriptors of a listener's connections: each may have one to a backend.
fn used_by(listener: &Listener) -> usize {
    2 * listener.state.connections.open() as usize
}

/// Counts the connection as one of its client, if those are limited; whether it may stay. Trusted proxies bring many
/// clients, and so does a Unix socket: they are not limited.
pub(crate) fn admit_client(
    permit: &mut ConnectionPermit,
    listener: &Listener,
    peer: Option<SocketAddr>,
    descriptors: &Descriptors,
) -> bool {
    let (Some(limit), Some(peer)) = (listener.limits.connections_per_client, peer) else {
        return true;
    };
    let ip = peer.ip().to_canonical();
    if listener.trusted_proxies.trusts(Some(ip)) {
        return true;
    }
    let whole = listener.limits.connections.unwrap_or_else(|| {
        let carried = descriptors.limit() / 2;
        u32::try_from(carried).unwrap_or(u32::MAX)
    });
    permit.try_count_client(ip, limit.of(whole))
}
