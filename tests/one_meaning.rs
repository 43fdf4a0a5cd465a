//! Properties of the codec and of the exchange: whatever two sides send, each of them reads exactly what was meant for
//! it. The exchange runs over streams in memory; what it writes is read back by an independent strict reader, by httparse
//! and by hyper.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use lbproxy::internals::proxy::http::READ_AHEAD;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::memory::{Last, Plan, Played, Script, Then, When, drive};
use crate::support::runtime;
use crate::support::strict::{self, Message, Read};

/// What a client may write where a request has a part, the good ones first and often.
fn line() -> impl Strategy<Value = String> {
    let method = prop_oneof![
        6 => prop::sample::select(vec!["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
        1 => prop::sample::select(vec!["CONNECT", "TRACE", "get", "", "G T", "M-SEARCH"]),
    ];
    let target = prop_oneof![
        6 => prop::sample::select(vec!["/", "/a?b=c", "/fenced/x", "*", "http://b/x"]),
        1 => prop::sample::select(vec!["", "a", "/a b", "/#f", "/x/../fenced/y", "http://u@b/", "/%00", "b:80"]),
    ];
    let version = prop_oneof![
        8 => Just("HTTP/1.1"),
        1 => prop::sample::select(vec!["HTTP/1.0", "HTTP/1.2", "http/1.1", "", "HTTP/1.1 "]),
    ];
    let end = prop_oneof![
        12 => Just("\r\n"),
        1 => prop::sample::select(vec!["\n", "\r", "\r\r\n", "\r\n\r\n"]),
    ];
    (method, target, version, end).prop_map(|(m, t, v, e)| format!("{m} {t} {v}{e}"))
}

fn field() -> impl Strategy<Value = String> {
    let good = prop::sample::select(vec![
        "Host: a\r\n",
        "Accept: */*\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive, x-a\r\n",
        "X-A: 1\r\n",
        "Expect: 100-continue\r\n",
        "Connection: upgrade\r\nUpgrade: x\r\n",
        "X-Forwarded-For: 1.2.3.4\r\n",
        "TE: trailers\r\n",
    ]);
    let bad = prop::sample::select(vec![
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length : 5\r\n",
        "Content_Length: 5\r\n",
        "Transfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Host: a b\r\n",
        " folded: 1\r\n",
        "no colon\r\n",
        "a: b\n",
        "a: b\rc\r\n",
        "\r\n",
    ]);
    prop_oneof![8 => good, 1 => bad].prop_map(str::to_owned)
}

fn body() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nHost: b\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "05\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "800\r\n",
        "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ])
    .prop_map(str::to_owned)
}

/// One to four messages, now and then with a byte changed.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let request = (line(), prop::collection::vec(field(), 0..5), body())
        .prop_map(|(line, fields, body)| format!("{line}Host: a\r\n{}\r\n{body}", fields.concat()));
    mutated(prop::collection::vec(request, 1..5).prop_map(|all| all.concat()))
}

fn responses() -> impl Strategy<Value = Vec<u8>> {
    let status = prop_oneof![
        4 => Just("200 OK"),
        3 => prop::sample::select(vec!["100 Continue", "103 x", "101 x", "204 x", "304 x", "404", "500 "]),
        1 => prop::sample::select(vec!["099 x", "20 x", "600 x", " 200 x", "2000 x"]),
    ];
    let field = prop_oneof![
        6 => prop::sample::select(vec![
            "Content-Length: 5\r\n",
            "Content-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "Connection: upgrade\r\nUpgrade: x\r\n",
            "Server: a\r\n",
        ]),
        1 => prop::sample::select(vec![
            "Content-Length: -5\r\n",
            "Transfer-Encoding: gzip\r\n",
            "a : b\r\n",
            "a: b\n",
            "\r\n",
        ]),
    ];
    let response =
        (status, prop::collection::vec(field, 0..3), body()).prop_map(|(status, fields, body)| {
            format!("HTTP/1.1 {status}\r\n{}\r\n{body}", fields.concat())
        });
    mutated(prop::collection::vec(response, 0..4).prop_map(|all| all.concat()))
}

fn mutated(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let odd = prop::sample::select(b"\0\t\n\r :;,=%0aZ\x7f\xff".to_vec());
    let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), odd, 0..3));
    (text, change).prop_map(|(text, change)| {
        let mut bytes = text.into_bytes();
        if let Some((at, byte, how)) = change
            && !bytes.is_empty()
        {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

fn script() -> impl Strategy<Value = Script> {
    let then = prop::sample::select(vec![Then::Waits, Then::Ends, Then::Resets]);
    let when = prop_oneof![
        4 => Just(When::Asked),
        1 => Just(When::Heard),
        1 => Just(When::Connected),
    ];
    (responses(), then, when).prop_map(|(bytes, then, when)| Script { bytes, then, when })
}

/// Backends that answer each request alike, and rightly also where it is HEAD.
fn good_backends() -> Vec<Script> {
    let one = Script {
        bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ..Script::default()
    };
    vec![one; 8]
}

fn plan(client: &[u8], seed: Option<u64>) -> Plan {
    Plan {
        seed: seed.unwrap_or(1),
        whole: seed.is_none(),
        client: client.to_vec(),
        client_ends: false,
        backends: good_backends(),
    }
}

/// Start line, body and fields.
type Meaning = (Vec<u8>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

/// What a request means: everything of it but the id that each gets.
fn meaning(message: &Message) -> Meaning {
    let fields = message.fields.iter().filter(|(name, _)| {
        !name.eq_ignore_ascii_case(b"x-request-id")
            && !name.eq_ignore_ascii_case(b"x-forwarded-host")
            && !name.eq_ignore_ascii_case(b"content-length")
            && !name.eq_ignore_ascii_case(b"transfer-encoding")
    });
    (
        message.start.clone(),
        message.body.clone(),
        fields.cloned().collect(),
    )
}

fn statuses(played: &Played) -> Vec<u16> {
    played.responses().iter().map(Message::status).collect()
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn each_side_reads_what_was_meant_for_it(
        seed in any::<u64>(),
        client in requests(),
        client_ends in any::<bool>(),
        backends in prop::collection::vec(script(), 0..4),
    ) {
        for whole in [true, false] {
            let plan = Plan { seed, whole, client: client.clone(), client_ends, backends: backends.clone() };
            drive(&plan).check();
        }
    }

    #[test]
    fn noise_is_refused_or_has_one_meaning(
        seed in any::<u64>(),
        client in prop::collection::vec(any::<u8>(), 0..300),
        backend in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut plan = plan(&client, Some(seed));
        plan.backends[0].bytes = backend;
        drive(&plan).check();
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_come(seed in any::<u64>(), client in requests()) {
        // An answer of our own does not wait for a body that nobody reads: then the connection ends early.
        if memchr::memmem::find(&client, b"fenced").is_some() {
            return Ok(());
        }
        // Half a head that is wrong already is refused at once where it comes in one piece, and waited for where it does
        // not: so there is an end to it.
        let client = [&client[..], b"\r\n\r\n"].concat();
        let whole = drive(&plan(&client, None));
        let cut = drive(&plan(&client, Some(seed)));
        let of = |played: &Played| -> Vec<_> { played.requests().iter().map(meaning).collect() };
        prop_assert_eq!(of(&whole), of(&cut));
        prop_assert_eq!(statuses(&whole), statuses(&cut), "{}", client.escape_ascii());
        prop_assert_eq!(whole.last, cut.last);
    }

    #[test]
    fn what_was_forwarded_is_forwarded_again_as_it_is(client in requests()) {
        for message in drive(&plan(&client, None)).requests() {
            let again = again(&message);
            let played = drive(&plan(&again, None));
            let seen = played.requests();
            prop_assert_eq!(seen.len(), 1);
            prop_assert_eq!(meaning(&seen[0]), meaning(&message));
        }
    }
}

/// The message as bytes, without what the proxy has added.
fn again(message: &Message) -> Vec<u8> {
    let mut bytes = [&message.start, b"\r\n".as_slice()].concat();
    let added = |name: &[u8]| {
        [
            b"X-Forwarded-For".as_slice(),
            b"X-Forwarded-Proto",
            b"X-Forwarded-Host",
            b"X-Request-Id",
            b"X-Lbproxy-Hop",
        ]
        .contains(&name)
    };
    for (name, value) in message.fields.iter().filter(|(name, _)| !added(name)) {
        let is_framing = name.eq_ignore_ascii_case(b"transfer-encoding");
        if !is_framing && !name.eq_ignore_ascii_case(b"content-length") {
            bytes.extend_from_slice(&[name, b": ".as_slice(), value, b"\r\n"].concat());
        }
    }
    let length = message.body.len();
    if message.all("transfer-encoding").next().is_some() {
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for byte in &message.body {
            bytes.extend_from_slice(&[b"1\r\n".as_slice(), &[*byte], b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else {
        bytes.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        bytes.extend_from_slice(&message.body);
    }
    bytes
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn httparse_and_hyper_read_the_same_requests(seed in any::<u64>(), client in requests()) {
        let played = drive(&plan(&client, Some(seed)));
        let expected = played.requests();
        for message in &expected {
            compare_with_httparse(message);
        }
        for bytes in &played.to_backends {
            let seen = runtime().block_on(read_by_hyper(bytes.clone()));
            let ours: Vec<_> = expected_of(bytes);
            prop_assert_eq!(seen, ours, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn hyper_reads_the_same_responses(seed in any::<u64>(), backend in responses()) {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut plan = plan(request, Some(seed));
        plan.backends = vec![Script { bytes: backend, ..Script::default() }];
        let played = drive(&plan);
        let ours = played.responses();
        // A tunnel is no HTTP any more.
        if played.last != Last::Tunnel {
            let seen = runtime().block_on(answer_by_hyper(played.to_client.clone()));
            let ours = ours.first().map(|m| (m.status(), m.body.clone()));
            prop_assert_eq!(seen, ours, "{}", played.to_client.escape_ascii());
        }
    }
}

#[test]
fn requests_behind_one_that_is_not_answered_are_read_ahead_a_little() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for seed in [None, Some(3)] {
        let mut plan = plan(&request.repeat(1300), seed);
        plan.backends = vec![Script::default()];
        let played = drive(&plan);
        played.check();
        assert_eq!(statuses(&played)[0], 504, "the backend says nothing");
        assert!(
            (READ_AHEAD..=2 * READ_AHEAD).contains(&played.read_before_answer),
            "{}",
            played.read_before_answer
        );
    }
}

type Seen = (String, String, Vec<u8>);

fn expected_of(bytes: &[u8]) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Ok(Read::Whole(message)) = strict::request(&bytes[at..]) {
        at += message.len;
        let text = |word| String::from_utf8(message.word(word).to_vec()).unwrap();
        all.push((text(0), text(1), message.body.clone()));
    }
    all
}

fn compare_with_httparse(message: &Message) {
    let mut bytes = [&message.start, b"\r\n".as_slice()].concat();
    for (name, value) in &message.fields {
        bytes.extend_from_slice(&[name, b": ".as_slice(), value, b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    let mut storage = [httparse::EMPTY_HEADER; 64];
    let mut theirs = httparse::Request::new(&mut storage);
    let status = theirs.parse(&bytes).unwrap();
    assert_eq!(status, httparse::Status::Complete(bytes.len()));
    assert_eq!(theirs.method.unwrap().as_bytes(), message.word(0));
    assert_eq!(theirs.path.unwrap().as_bytes(), message.word(1));
    let theirs: Vec<_> = theirs
        .headers
        .iter()
        .map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec()))
        .collect();
    assert_eq!(theirs, message.fields);
}

/// The whole requests that hyper's server finds in `bytes`.
async fn read_by_hyper(bytes: Vec<u8>) -> Vec<Seen> {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let kept = Arc::clone(&kept);
        async move {
            let method = request.method().to_string();
            let target = request.uri().to_string();
            if let Ok(body) = request.into_body().collect().await {
                let body = body.to_bytes().to_vec();
                kept.lock().unwrap().push((method, target, body));
            }
            Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(b"ok"))))
        }
    });
    ours.write_all(&bytes).await.unwrap();
    ours.shutdown().await.unwrap();
    let io = hyper_util::rt::TokioIo::new(theirs);
    let serving = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(io, service);
    let mut sink = Vec::new();
    // How it ends does not matter: a part of a request at the end is an error for hyper.
    let (_, _) = tokio::join!(serving, ours.read_to_end(&mut sink));
    seen.lock().unwrap().clone()
}

/// Status and body of the final response that hyper's client finds in `bytes`, if it is whole.
async fn answer_by_hyper(bytes: Vec<u8>) -> Option<(u16, Vec<u8>)> {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let io = hyper_util::rt::TokioIo::new(theirs);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("/")
        .header("host", "a")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let speak = async {
        let mut head = [0; 4096];
        let read = ours.read(&mut head).await.unwrap();
        assert!(read > 0);
        ours.write_all(&bytes).await.unwrap();
        ours.shutdown().await.unwrap();
    };
    let (answer, ()) = tokio::join!(sender.send_request(request), speak);
    let seen = match answer {
        Ok(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok();
            body.map(|body| (status, body.to_bytes().to_vec()))
        }
        Err(_) => None,
    };
    drop(sender);
    connection.abort();
    seen
}
