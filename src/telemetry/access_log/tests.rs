//! Lines as readers see them, and batches.

use std::sync::mpsc::sync_channel;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::telemetry::outcome::{RequestText, Times, Way};

fn entry<'a>() -> LogEntry<'a> {
    LogEntry {
        time: UNIX_EPOCH + Duration::from_millis(1_800_000_000_007),
        listener: "web",
        peer: "[::1]:50000".parse().ok(),
        outcome: Outcome {
            protocol: "tcp",
            client: "192.0.2.1".parse().ok(),
            bytes_in: 1,
            bytes_out: 22,
            times: Times {
                duration: Duration::from_micros(1_005),
                ..Times::default()
            },
            ..Outcome::default()
        },
    }
}

/// An entry whose request head said this.
fn asking<'a>(request: RequestText<'a>) -> LogEntry<'a> {
    let mut entry = entry();
    entry.outcome.request = request;
    entry
}

fn line(entry: &LogEntry<'_>) -> String {
    let mut out = Vec::new();
    write_line(&mut out, entry);
    String::from_utf8(out).unwrap()
}

#[test]
fn all_fields_in_their_order() {
    let mut full = asking(RequestText {
        id: b"5f",
        method: b"GET",
        host: b"example.com",
        uri: b"/a?b",
        user_agent: b"curl/8",
        referer: b"https://example.com/",
    });
    full.outcome = Outcome {
        protocol: "HTTP/1.1",
        way: Way {
            route: Some("/v1/*"),
            cluster: Some("web"),
            backend: Some("10.0.0.1:80"),
            attempts: Some(2),
        },
        status: Some(504),
        reason: Some(Reason::BackendTimeout),
        cause: Some("bad_chunk"),
        times: Times {
            duration: Duration::from_millis(30_250),
            connect: Some(Duration::from_nanos(999)),
            response: Some(Duration::from_micros(12_034)),
        },
        ..full.outcome
    };
    assert_eq!(
        line(&full),
        concat!(
            r#"{"time":"2027-01-15T08:00:00.007Z","listener":"web","client":"192.0.2.1","#,
            r#""peer":"[::1]:50000","id":"5f","protocol":"HTTP/1.1","method":"GET","#,
            r#""host":"example.com","uri":"/a?b","status":504,"reason":"backend_timeout","cause":"bad_chunk","#,
            r#""route":"/v1/*","cluster":"web","backend":"10.0.0.1:80","attempts":2,"#,
            r#""bytes_in":1,"bytes_out":22,"duration_ms":30250.000,"connect_ms":0.000,"#,
            r#""response_ms":12.034,"user_agent":"curl/8","referer":"https://example.com/"}"#,
            "\n"
        )
    );
}

#[test]
fn absent_fields_are_left_out() {
    assert_eq!(
        line(&entry()),
        concat!(
            r#"{"time":"2027-01-15T08:00:00.007Z","listener":"web","client":"192.0.2.1","#,
            r#""peer":"[::1]:50000","protocol":"tcp","bytes_in":1,"bytes_out":22,"duration_ms":1.005}"#,
            "\n"
        )
    );
}

#[test]
fn a_clock_that_is_wrong_breaks_nothing() {
    for (time, shown) in [
        (
            UNIX_EPOCH - Duration::from_secs(1),
            "1970-01-01T00:00:00.000Z",
        ),
        (
            UNIX_EPOCH + Duration::from_secs(1 << 40),
            "9999-12-31T23:59:59.000Z",
        ),
    ] {
        assert!(line(&LogEntry { time, ..entry() }).contains(shown));
    }
}

/// The user agent of a line as a reader of JSON sees it.
fn agent(value: &[u8]) -> String {
    let line = line(&asking(RequestText {
        user_agent: value,
        ..RequestText::default()
    }));
    assert_eq!(line.matches('\n').count(), 1);
    assert!(
        line.chars().filter(|c| c.is_control()).eq(['\n']),
        "{line:?}"
    );
    let parsed: Value = serde_json::from_str(&line).unwrap();
    parsed["user_agent"].as_str().unwrap().to_owned()
}

#[test]
fn no_byte_forges_a_line() {
    for (sent, read) in [
        (&b"a\"},\n{\"x\":\"\\"[..], "a\"},\n{\"x\":\"\\"),
        (b"\0\x1b[31m\x7f\r\t", "\0\x1b[31m\x7f\r\t"),
        ("naïve – 漢字 🦀".as_bytes(), "naïve – 漢字 🦀"),
        (b"caf\xe9", "café"),
        (b"\xff\xfe\xc3", "\u{ff}\u{fe}\u{c3}"),
        (
            "\u{85}\u{2028}\u{2029}".as_bytes(),
            "\u{85}\u{2028}\u{2029}",
        ),
    ] {
        assert_eq!(agent(sent), read);
    }
    let separated = line(&asking(RequestText {
        user_agent: "\u{2028}".as_bytes(),
        ..RequestText::default()
    }));
    assert!(separated.contains("\\u2028"));
}

#[test]
fn long_values_are_cut_between_characters() {
    let long = "é".repeat(MAX_TEXT);
    let expected = format!("{}…", "é".repeat(MAX_TEXT / 2));
    assert_eq!(agent(long.as_bytes()), expected);
    let odd = format!("x{long}");
    assert_eq!(
        agent(odd.as_bytes()),
        format!("x{}…", "é".repeat(MAX_TEXT / 2 - 1))
    );
    assert_eq!(agent(&[b'a'; MAX_TEXT]), "a".repeat(MAX_TEXT));
    // Continuation bytes without end are no character to keep whole.
    assert_eq!(agent(&[0x80; MAX_TEXT + 1]).chars().count(), MAX_TEXT + 1);
    let uri = vec![b'/'; MAX_URI + 1];
    let line = line(&asking(RequestText {
        uri: &uri,
        ..RequestText::default()
    }));
    assert!(line.contains(&format!("\"{}…\"", "/".repeat(MAX_URI))));
}

proptest! {
    #[test]
    fn a_line_is_one_line_of_json(uri in proptest::collection::vec(any::<u8>(), 0..300)) {
        let line = line(&asking(RequestText { uri: &uri, ..RequestText::default() }));
        let parsed: Value = serde_json::from_str(&line).unwrap();
        let latin: String = uri.utf8_chunks().flat_map(|c| {
            c.valid().chars().chain(c.invalid().iter().map(|&b| char::from(b))).collect::<Vec<_>>()
        }).collect();
        prop_assert_eq!(parsed.get("uri").and_then(Value::as_str).unwrap_or(""), latin);
        prop_assert!(!line.trim_end_matches('\n').contains('\n'));
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (queue, batches) = sync_channel(1);
    let metrics = Arc::new(ProcessMetrics::default());
    let mut sender = LogSender::new(queue, metrics.clone());
    sender.flush();
    assert!(batches.try_recv().is_err(), "nothing to hand over");
    sender.write(&entry());
    sender.flush();
    sender.write(&entry());
    sender.write(&entry());
    sender.flush();
    assert_eq!(metrics.access_log_dropped.get(), 2);
    assert_eq!(lines(&batches.try_recv().unwrap()), 1);
    sender.write(&entry());
    sender.flush();
    assert_eq!(
        lines(&batches.try_recv().unwrap()),
        1,
        "goes on after a full queue"
    );
    drop(batches);
    sender.write(&entry());
    drop(sender);
    assert_eq!(metrics.access_log_dropped.get(), 3);
}

#[test]
fn a_large_batch_goes_by_itself() {
    let (queue, batches) = sync_channel(8);
    let mut sender = LogSender::new(queue, Arc::default());
    let mut written = 0;
    while batches
        .try_recv()
        .map(|b| assert_eq!(lines(&b), written))
        .is_err()
    {
        sender.write(&entry());
        written += 1;
    }
    assert!(sender.batch.is_empty());
    assert!((FULL / 400..FULL / 100).contains(&usize::try_from(written).unwrap()));
}
