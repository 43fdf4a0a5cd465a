//! A configuration between its check and its application.
//!
//! [`Control::prepare`] does all that may fail and changes nothing that is in use: it binds sockets and the admin
//! address, reads the keys of the peer set and opens the access log. [`Control::commit`] cannot fail. So a reload is
//! applied whole or not at all.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::Control;
use super::changes::Changes;
use super::config_files::FileError;
use super::gossip_membership::StagedMembership;
use super::listeners::{bind_all, socket_files};
use super::names::look_up;
use super::snapshot_writer::Cause;
use crate::admin::{AdminError, AdminMove};
use crate::config::compile::ResolvedNames;
use crate::config::schema::Config;
use crate::discovery::gossip::settings::MemberError;
use crate::logging::access::{AccessLogError, AccessLogSink};
use crate::transport::descriptors::TooFew;
use crate::transport::listen::{BindError, BoundSockets};
use crate::transport::unix::SocketFile;

/// A configuration with everything that it needs and that could fail.
#[derive(Debug)]
pub(super) struct Staged {
    config: Arc<Config>,
    sockets: Vec<Arc<BoundSockets>>,
    /// The files of those sockets that have one.
    socket_files: Vec<Arc<SocketFile>>,
    admin: AdminMove,
    membership: StagedMembership,
    /// Another access log; `None`: it stays.
    access: Option<AccessLogSink>,
}

/// Why a configuration is not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejection {
    /// Its files cannot be read.
    #[error("the configuration cannot be read: {0}")]
    Unreadable(io::Error),
    /// The files that it names cannot be read.
    #[error("what the configuration names cannot be read: {0}")]
    NamedFilesUnreadable(io::Error),
    /// It has errors.
    #[error("the configuration is not valid\n{0}")]
    Invalid(FileError),
    /// Its listeners would leave too few descriptors for connections.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// Listeners cannot be bound.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// The admin address cannot be bound.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// `[gossip]` cannot be applied.
    #[error("[gossip] cannot be applied: {0}")]
    Gossip(#[from] MemberError),
    /// The access log cannot be opened.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
}

fn lines(errors: &[BindError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("\n")
}

impl Rejection {
    /// Says in the log why the configuration at `path` is not applied.
    pub(super) fn log(&self, path: &Path) {
        let path = path.display();
        match self {
            Self::Unreadable(error) => {
                error!(%path, %error, "reload rejected: cannot read the configuration; keeping the previous one");
            }
            Self::NamedFilesUnreadable(error) => {
                error!(%path, %error, "reload rejected: cannot read the files that the configuration names; keeping the previous one");
            }
            Self::Invalid(FileError(diagnostics)) => {
                error!(
                    "reload rejected: the configuration is not valid; keeping the previous one\n{diagnostics}"
                );
            }
            Self::Descriptors(error) => {
                error!(%error, "reload rejected: too few file descriptors; keeping the previous configuration");
            }
            Self::Bind(errors) => {
                for error in errors {
                    error!(%error, "reload rejected: cannot bind a listener; keeping the previous configuration");
                }
            }
            Self::Admin(error) => {
                error!(%error, "reload rejected: cannot bind the admin address; keeping the previous configuration");
            }
            Self::Gossip(error) => {
                error!(%error, "reload rejected: cannot apply [gossip]; keeping the previous configuration");
            }
            Self::AccessLog(error) => {
                error!(%error, "reload rejected: cannot open the access log; keeping the previous configuration");
            }
        }
    }
}

impl Control {
    /// Applies a valid configuration, whole or not at all; its generation.
    pub(super) async fn apply(&mut self, config: Config) -> Result<u64, Rejection> {
        let staged = tokio::task::block_in_place(|| self.prepare(config))?;
        let names = look_up(&staged.config, self.names.resolved()).await;
        self.snapshots.wait_for_turn().await;
        Ok(self.commit(staged, names))
    }

    /// Makes what `config` needs (blocking). The access log comes last, since opening it may make its file.
    fn prepare(&self, config: Config) -> Result<Staged, Rejection> {
        let workers = self.snapshots.registry().workers();
        self.descriptors
            .check_listeners(config.listeners.len() * workers)?;
        let current = self.snapshots.current();
        let sockets = bind_all(&config, workers, Some(&current)).map_err(Rejection::Bind)?;
        let socket_files = socket_files(sockets.iter().map(|sockets| &**sockets));
        let admin = self.admin.prepare(config.admin.as_ref(), &socket_files)?;
        let membership = self.membership.prepare(config.gossip.as_ref())?;
        let access = match config.log.access == self.layers.file.log.access {
            true => None,
            false => {
                let log = config.log.access.resolved_in(self.files.directory());
                Some(AccessLogSink::open(&log)?)
            }
        };
        Ok(Staged {
            config: Arc::new(config),
            sockets,
            socket_files,
            admin,
            membership,
            access,
        })
    }

    /// Puts a configuration in force, with what is known of its names; its generation.
    fn commit(&mut self, staged: Staged, names: ResolvedNames) -> u64 {
        let Staged {
            config,
            sockets,
            socket_files,
            admin,
            membership,
            access,
        } = staged;
        let previous = Arc::clone(&self.layers.file);
        if config.workers != previous.workers {
            warn!("a change of `workers` takes a restart; the rest of the file is applied");
        }
        if let Some(access) = access {
            self.outputs.access.switch(access);
        }
        self.membership.switch(membership);
        self.followed.follow_secrets(self.membership.secret_files());
        for file in socket_files {
            if let Err(error) = file.take_over() {
                error!(%error, "a listener cannot take over its path; the next reload binds it again");
            }
        }
        self.names.follow(&config, names);
        let registry = self.snapshots.registry();
        self.overlay.update(&config, &sockets, registry);
        self.layers = self.overlay.layers(&config);
        self.publish(&sockets, Cause::Reload);
        self.outputs.events.set_level(config.log.level);
        self.outputs.events.set_format(config.log.format);
        self.admin.switch(admin);
        let changes = Changes::between(&previous, &config);
        // This one is counted right after.
        let generation = self.process.config_generation.get() + 1;
        info!(
            generation,
            changed = %changes,
            listeners = config.listener_count(),
            routes = config.routes.len(),
            clusters = config.clusters.len(),
            "the configuration is applied"
        );
        if let Some(on_applied) = &self.on_applied {
            on_applied(generation, &changes);
        }
        generation
    }
}
