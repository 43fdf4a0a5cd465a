//! What a member is made of: its settings, and the keys and tokens that they name.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use super::secrets::{self, SecretError};
use crate::gossip::identity::Role;
use crate::gossip::keyring::Keyring;
use crate::gossip::token::{AgentCredential, Authority};
use crate::model::peer_set::PeerSetSettings;

/// What a member is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberSettings {
    /// What agents and proxies have in common.
    pub peer_set: PeerSetSettings,
    /// Files of operators' public keys: records need a token of one of these operators; empty: they need none.
    pub token_keys: Vec<PathBuf>,
    /// Prefixes of the ids of tokens that no longer count.
    pub revoked: Vec<String>,
    /// File of the token that an agent signs with.
    pub token_file: Option<PathBuf>,
    /// What the member does.
    pub role: Role,
}

/// Why a member cannot be started or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    /// The address cannot be bound.
    #[error("the gossip address {address} cannot be bound ({protocol}): {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// UDP or TCP.
        protocol: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A key or a token cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The thread cannot be started.
    #[error("the gossip thread cannot be started: {0}")]
    Thread(io::Error),
}

/// What a member seals, signs and judges with.
#[derive(Debug)]
pub(crate) struct Secrets {
    pub(super) keyring: Arc<Keyring>,
    pub(super) authority: Option<Authority>,
    pub(super) credential: Option<AgentCredential>,
}

impl MemberSettings {
    /// Reads the secrets. Blocks.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub(crate) fn secrets(&self) -> Result<Secrets, MemberError> {
        let peer_set = &self.peer_set;
        let keyring = secrets::keyring(
            &peer_set.key_files,
            &peer_set.label,
            peer_set.insecure_plaintext,
        )?;
        let operators = self.token_keys.iter().map(|file| secrets::operator(file));
        let operators = operators.collect::<Result<Vec<_>, _>>()?;
        let authority = match operators.is_empty() {
            true => None,
            false => Some(Authority::of(operators, self.revoked.clone())),
        };
        let credential = self.token_file.as_deref().map(secrets::credential);
        Ok(Secrets {
            keyring: Arc::new(keyring),
            authority,
            credential: credential.transpose()?,
        })
    }

    /// Logs a warning for each file that users other than its intended ones can read or change.
    pub(crate) fn warn_of_exposed(&self) {
        let private = self.peer_set.key_files.iter().chain(&self.token_file);
        let files = private.map(|file| (file, false));
        for (file, public) in files.chain(self.token_keys.iter().map(|file| (file, true))) {
            if let Some(exposed) = secrets::exposed(file, public) {
                warn!("{exposed}");
            }
        }
    }

    /// The files to watch for changes.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let others = self.token_keys.iter().chain(&self.token_file);
        self.peer_set.key_files.iter().chain(others)
    }
}
