//! L3 control: where members come from, beside the file. Names of backends are resolved here ([`dns`] decides when,
//! [`lookup`] asks), off the workers, and kept fresh; what the peer set announces becomes candidates here ([`gossip`]).

pub(crate) mod dns;
pub(crate) mod gossip;
pub(crate) mod lookup;
