//! The corpus of doubtful HTTP in `tests/corpus/`, driven through the built program: what is refused, with which
//! reason, and what reaches the other side.
//!
//! `LBPROXY_CORPUS_CASE=text` runs only the cases whose name or file has the text in it, and `LBPROXY_CORPUS_SEED=n`
//! draws other cuts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::collections::BTreeSet;

use support::corpus::data::{self, Place};
use support::corpus::{requests, responses};

/// Cases in all, at least.
const LEAST: usize = 300;

/// Lanes of the request cases, each with a proxy of its own.
const LANES: usize = 2;

#[test]
fn every_request_has_its_verdict_however_it_is_cut() {
    let mut cases = data::requests().unwrap();
    cases.retain(|case| is_wanted(&case.place));
    report(&requests::run(&cases, LANES), cases.len());
}

#[test]
fn every_response_has_its_verdict_however_it_is_cut() {
    let mut cases = data::responses().unwrap();
    cases.retain(|case| is_wanted(&case.place));
    report(&responses::run(&cases, 1), cases.len());
}

/// Whether the case is one of those that were asked for.
fn is_wanted(place: &Place) -> bool {
    std::env::var("LBPROXY_CORPUS_CASE").map_or(true, |text| {
        place.name.contains(&text) || place.file.contains(&text)
    })
}

#[track_caller]
fn report(failed: &[String], cases: usize) {
    let count = failed.len();
    assert!(
        failed.is_empty(),
        "\n{}\n{count} of {cases} cases failed",
        failed.join("\n")
    );
}

#[test]
fn the_data_files_are_well_formed() {
    let requests = data::requests().unwrap();
    let responses = data::responses().unwrap();
    check_places(requests.iter().map(|case| &case.place));
    check_places(responses.iter().map(|case| &case.place));
    let all = requests.len() + responses.len();
    assert!(all >= LEAST, "{all} cases");
}

/// Names are unique in their directory and plain, and every case says where it comes from.
#[track_caller]
fn check_places<'c>(places: impl Iterator<Item = &'c Place>) {
    let mut names = BTreeSet::new();
    for place in places {
        assert!(
            names.insert(&place.name),
            "{place}: a second case of this name"
        );
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(place.name.bytes().all(plain), "{place}: not in kebab-case");
        assert!(place.source.len() > 3, "{place}: no source");
    }
}
