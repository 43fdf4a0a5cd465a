//! Contents of the files that a configuration names: pages and bodies. Each file is read once in a load, and the sum of
//! all contents is bounded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::environment::Environment;

/// Bytes of all contents together.
const MAX_TOTAL: usize = 64 << 20;

/// The contents by path.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    files: BTreeMap<PathBuf, Result<Arc<[u8]>, String>>,
    total: usize,
}

impl Contents {
    /// The content of a file, which is read at the first request.
    pub(super) fn read(
        &mut self,
        environment: &dyn Environment,
        path: &Path,
        most: usize,
    ) -> Result<Arc<[u8]>, String> {
        if let Some(known) = self.files.get(path) {
            return known.clone();
        }
        let content = environment.content(path, most).and_then(|content| {
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

    /// The files that were asked for, whether they could be read or not.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }
}
