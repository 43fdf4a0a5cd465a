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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ffi::OsString;

    use super::*;

    /// Files of so many bytes, which counts how often one is read.
    struct Files {
        bytes: usize,
        read: Cell<usize>,
    }

    impl Environment for Files {
        fn variable(&self, _: &str) -> Option<OsString> {
            None
        }

        fn content(&self, path: &Path, most: usize) -> Result<Vec<u8>, String> {
            self.read.set(self.read.get() + 1);
            match path == Path::new("none") || self.bytes > most {
                true => Err("not there, or too large".to_owned()),
                false => Ok(vec![b'x'; self.bytes]),
            }
        }
    }

    #[test]
    fn a_file_is_read_once_whether_it_can_be_read_or_not() {
        let files = Files {
            bytes: 3,
            read: Cell::new(0),
        };
        let mut contents = Contents::default();
        for _ in 0..2 {
            assert_eq!(
                contents.read(&files, Path::new("a"), 10).as_deref(),
                Ok(&b"xxx"[..])
            );
            assert!(contents.read(&files, Path::new("none"), 10).is_err());
        }
        assert_eq!(files.read.get(), 2);
        let paths: Vec<&Path> = contents.paths().collect();
        assert_eq!(paths, [Path::new("a"), Path::new("none")]);
    }

    #[test]
    fn all_contents_together_are_bounded() {
        let files = Files {
            bytes: MAX_TOTAL / 2,
            read: Cell::new(0),
        };
        let mut contents = Contents::default();
        let mut read = |name: &str| contents.read(&files, Path::new(name), MAX_TOTAL).is_ok();
        assert!(read("a") && read("b"));
        assert!(!read("c"));
        assert!(read("a"), "what has been read stays");
    }
}
