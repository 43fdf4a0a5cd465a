//! What a route, or a listener without a matching route, does with a request.

use std::sync::Arc;

use super::page::Page;

/// What happens to a request. `C` says which cluster it is sent to: the name in a configuration, the index in a
/// snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction<C> {
    /// Send it to this cluster.
    Cluster(C),
    /// Answer with a redirect.
    Redirect {
        /// Template of Location: `{host}`, `{uri}`, `{path}`, `{query}`.
        to: String,
        /// 301, 302, 303, 307 or 308; by default 308.
        status: u16,
    },
    /// Answer with a fixed response.
    Respond {
        /// 200 to 599; by default 200.
        status: u16,
        /// Additional fields, as whole lines.
        fields: Arc<str>,
        /// Body. If absent the response has none, but an error status gets its page from `errors`.
        page: Option<Arc<Page>>,
    },
}

impl<C> RouteAction<C> {
    /// The same action with its cluster, if it has one, named by `to`.
    pub fn map<D>(self, to: impl FnOnce(C) -> D) -> RouteAction<D> {
        match self {
            Self::Cluster(cluster) => RouteAction::Cluster(to(cluster)),
            Self::Redirect { to, status } => RouteAction::Redirect { to, status },
            Self::Respond {
                status,
                fields,
                page,
            } => RouteAction::Respond {
                status,
                fields,
                page,
            },
        }
    }

    /// The cluster that the request is sent to, if it is sent to one.
    pub fn cluster(&self) -> Option<&C> {
        match self {
            Self::Cluster(cluster) => Some(cluster),
            Self::Redirect { .. } | Self::Respond { .. } => None,
        }
    }
}
