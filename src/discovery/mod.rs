//! L3 control: where backends come from, besides the file. Their names are resolved here ([`dns`] decides when,
//! [`lookup`] asks), not on the workers, and kept fresh; what the peer set announces becomes candidates here
//! ([`gossip`]).

pub(crate) mod dns;
pub(crate) mod gossip;
pub(crate) mod lookup;
