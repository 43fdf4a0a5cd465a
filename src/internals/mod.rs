//! What the tests, the benchmarks and the fuzz targets reach of the library. Not an interface: it follows them, and
//! anything in it may change at any time. Everything else of the crate is `pub(crate)`, so the compiler finds dead items.
#![allow(missing_docs, reason = "the items have their own")]

mod in_memory;

pub use in_memory::{InMemory, Process};

pub mod app {
    pub use crate::app::run_with;
}
pub mod balance {
    pub use crate::balance::{Balancer, PickRequest, Random, WeightedBackend};
}
pub mod config {
    pub mod diagnostics {
        pub use crate::config::diagnostics::{Severity, render, to_json};
    }
    pub mod load {
        pub use crate::config::load::{Loaded, load, load_agent, load_bytes};
    }
}
pub mod gossip {
    pub use crate::gossip::codec;
    pub use crate::gossip::counters::{Dropped, GossipCounters};
    pub use crate::gossip::identity::{Identity, Role, pack_address};
    pub use crate::gossip::keyring::{Keyring, OpenError, SecretKey};
    pub use crate::gossip::node::{DATAGRAM, Limits, Node, NodeSettings};
    pub use crate::gossip::push_pull::{MAX_FRAME, PushPull, PushPullProgress};
    pub use crate::gossip::record::{Announcement, Record, ServiceState};
    pub use crate::gossip::records::{RecordKey, cluster_hash};
    pub use crate::gossip::token::{
        AgentCredential, Authority, OperatorKey, OperatorPublic, Token, mint,
    };
    pub use crate::gossip::tuning::MAX_DATAGRAM;
}
pub mod http1 {
    pub use crate::http1::{Framing, Version, request, response};
    pub mod body {
        pub use crate::http1::body::BodyReader;
    }
    pub mod chunked {
        pub use crate::http1::chunked::{Decoder, SizeLine};
    }
    pub mod head {
        pub use crate::http1::head::{Field, HeadEnd, HeadLimits};
    }
}
pub mod model {
    pub mod address {
        pub use crate::model::address::{BackendAddress, SocketAddress};
    }
    pub mod backend {
        pub use crate::model::backend::Backend;
    }
    pub mod cluster {
        pub use crate::model::cluster::ClusterState;
    }
    pub mod health {
        pub use crate::model::health::Health;
    }
    pub mod settings {
        pub use crate::model::settings::Policy;
    }
    pub use crate::model::timer_queue::TimerQueue;
}
pub mod proxy {
    pub mod http {
        pub use crate::proxy::http::exchange::READ_AHEAD;
        pub use crate::proxy::http::forwarded::ForwardedRequest;
        pub use crate::proxy::http::h1::encode::{
            Persistence, ResponseEdits, client_framing, complete_request, write_response,
        };
        pub use crate::proxy::http::head::{ForwardHead, RequestEdits};
    }
    pub mod read_size {
        pub use crate::proxy::read_size::{LARGEST_READ, SMALL_READ};
    }
}
pub mod route {
    pub use crate::route::{Fields, RequestView};
    pub mod rule {
        pub use crate::route::rule::{HostPattern, PathPattern, Rule};
    }
    pub mod table {
        pub use crate::route::table::Table;
    }
}
pub mod snapshot {
    pub use crate::snapshot::Snapshot;
}
pub mod transport {
    pub use crate::transport::conn::EndName;
    pub use crate::transport::connect::{Connector, DialError};
    pub use crate::transport::stream::Stream;
}
