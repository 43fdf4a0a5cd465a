//! Replays what fuzzing has found: every input of tests/fuzz/corpus through what its target asserts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::path::Path;

use support::fuzz::TARGETS;

#[test]
fn the_corpus_of_every_target_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (target, run) in TARGETS {
        let folder = corpus.join(target);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")) {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let held = std::panic::catch_unwind(|| run(&bytes));
            assert!(held.is_ok(), "{target}: {path:?}");
            inputs += 1;
        }
        println!("{target}: {inputs} inputs");
        assert!(inputs >= 100, "{target} has hardly a corpus: {inputs}");
    }
}
