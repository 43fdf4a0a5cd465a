//! What the files hold that a configuration names: pages and bodies. Each is read once a load, and all together are
//! bounded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::environment::Environment;

/// Bytes of all of them together.
const MAX_TOTAL: usize = 64 << 20;

/// What was read, by path.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    files: BTreeMap<PathBuf, Result<Arc<[u8]>, String>>,
    total: usize,
}

impl Contents {
    /// What the file holds.
    pub(super) fn read(
        &mut self,
        world: &dyn Environment,
        path: &Path,
        most: usize,
    ) -> Result<Arc<[u8]>, String> {
        if let Some(known) = self.files.get(path) {
            return known.clone();
        }
        let content = world.content(path, most).and_then(|content| {
            self.total += content.len();
            if self.total > MAX_TOTAL {
                return Err(format!(
                    "all files together have more than {MAX_TOTAL} bytes"
                ));
            }
            Ok(Arc::from(content))
        });
        self.files.insert(path.to_owned(), content.clone());
        content
    }

    /// The files that were asked for, readable or not.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }
}
