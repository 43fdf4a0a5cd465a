//! Replays what fuzzing has found: every input of tests/fuzz/corpus through what its target asserts.

use std::path::Path;

use crate::support::fuzz::{TARGETS, inputs, line};

#[test]
fn the_corpus_of_every_target_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (target, run) in TARGETS {
        let path = corpus.join(format!("{target}.txt"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let inputs = inputs(&text);
        for (place, input) in inputs.iter().enumerate() {
            let held = std::panic::catch_unwind(|| run(input));
            assert!(held.is_ok(), "{path:?}, line {}", place + 1);
        }
        println!("{target}: {} inputs", inputs.len());
        assert!(!inputs.is_empty(), "{target} has no corpus");
    }
}

#[test]
fn an_input_is_one_line_and_read_back_as_it_was() {
    let all: Vec<u8> = (0..=255).collect();
    let text = format!("{}\n{}\n", line(&all), line(b""));
    assert_eq!(inputs(&text), [all, Vec::new()]);
}
