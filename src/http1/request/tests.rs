use super::super::connection_options::CONNECTION_OPTIONS;
use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 1024,
    fields: 10,
    target: 64,
};

fn parse_text(text: &str) -> Result<Option<RequestHead<'_>>, Refusal> {
    parse(text.as_bytes(), &LIMITS, &mut Vec::new())
}

fn head(text: &str) -> RequestHead<'_> {
    parse_text(text)
        .unwrap_or_else(|e| panic!("{text:?}: {e}"))
        .unwrap_or_else(|| panic!("{text:?}: incomplete"))
}

#[test]
fn a_plain_request() {
    let head = head("GET /a?b=c HTTP/1.1\r\nHost: example.com:80\r\nAccept: */*\r\n\r\nrest");
    assert_eq!(head.method, b"GET");
    assert_eq!(head.target, b"/a?b=c");
    assert_eq!(
        (head.path(), head.query()),
        (b"/a".as_slice(), Some(b"b=c".as_slice()))
    );
    assert_eq!(head.host, Some(b"example.com:80".as_slice()));
    assert_eq!(head.framing, Framing::None);
    assert!(head.keep_alive && !head.expects_continue && !head.wants_upgrade);
    assert_eq!(head.len, 58);
}

#[test]
fn framing() {
    for (fields, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::None),
        ("content-length: 12\r\n", Framing::Length(12)),
        (
            "Content-Length: 9223372036854775807\r\n",
            Framing::Length(i64::MAX as u64),
        ),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
        ("transfer-encoding:\tCHUNKED \r\n", Framing::Chunked),
    ] {
        assert_eq!(
            head(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).framing,
            framing,
            "{fields}"
        );
    }
}

#[test]
fn connection_options() {
    for (version, fields, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.2", "", true),
        ("1.9", "Connection: close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(head(&text).keep_alive, keep, "{version} {fields}");
    }
}

#[test]
fn upgrade_needs_both_fields_with_or_without_a_body() {
    let request =
        |fields: &str| head(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).wants_upgrade;
    assert!(request("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    assert!(request("Connection: Upgrade\r\nUpgrade: a/1, b\r\n"));
    for offer in [
        "",
        "h2c;q=1",
        "H2C-14",
        "h2",
        "HTTP/2.0",
        "a, http/1.1",
        "a b",
        "a/",
        "/1",
        "a/1/2",
        "\"a\"",
        "\u{e9}",
        "a,b,c,d,e,f,g,h,i",
    ] {
        let fields = format!("Connection: Upgrade\r\nUpgrade: {offer}\r\n");
        assert!(!request(&fields), "{offer}");
    }
    assert!(!request("Connection: Upgrade\r\n"));
    assert!(!request("Upgrade: websocket\r\n"));
    assert!(!request("Connection: Upgrade\r\nUpgrade: h2c\r\n"));
    assert!(!request(
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"
    ));
    let with_body = ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"];
    for body in with_body {
        let fields = format!("Connection: Upgrade\r\nUpgrade: tcp\r\n{body}");
        assert!(request(&fields), "{body}");
        let fields = format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{body}");
        assert!(!request(&fields), "{body}");
    }
    let old = "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    assert!(!head(old).wants_upgrade);
}

#[test]
fn max_forwards_is_read_from_options_only() {
    let parse = |method: &str, fields: &str| {
        parse_text(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
            .map(|head| head.unwrap().max_forwards)
    };
    for (fields, left) in [
        ("", None),
        ("Max-Forwards: 0\r\n", Some(0)),
        ("max-forwards: 007\r\n", Some(7)),
        ("Max-Forwards: 99999999999\r\n", Some(u32::MAX)),
        ("Max_Forwards: 0\r\n", None),
    ] {
        assert_eq!(parse("OPTIONS", fields), Ok(left), "{fields:?}");
        assert_eq!(parse("GET", fields), Ok(None), "{fields:?}");
    }
    for value in ["", "-1", "+1", "1, 1", "1 1", "0x1", "1\r\nMax-Forwards: 1"] {
        let fields = format!("Max-Forwards: {value}\r\n");
        let refused = Err(Refusal::FieldSyntax);
        assert_eq!(parse("OPTIONS", &fields), refused, "{value:?}");
        assert_eq!(parse("GET", &fields), Ok(None), "{value:?}");
    }
}

#[test]
fn absolute_form_overrides_host() {
    for (target, host, forwarded) in [
        ("http://b.example/x?y", "b.example", "/x?y"),
        ("HTTP://b.example:81", "b.example:81", "/"),
        ("https://[::1]:8/", "[::1]:8", "/"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = head(&text);
        assert_eq!(head.host, Some(host.as_bytes()), "{target}");
        assert_eq!(head.target, forwarded.as_bytes(), "{target}");
    }
    assert_eq!(
        head("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").target,
        b"*"
    );
}

#[test]
fn http_1_0_needs_no_host() {
    assert_eq!(head("GET / HTTP/1.0\r\n\r\n").host, None);
}

#[test]
fn refusals() {
    for (text, refusal) in [
        ("GET / HTTP/1.1\r\n\r\n", Refusal::BadHost),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            Refusal::BadHost,
        ),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: a..\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: a..:80\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: .a\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: .\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.0\r\nHost: a..\r\n\r\n", Refusal::BadHost),
        (
            "GET http://a../ HTTP/1.1\r\nHost: a\r\n\r\n",
            Refusal::BadTarget,
        ),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refusal::BadHost),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
        (
            "GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Refusal::BadTarget,
        ),
        (
            "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
            Refusal::BadTarget,
        ),
        (
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Refusal::BadTarget,
        ),
        ("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
        ("GET /é HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
        ("GET /\r\n", Refusal::BadTarget),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Malformed),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Malformed),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refusal::Malformed),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", Refusal::Malformed),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refusal::Version),
        ("GET / HTTP/3.1\r\nHost: a\r\n\r\n", Refusal::Version),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refusal::Version),
        ("GET / HTTP/1.2\r\n\r\n", Refusal::BadHost),
        ("GET / HTTP/1.1\nHost: a\n\n", Refusal::BareLineEnd),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", Refusal::Malformed),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Method),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Method),
        ("trace / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Method),
        ("head / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Method),
        ("GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BadTarget),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n",
            Refusal::Expectation,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
            Refusal::Expectation,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n",
            Refusal::FieldSyntax,
        ),
        (
            "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Refusal::AmbiguousFraming,
        ),
    ] {
        assert_eq!(parse_text(text).map(|_| ()), Err(refusal), "{text:?}");
    }
}

#[test]
fn framing_that_two_parsers_could_read_differently_is_refused() {
    for (fields, refusal) in [
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            Refusal::AmbiguousFraming,
        ),
        (
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            Refusal::BadContentLength,
        ),
        ("Content-Length: 1, 1\r\n", Refusal::BadContentLength),
        ("Content-Length: +1\r\n", Refusal::BadContentLength),
        ("Content-Length: -1\r\n", Refusal::BadContentLength),
        ("Content-Length: 0x1\r\n", Refusal::BadContentLength),
        ("Content-Length: 1 1\r\n", Refusal::BadContentLength),
        ("Content-Length: \r\n", Refusal::BadContentLength),
        (
            "Content-Length: 18446744073709551616\r\n",
            Refusal::BadContentLength,
        ),
        ("Content-Length : 1\r\n", Refusal::FieldSyntax),
        (
            "Transfer-Encoding: GZip, Chunked\r\n",
            Refusal::TransferCoding,
        ),
        (
            "Transfer-Encoding: identity, chunked\r\n",
            Refusal::TransferCoding,
        ),
        ("Content_Length: 1\r\n", Refusal::AmbiguousFraming),
        ("Transfer_Encoding: chunked\r\n", Refusal::AmbiguousFraming),
        ("Transfer-Encoding:\x0bchunked\r\n", Refusal::FieldSyntax),
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(parse_text(&text).map(|_| ()), Err(refusal), "{fields:?}");
    }
}

#[test]
fn a_transfer_encoding_that_hides_chunked_is_not_an_unknown_coding() {
    for value in [
        "CHUNKED, Chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\"chunked\"",
        "chunked, chunked",
        "chunked, gzip",
        "chunked,",
        ",chunked",
        "gzip, chunked, chunked",
        "gzip; q=1",
        "gzip",
        "identity",
        "gzip, deflate",
        "",
        "chunked\r\nTransfer-Encoding: chunked",
        "gzip\r\nTransfer-Encoding: chunked",
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n");
        assert_eq!(
            parse_text(&text).map(|_| ()),
            Err(Refusal::BadTransferEncoding),
            "{value:?}"
        );
    }
}

#[test]
fn fields_that_connection_names_are_marked() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nConnection: x-b, close\r\nX-B: 1\r\nx-c: 1\r\nConnection: X-C\r\nx-b: 2\r\n\r\n";
    let mut fields = Vec::new();
    parse(text.as_bytes(), &LIMITS, &mut fields)
        .unwrap()
        .unwrap();
    let marks: Vec<bool> = fields.iter().map(|field| field.hop_by_hop).collect();
    assert_eq!(marks, [false, false, false, true, true, false, true]);
}

#[test]
fn connection_options_are_counted() {
    let with = |n: usize| {
        let options = vec!["x"; n].join(",");
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}\r\n\r\n")
    };
    assert!(parse_text(&with(CONNECTION_OPTIONS)).unwrap().is_some());
    let more = with(CONNECTION_OPTIONS + 1);
    assert_eq!(parse_text(&more).map(|_| ()), Err(Refusal::TooManyFields));
    let empty = with(1).replace('x', &",".repeat(CONNECTION_OPTIONS));
    assert_eq!(parse_text(&empty).map(|_| ()), Err(Refusal::TooManyFields));
}

#[test]
fn limits_are_inclusive() {
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n - 1));
    assert!(parse_text(&target(64)).unwrap().is_some());
    assert_eq!(
        parse_text(&target(65)).map(|_| ()),
        Err(Refusal::UriTooLong)
    );
    let padded = |n: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\np: {}\r\n\r\n",
            "x".repeat(n - 32)
        )
    };
    assert_eq!(head(&padded(1024)).len, 1024);
    assert_eq!(
        parse_text(&padded(1025)).map(|_| ()),
        Err(Refusal::HeadTooLarge)
    );
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\np: {}", "x".repeat(1024));
    assert_eq!(parse_text(&endless).map(|_| ()), Err(Refusal::HeadTooLarge));
}

#[test]
fn every_prefix_is_incomplete() {
    let text = "\r\nPOST /path HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\n";
    for cut in 0..text.len() {
        assert!(
            matches!(parse_text(&text[..cut]), Ok(None)),
            "{cut}: {:?}",
            parse_text(&text[..cut])
        );
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = parse(&bytes, &LIMITS, &mut Vec::new());
    }

    #[test]
    fn httparse_agrees_with_every_accepted_request(
        tail in "[ -~\r\n\t]{0,80}",
        name in "[A-Za-z-]{1,12}",
        value in "[ -~]{0,20}",
    ) {
        let text = format!("GET /p HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n{tail}");
        let mut ours = Vec::new();
        if let Ok(Some(head)) = parse(text.as_bytes(), &LIMITS, &mut ours) {
            let mut storage = [httparse::EMPTY_HEADER; 32];
            let mut oracle = httparse::Request::new(&mut storage);
            let status = oracle.parse(text.as_bytes()).unwrap();
            proptest::prop_assert_eq!(status, httparse::Status::Complete(head.len));
            proptest::prop_assert_eq!(oracle.headers.len(), ours.len());
            for (theirs, our) in oracle.headers.iter().zip(&ours) {
                proptest::prop_assert_eq!(theirs.name.as_bytes(), our.name_in(text.as_bytes()));
                proptest::prop_assert_eq!(theirs.value, our.value_in(text.as_bytes()));
            }
        }
    }
}
