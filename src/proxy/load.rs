//! What a request or a session holds while it is open: a generation, and its place in a backend's load.

use std::rc::Rc;
use std::sync::Arc;

use crate::model::backend::Backend;
use crate::snapshot::{Cluster, ClusterIndex, Endpoint, Snapshot};

/// A generation as a worker hands it to its requests: counted within the worker, so that a request pays no
/// contended atomic.
pub type Held = Rc<Arc<Snapshot>>;

/// A backend that was picked, and the request's place in its load. The load ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Picked {
    held: Held,
    cluster: ClusterIndex,
    endpoint: u32,
}

impl Picked {
    /// Counts one request or session on the endpoint.
    pub(crate) fn new(held: &Held, cluster: ClusterIndex, endpoint: usize) -> Self {
        let picked = Self {
            held: Rc::clone(held),
            cluster,
            endpoint: endpoint as u32,
        };
        picked.endpoint().backend.start();
        picked
    }

    /// The generation.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.held
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.held.cluster(self.cluster)
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.cluster().endpoints[self.endpoint as usize]
    }

    /// Lets go of the generation but keeps the load: for what lasts longer than a request.
    pub(crate) fn detach(self) -> Detached {
        let backend = Arc::clone(&self.endpoint().backend);
        backend.start();
        Detached { backend }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint().backend.finish();
    }
}

/// A session's place in a backend's load, without a generation.
#[derive(Debug)]
pub(crate) struct Detached {
    backend: Arc<Backend>,
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.backend.finish();
    }
}
