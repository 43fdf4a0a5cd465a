//! The data plane over connections that a test makes: the program's own accept-to-record, without sockets, threads or a
//! real clock (run it under a paused one).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use tokio::sync::Notify;

use crate::config::compile::{CompileInputs, Compiled, compile};
use crate::config::layers::Layers;
use crate::config::load::load;
use crate::proxy::classify::classify;
use crate::proxy::client::{Accepted, Admission, ClientGuard};
use crate::proxy::context::{Shared, WorkerContext};
use crate::proxy::http::server::Server;
use crate::proxy::listener::ListenerHandle;
use crate::snapshot::Snapshot;
use crate::snapshot::publish::Publisher;
use crate::snapshot::registry::Registry;
use crate::telemetry::access_log::LogSender;
use crate::transport::connect::Connector;
use crate::transport::descriptors::Descriptors;
use crate::transport::listen::BoundSockets;

/// The generation that a configuration stands for. Its listeners are bound, and never accept.
///
/// # Panics
/// The configuration is not valid, or a listener cannot be bound.
fn snapshot(config: &str) -> Arc<Snapshot> {
    let loaded = load(config);
    let config = loaded.config.expect("the configuration is valid");
    let bind = |address| BoundSockets::bind(address, 1).expect("a free port");
    let listeners = config.listeners.iter();
    let sockets: Vec<_> = listeners.map(|l| Arc::new(bind(&l.address))).collect();
    let mut registry = Registry::new(1);
    let inputs = CompileInputs {
        registry: &registry,
        sockets: &sockets,
        names: &HashMap::new(),
        previous: None,
    };
    let Compiled { snapshot, effects } = compile(&Layers::of_file(Arc::new(config)), &inputs);
    effects.apply(&mut registry);
    Arc::new(snapshot)
}

/// What the workers of one process share.
pub struct Process(Arc<Shared>);

impl Process {
    /// On the generation that `config` stands for.
    ///
    /// # Panics
    /// As [`snapshot`].
    pub fn new(config: &str) -> Self {
        let publisher = Arc::new(Publisher::new(snapshot(config), 1));
        let descriptors = Arc::new(Descriptors::raise());
        let id = *b"0123456789abcdef";
        let shared = Shared::new(publisher, Arc::new(Notify::new()), descriptors, id);
        Self(Arc::new(shared))
    }
}

/// One worker of the data plane, whose connections to backends `T` makes.
pub struct InMemory<T: Connector> {
    server: Rc<Server<T>>,
    listener: Rc<ListenerHandle>,
    log: Receiver<Vec<u8>>,
}

impl<T: Connector> InMemory<T> {
    /// A worker on the first listener. Its choices come from `seed`.
    pub fn new(process: &Process, connector: T, seed: u64) -> Self {
        let (queue, log) = sync_channel(1 << 10);
        let sender = LogSender::new(queue, Arc::default());
        let ctx = WorkerContext::new(0, Arc::clone(&process.0), connector, sender, seed);
        let listener = Rc::new(ListenerHandle::new(&ctx.snapshot(), 0));
        Self {
            server: Rc::new(Server::new(Rc::new(ctx))),
            listener,
            log,
        }
    }

    /// The connector.
    pub fn connector(&self) -> &T {
        &self.server.ctx.connector
    }

    /// Serves a client's connection until it ends.
    pub fn serve(&self, stream: T::Stream, peer: SocketAddr) -> Pin<Box<dyn Future<Output = ()>>> {
        let ctx = &self.server.ctx;
        let view = self.listener.view(&ctx.snapshot());
        let listener = view.listener();
        let admission = Admission {
            _permit: listener.state.connections.acquire(),
            _descriptor: ctx.shared.descriptors.take(),
        };
        let client = ClientGuard::new(
            Some(peer),
            Rc::clone(&self.listener),
            ctx.deadlines.enter(self.listener.id),
            (Arc::clone(&listener.metrics), ctx.index),
            admission,
        );
        classify(Accepted { stream, client }, &view, &self.server).into_future()
    }

    /// Fires deadlines, for ever.
    pub fn run_deadlines(&self) -> impl Future<Output = ()> + use<T> {
        let deadlines = Rc::clone(&self.server.ctx.deadlines);
        async move { deadlines.run().await }
    }

    /// The lines of the access log since the last call.
    pub fn take_log(&self) -> Vec<u8> {
        self.server.ctx.log.borrow_mut().flush();
        self.log.try_iter().flatten().collect()
    }
}
