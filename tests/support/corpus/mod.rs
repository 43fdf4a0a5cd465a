//! The corpus of doubtful HTTP under `tests/corpus/`: data files, and what drives them through the built program.
//!
//! A case is bytes and a verdict. Each is delivered three times: whole, one byte at a time, and in random cuts; where
//! bytes are cut must not matter. One thread plays both sides of the proxy, the clients and the backend, on sockets
//! that never block, and pumps them in turn ([`wire`]); so what has arrived has been read when a verdict is asked
//! for, and the order of events is the order of the code.
//!
//! [`data`] reads the files and [`bytes`] the escapes in them; [`delivery`] cuts; [`reader`] is the strict reader of
//! what goes to backends and [`answers`] of what goes to clients; [`recorder`] is the backend of the request cases
//! and [`hostile`] that of the response cases; [`ledger`] compares metrics and access log; [`requests`] and
//! [`responses`] run the cases and say what differs.

pub mod answers;
pub mod bytes;
pub mod data;
pub mod delivery;
pub mod hostile;
pub mod ledger;
pub mod reader;
pub mod recorder;
pub mod requests;
pub mod responses;
pub mod wire;

/// Spreads the cases over so many threads, each of which runs its own; the texts of those that fail.
fn spread<'c, C: Sync>(
    cases: &'c [C],
    lanes: usize,
    run: impl Fn(&mut dyn Iterator<Item = &'c C>) -> Vec<String> + Sync,
) -> Vec<String> {
    let lane = |first: usize| run(&mut cases.iter().skip(first).step_by(lanes));
    std::thread::scope(|scope| {
        let lane = &lane;
        let lanes: Vec<_> = (0..lanes).map(|n| scope.spawn(move || lane(n))).collect();
        let failed = lanes.into_iter().map(|lane| lane.join().unwrap());
        failed.flatten().collect()
    })
}
