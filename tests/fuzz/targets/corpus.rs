//! Between the corpus files, one input a line, and the folders of single inputs that a fuzzer works on.
//!
//! `corpus unpack TARGET FOLDER` writes the inputs of ../corpus/TARGET.txt into the folder; `corpus pack TARGET FOLDER`
//! makes that file anew of what is there.

#[path = "support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::{fs, io};

use support::fuzz::{TARGETS, inputs, line};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, target, folder] = &arguments[..] else {
        return Err(io::Error::other("corpus (unpack | pack) TARGET FOLDER"));
    };
    if !TARGETS.iter().any(|(name, _)| name == target) {
        return Err(io::Error::other(format!("no target is called {target}")));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("corpus/{target}.txt"));
    match verb.as_str() {
        "unpack" => unpack(&file, Path::new(folder)),
        "pack" => pack(&file, Path::new(folder)),
        other => Err(io::Error::other(format!(
            "neither unpack nor pack: {other}"
        ))),
    }
}

fn unpack(file: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (place, input) in inputs(&fs::read_to_string(file)?).iter().enumerate() {
        fs::write(folder.join(format!("{place:05}")), input)?;
    }
    Ok(())
}

fn pack(file: &Path, folder: &Path) -> io::Result<()> {
    let paths: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    let mut all: Vec<Vec<u8>> = paths.iter().map(fs::read).collect::<io::Result<_>>()?;
    all.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    all.dedup();
    let text: String = all.iter().map(|input| line(input) + "\n").collect();
    fs::write(file, text)
}
