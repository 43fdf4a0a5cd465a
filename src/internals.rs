//! What the tests, the benchmarks and the fuzz targets reach of the library. Not an interface: it follows them, and
//! anything in it may change at any time. Everything else of the crate is `pub(crate)`, so the compiler finds dead items.
#![allow(missing_docs, reason = "the items have their own")]

pub mod app {
    pub use crate::app::run_with;
}
pub mod balance {
    pub use crate::balance::{Balancer, PickRequest, Random, WeightedBackend};
}
pub mod config {
    pub mod compile {
        use std::collections::HashMap;
        use std::sync::Arc;

        use crate::config::compile::{CompileInputs, Compiled, compile};
        use crate::config::layers::Layers;
        use crate::config::schema::Config;
        use crate::snapshot::Snapshot;
        use crate::snapshot::registry::Registry;
        use crate::transport::listen::BoundSockets;

        /// The first snapshot of a configuration, for one worker and without names that must be resolved.
        pub fn snapshot(config: Config, sockets: BoundSockets) -> Snapshot {
            let mut registry = Registry::new(1);
            let inputs = CompileInputs {
                registry: &registry,
                sockets: &[Arc::new(sockets)],
                names: &HashMap::new(),
                previous: None,
            };
            let Compiled { snapshot, effects } =
                compile(&Layers::of_file(Arc::new(config)), &inputs);
            effects.apply(&mut registry);
            snapshot
        }
    }
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
        pub use crate::model::address::BackendAddress;
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
        pub use crate::model::settings::{ClusterTimeouts, Policy};
    }
    pub use crate::model::timer_queue::TimerQueue;
}
pub mod proxy {
    pub mod flow {
        pub use crate::proxy::flow::{LARGEST_READ, SMALL_READ, Stream};
    }
    pub mod http {
        pub mod exchange {
            pub use crate::proxy::http::exchange::{Desk, End, Exchange, READ_AHEAD};
        }
        pub mod headers {
            pub use crate::proxy::http::headers::{
                Persistence, Said, Told, client_framing, write_request, write_response,
            };
        }
        pub mod intake {
            pub use crate::proxy::http::intake::Intake;
        }
        pub mod prepare {
            pub use crate::proxy::http::prepare::{Arrival, HeadSpace, Prepared, understand};
        }
        pub mod reply {
            pub use crate::proxy::http::reply::{Reply, reason_of_backend};
        }
        pub mod seen {
            pub use crate::proxy::http::seen::Seen;
        }
    }
    pub mod load {
        pub use crate::proxy::load::Held;
    }
    pub mod sessions {
        pub use crate::proxy::sessions::Fired;
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
pub mod telemetry {
    pub mod outcome {
        pub use crate::telemetry::outcome::{BackendError, Reason};
    }
}
pub mod transport {
    pub mod listen {
        pub use crate::transport::listen::BoundSockets;
    }
}
