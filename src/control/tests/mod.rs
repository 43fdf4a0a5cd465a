//! The control plane of the program without its workers, over files and sockets of this machine.

mod peer_set;
mod reload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::admin::{AdminState, Started};
use crate::discovery::gossip::publisher::MemberPublisher;
use crate::gossip::view::PeerSet;
use crate::snapshot::publish::Publisher;
use crate::telemetry::readiness::Readiness;

/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane that runs on a file of its own.
struct Bench {
    root: TempDir,
    path: PathBuf,
    handle: ControlHandle,
    publisher: Arc<Publisher>,
    process: Arc<ProcessMetrics>,
    member: MemberPublisher,
    /// The peer set as clusters see it.
    peer_sets: watch::Sender<Arc<PeerSet>>,
    stop: watch::Sender<bool>,
    /// What is to run, and then what runs.
    control: Option<Control>,
    stopped: watch::Receiver<bool>,
    running: Option<JoinHandle<AccessLogWriter>>,
}

impl Bench {
    /// Starts on the file that `text` gives, to which the directory of the file is told.
    async fn start(text: impl FnOnce(&str) -> String) -> Self {
        let mut bench = Self::prepare(text).await;
        bench.run();
        bench
    }

    /// As [`Self::start`], but control does not run yet.
    async fn prepare(text: impl FnOnce(&str) -> String) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lb.toml");
        std::fs::write(&path, text(root.path().to_str().unwrap())).unwrap();
        let (ValidConfig { config, .. }, files) =
            ConfigFiles::load(std::slice::from_ref(&path)).unwrap();
        let config = Arc::new(config);
        let process = Arc::new(ProcessMetrics::default());
        let (peer_sets, set) = watch::channel(Arc::default());
        let member = MemberPublisher::default();
        let checks = Arc::new(Notify::new());
        let links = GossipLinks {
            member: member.clone(),
            set,
            checks: Arc::clone(&checks),
        };
        let first =
            FirstGeneration::build(&files, Arc::clone(&config), 1, links, Arc::clone(&process));
        let first = first.await.unwrap();
        let publisher = Arc::new(Publisher::new(Arc::clone(&first.snapshot), 1));
        let (snapshots, followed) = watch::channel(Arc::clone(&first.snapshot));
        tokio::spawn(crate::health::run(followed, checks, 256, Arc::new(|_| ())));
        let state = AdminState {
            publisher: Arc::clone(&publisher),
            process: Arc::clone(&process),
            readiness: Arc::new(Readiness::default()),
            started: Started::now(),
            workers: 1,
            connections: 16,
            gossip: member.report.subscribe(),
        };
        let log = config.log.access.resolved_in(files.directory());
        let outputs = Outputs {
            events: EventLog::detached(),
            access: AccessLogWriter::start(&log, Arc::clone(&process)).unwrap(),
        };
        let (handle, commands) = commands();
        let control = Control::new(ControlParts {
            commands,
            files,
            first,
            publisher: Arc::clone(&publisher),
            snapshots,
            descriptors: Arc::new(Descriptors::raise()),
            process: Arc::clone(&process),
            outputs,
            admin: AdminServer::start(config.admin.as_ref(), &[], state).unwrap(),
            on_applied: None,
        });
        let (stop, stopped) = watch::channel(false);
        Self {
            root,
            path,
            handle,
            publisher,
            process,
            member,
            peer_sets,
            stop,
            control: Some(control),
            stopped,
            running: None,
        }
    }

    fn run(&mut self) {
        let control = self.control.take().unwrap();
        self.running = Some(tokio::spawn(control.run(self.stopped.clone())));
    }

    /// Another text for the file, and what becomes of it.
    async fn reload(&self, text: &str) -> ReloadOutcome {
        std::fs::write(&self.path, text).unwrap();
        timeout(PATIENCE, self.handle.reload())
            .await
            .unwrap()
            .unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    async fn end(mut self) {
        self.stop.send_replace(true);
        let access = self.running.take().unwrap().await.unwrap();
        assert!(access.close(PATIENCE));
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}
