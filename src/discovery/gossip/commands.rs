//! What the handle of a member asks of its thread.

use tokio::sync::oneshot;

use super::settings::{MemberSettings, Secrets};
use super::sockets::Sockets;
use crate::gossip::record::Record;

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum MemberCommand {
    /// Continue with this; with another address, label or role as another member.
    Update(Box<MemberUpdate>),
    /// Announce this.
    Announce(Record, oneshot::Sender<Result<(), String>>),
    /// Answer when the newest announcement was sent.
    AwaitSent(oneshot::Sender<()>),
    /// Leave the peer set, and end.
    Leave,
    /// Panic.
    #[cfg(test)]
    Fail,
}

/// What a member continues with.
#[derive(Debug)]
pub(super) struct MemberUpdate {
    pub settings: MemberSettings,
    pub secrets: Secrets,
    /// New sockets; `None`: those that it has.
    pub sockets: Option<Sockets>,
    /// What it announces; `None`: what it announced before.
    pub record: Option<Record>,
}
