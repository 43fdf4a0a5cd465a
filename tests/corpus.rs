//! The corpus of doubtful HTTP in `tests/corpus/`, driven through the built program: what is refused, with which
//! reason, and what reaches the other side.
//!
//! `LBPROXY_CORPUS_CASE=text` runs only the cases whose name or file has the text in it, and `LBPROXY_CORPUS_SEED=n`
//! draws other cuts.

use std::collections::BTreeSet;

use crate::support::corpus::answers;
use crate::support::corpus::bytes::resolve;
use crate::support::corpus::data::{self, Place};
use crate::support::corpus::delivery::Delivery;
use crate::support::corpus::reader;
use crate::support::corpus::recorder::{Recorder, Rest};
use crate::support::corpus::wire::{End, Look, Patience, Wire};
use crate::support::corpus::{requests, responses};

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

// What follows holds the runner itself to its word: a runner that lets everything pass tests nothing.

#[test]
fn the_escapes_of_byte_strings() {
    for (text, bytes) in [
        ("a b", b"a b".as_slice()),
        (r"\r\n\t\0\\", b"\r\n\t\0\\"),
        (r"\x00\xff\x7F", b"\x00\xff\x7f"),
        ("a\r\n\nb", b"ab"),
        ("${ab*3}", b"ababab"),
        (r"x${\r\n*2}y${*\x41*1}", b"x\r\n\r\ny*A"),
        ("$a*2}", b"$a*2}"),
    ] {
        assert_eq!(resolve(text).as_deref(), Ok(bytes), "{text:?}");
    }
    for text in [
        "\\",
        "\\q",
        "\\x4",
        "\\x4g",
        "\\x+4",
        "${a*2",
        "${a}",
        "${a*}",
        "${a*-1}",
        "${*2}",
        "${${a*2}*2}",
        "\u{e4}",
        "\t",
    ] {
        assert!(resolve(text).is_err(), "{text:?}");
    }
}

#[test]
fn deliveries_cut_everything_and_lose_nothing() {
    let [whole, bytes, cuts] = Delivery::all("a-case");
    assert_eq!((whole, bytes), (Delivery::Whole, Delivery::Bytes));
    assert_eq!(whole.pieces(5), [5]);
    assert_eq!(bytes.pieces(5), [1; 5]);
    assert_eq!(whole.pieces(0), [0; 0]);
    for total in [0, 1, 2, 60, 33_000] {
        let pieces = cuts.pieces(total);
        assert_eq!(pieces.iter().sum::<usize>(), total);
        assert!(pieces.iter().all(|piece| *piece > 0), "{pieces:?}");
        assert!(total < 60 || pieces.len() > 2, "{pieces:?}");
        assert_eq!(pieces, cuts.pieces(total), "a seed always cuts alike");
    }
    assert_ne!(cuts, Delivery::all("b-case")[2]);
}

#[test]
fn the_reader_tells_half_a_request_from_a_whole_one() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
    ] {
        for cut in 0..text.len() {
            let read = reader::request(&text.as_bytes()[..cut]);
            assert!(matches!(read, Ok(None)), "{cut} of {text:?}: {read:?}");
        }
        let more = format!("{text}GET /");
        let (request, length) = reader::request(more.as_bytes()).unwrap().unwrap();
        assert_eq!(length, text.len(), "{request:?}");
    }
}

#[test]
fn the_reader_takes_only_the_plain_form() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for text in [
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        &format!("{chunked}05\r\nhello\r\n0\r\n\r\n"),
        &format!("{chunked}A\r\n0123456789\r\n0\r\n\r\n"),
        &format!("{chunked}5;a\r\nhello\r\n0\r\n\r\n"),
        &format!("{chunked}5\r\nhelloXY0\r\n\r\n"),
        &format!("{chunked}00\r\n\r\n"),
        &format!("{chunked}0\r\nX y\r\n\r\n"),
        &format!("{chunked}0\r\nX: y\nZ: z\r\n\r\n"),
        // What is not whole but wrong already.
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.1\nHost: a",
        &format!("{chunked}5;"),
    ] {
        let read = reader::request(text.as_bytes());
        assert!(read.is_err(), "{text:?}: {read:?}");
    }
}

#[test]
fn the_recorder_keeps_everything_and_answers_only_what_is_whole() {
    let mut recorder = Recorder::start(&["default"]);
    let mut wires = [(); 4].map(|()| Wire::connect(recorder.addr("default")));
    let [good, half, wrong, hasty] = &mut wires;
    good.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    half.send(b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello");
    wrong.send(b"GET /3 HTTP/1.1\r\n\r\n");
    hasty.send(b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(&mut recorder, &mut wires, |_, [good, _, wrong, hasty]| {
        let (answers, _) = answers::read(&good.seen, good.end, false).unwrap();
        answers.len() == 1 && wrong.end.is_some() && hasty.end.is_some()
    });
    assert!(wires[1].seen.is_empty(), "half a request is not answered");
    assert!(!recorder.has_no_open_rest());
    wires.iter_mut().for_each(Wire::finish);
    pump_until(&mut recorder, &mut wires, |r, _| r.has_no_open_rest());
    let recording = recorder.take();
    let requests = recording.requests.iter();
    let mut targets: Vec<&str> = requests.map(|r| r.request.target()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/1", "/4"]);
    assert_eq!(recording.raw.len(), 4);
    let (half, wrong): (Vec<&Rest>, Vec<&Rest>) = recording
        .rest
        .iter()
        .partition(|rest| matches!(rest, Rest::Incomplete(_)));
    assert!(matches!(half[..], [Rest::Incomplete(rest)] if rest.ends_with(b"hello")));
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(recorder.take().raw.is_empty());
}

#[test]
fn the_recorder_holds_an_upgrade_and_then_records_what_is_behind_it() {
    let mut recorder = Recorder::start(&["default"]);
    let upgrade = b"GET /101 HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    for (early, tunnelled) in [(&b""[..], &b"late"[..]), (b"early", b"")] {
        let mut wires = [Wire::connect(recorder.addr("default"))];
        wires[0].send(upgrade);
        pump_until(&mut recorder, &mut wires, |r, _| r.is_holding());
        wires[0].send(early);
        recorder.pump();
        assert!(wires[0].seen.is_empty());
        recorder.release();
        wires[0].send(b"late");
        wires[0].finish();
        pump_until(&mut recorder, &mut wires, |_, [wire]| wire.end.is_some());
        let recording = recorder.take();
        assert_eq!(recording.tunnelled, tunnelled);
        assert_eq!(recording.rest.len(), early.len().min(1));
    }
}

fn pump_until<const N: usize>(
    recorder: &mut Recorder,
    wires: &mut [Wire; N],
    done: impl Fn(&Recorder, &[Wire; N]) -> bool,
) {
    let waited = Patience::default().until("the recorder is there", || {
        let mut moved = recorder.pump();
        for wire in wires.iter_mut() {
            moved |= wire.pump();
        }
        Look::of(done(recorder, wires), moved)
    });
    waited.unwrap();
}

#[test]
fn answers_are_read_with_their_ends() {
    let read = |text: &str, end| answers::read(text.as_bytes(), end, false);
    let whole = |text: &str, end| read(text, end).unwrap().0.last().map(|a| a.whole);
    let closed = Some(End::Closed);
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhello";
    for cut in [length, chunked] {
        assert_eq!(whole(cut, None), Some(false));
        assert_eq!(whole(cut, closed), Some(false), "cut: {cut:?}");
    }
    assert_eq!(whole(&format!("{length}lo"), None), Some(true));
    assert_eq!(whole(&format!("{chunked}0\r\n\r\n"), None), Some(true));
    assert_eq!(whole(until_close, None), Some(false));
    assert_eq!(whole(until_close, closed), Some(true));
    assert_eq!(whole(until_close, Some(End::Reset)), Some(false));
    let text = format!("HTTP/1.1 103 Early Hints\r\n\r\n{length}loHTTP/1.1 40");
    let (answers, at) = read(&text, None).unwrap();
    assert_eq!((answers.len(), &answers[0].interim[..]), (1, &[103][..]));
    assert_eq!(&text[at..], "HTTP/1.1 40");
    for wrong in [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nX: y\r\n\r\n",
        "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    ] {
        assert!(read(wrong, closed).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_data_file_with_a_mistake_is_no_data_file() {
    let good = "# A topic.\n[[case]]\nname = 'a'\nsource = 'RFC'\nsend = 'x'\nanswers = [200]\ncloses = true\n\
                reaches = [{ line = 'GET / HTTP/1.1' }]\n";
    assert_eq!(data::requests_of("x.toml", good).unwrap().len(), 1);
    for (from, to) in [
        ("# A topic.\n", ""),
        ("name = 'a'\n", ""),
        ("source = 'RFC'\n", ""),
        ("send = 'x'\n", ""),
        ("send = 'x'", "send = '\\q'"),
        ("closes", "close"),
        ("closes = true", "closes = 'yes'"),
        ("[200]", "['200']"),
        ("[200]", "[200, 200]"),
        ("line =", "lines ="),
        ("[[case]]", "[[cases]]"),
        ("[[case]]", "x = 1\n[[case]]"),
        ("closes = true", "closes = true\ntunnel = 'x'"),
    ] {
        let wrong = good.replacen(from, to, 1);
        let read = data::requests_of("x.toml", &wrong);
        assert!(read.is_err_and(|e| e.starts_with("x.toml")), "{wrong}");
    }
}

/// A request case with everything in it; each pair of texts turns its verdict into a wrong one.
const REQUEST: &str = r"# A case.
[[case]]
name = 'right'
source = 'RFC'
send = 'POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhix'
answers = [200, 400]
reason = 'bad_chunk'
closes = true
reaches = [{ line = 'POST /1 HTTP/1.1', body = 'hello', trailers = ['X: y'], has = ['Host: a'], lacks = ['x'], at = 'default' }]
never = ['hix']
partial = true
";

#[test]
fn a_wrong_verdict_on_a_request_is_told() {
    let verdicts = [
        ("answers = [200, 400]", "answers = [200, 413]"),
        ("answers = [200, 400]", "answers = [200]"),
        ("reason = 'bad_chunk'", "reason = 'malformed'"),
        ("reason = 'bad_chunk'\n", ""),
        ("closes = true", "closes = false"),
        ("line = 'POST /1", "line = 'POST /3"),
        ("body = 'hello'", "body = 'hellO'"),
        ("trailers = ['X: y']", "trailers = []"),
        ("has = ['Host: a']", "has = ['Host: b']"),
        ("lacks = ['x']", "lacks = ['HOST']"),
        ("at = 'default'", "at = 'other'"),
        ("never = ['hix']", "never = ['ell']"),
        ("partial = true\n", ""),
    ];
    let right = data::requests_of("x.toml", REQUEST).unwrap();
    assert_eq!(requests::run(&right, 1), [""; 0]);
    let wrong = wrong_verdicts(REQUEST, &verdicts);
    let cases = data::requests_of("x.toml", &wrong).unwrap();
    assert_all_told(&requests::run(&cases, 2), &verdicts);
}

/// The same for a response.
const RESPONSE: &str = r"# A case.
[[case]]
name = 'right'
source = 'RFC'
backend = 'HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 6\r\n\r\nhello'
then = 'close'
status = 200
interim = [103]
body = 'hello'
whole = false
has = ['server: x']
lacks = ['x']
never = ['hellO']
reused = false
reason = 'backend_cut'
error = 'reset'
";

#[test]
fn a_wrong_verdict_on_a_response_is_told() {
    let verdicts = [
        ("status = 200", "status = 201"),
        ("interim = [103]\n", ""),
        ("body = 'hello'", "body = 'hell'"),
        ("whole = false\n", ""),
        ("has = ['server: x']", "has = ['Server: y']"),
        ("lacks = ['x']", "lacks = ['server']"),
        ("never = ['hellO']", "never = ['ell']"),
        ("reused = false", "reused = true"),
        ("reason = 'backend_cut'", "reason = 'backend_protocol'"),
        ("reason = 'backend_cut'\n", ""),
        ("error = 'reset'", "error = 'protocol'"),
        ("error = 'reset'\n", ""),
    ];
    let right = data::responses_of("x.toml", RESPONSE).unwrap();
    assert_eq!(responses::run(&right, 1), [""; 0]);
    let wrong = wrong_verdicts(RESPONSE, &verdicts);
    let cases = data::responses_of("x.toml", &wrong).unwrap();
    assert_all_told(&responses::run(&cases, 2), &verdicts);
}

/// One case for each pair, which is its name too.
fn wrong_verdicts(right: &str, verdicts: &[(&str, &str)]) -> String {
    let case = |(i, (from, to)): (usize, &(&str, &str))| {
        assert!(right.contains(from), "{from}");
        let wrong = right.replacen(from, to, 1);
        wrong.replacen("'right'", &format!("'wrong-{i}-'"), 1)
    };
    verdicts.iter().enumerate().map(case).collect()
}

#[track_caller]
fn assert_all_told(told: &[String], verdicts: &[(&str, &str)]) {
    for (i, verdict) in verdicts.iter().enumerate() {
        let name = format!("wrong-{i}-");
        let is_told = told.iter().any(|text| text.contains(&name));
        assert!(is_told, "nobody noticed {verdict:?}");
    }
}
