//! Which fields reach backends and clients: Host, hop-by-hop fields, the forwarding family.

use crate::support::backend::{Answer, Backend, Request};
use crate::support::client::Client;
use crate::support::message::Fields;
use crate::support::process::{ACCESS_LOG, Proxy, web, web_with};
use crate::support::wait::{PATIENCE, wait_until};

struct Stand {
    backend: Backend,
    proxy: Proxy,
    client: Client,
}

impl Stand {
    fn new(listener_keys: &str) -> Self {
        let backend = Backend::start("a");
        backend.record();
        let config = web_with(listener_keys, &[&backend], ACCESS_LOG);
        let proxy = Proxy::start(&config);
        let client = Client::connect(proxy.addr("web"));
        Self {
            backend,
            proxy,
            client,
        }
    }

    /// Sends `GET /` with exactly these fields and returns what the backend saw.
    #[track_caller]
    fn seen(&mut self, fields: &str) -> Request {
        self.client.send(format!("GET / HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(self.client.response().status, 200);
        self.backend.take_one()
    }
}

#[test]
fn host_and_fields_reach_the_backend_as_they_were_sent_and_in_order() {
    let mut stand = Stand::new("");
    let seen = stand.seen(
        "Host: TeSt.Example:8080\r\nX-One: a\r\nCookie: a=b; c=d\r\nx-one:  b  \r\nX-Empty:\r\nX-Utf: \u{e4}\r\n",
    );
    assert_eq!(seen.fields.get("host"), Some("TeSt.Example:8080"));
    let ones: Vec<&str> = seen.fields.all("x-one").collect();
    assert_eq!(ones, ["a", "b"]);
    assert_eq!(seen.fields.get("cookie"), Some("a=b; c=d"));
    assert_eq!(seen.fields.get("x-empty"), Some(""));
    assert_eq!(seen.fields.get("x-utf"), Some("\u{e4}"));
}

#[test]
fn hop_by_hop_fields_and_those_that_connection_names_stay_behind() {
    let mut stand = Stand::new("");
    let seen = stand.seen(
        "host: test\r\nconnection: x-secret, Keep-Alive\r\nX-Secret: 1\r\nx-secret: 2\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: keep-alive\r\nproxy-authorization: Basic x\r\nte: gzip\r\nx-kept: 1\r\n",
    );
    for gone in [
        "x-secret",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "upgrade",
    ] {
        assert!(!seen.fields.has(gone), "{gone}: {}", seen.head);
    }
    assert!(
        !seen.fields.lists("connection", "x-secret"),
        "{}",
        seen.head
    );
    assert_eq!(seen.fields.get("x-kept"), Some("1"));
}

#[test]
fn connection_cannot_name_away_what_routing_framing_and_tracing_need() {
    let mut stand = Stand::new("");
    stand.client.send(
        "POST / HTTP/1.1\r\nhost: test\r\nconnection: host, content-length, x-forwarded-for, \
         x-forwarded-proto, x-forwarded-host, x-request-id, close\r\ncontent-length: 2\r\n\r\nok",
    );
    assert_eq!(stand.client.response().status, 200);
    let seen = stand.backend.take_one();
    assert_eq!(seen.body, b"ok");
    assert_eq!(seen.fields.get("host"), Some("test"));
    assert_eq!(seen.fields.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.fields.get("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.fields.get("x-forwarded-host"), Some("test"));
    assert!(seen.fields.has("x-request-id"));
}

#[test]
fn hop_by_hop_fields_of_answers_stay_behind() {
    let mut stand = Stand::new("");
    stand.backend.behave(|_| {
        Answer::new(200, "ok")
            .field("connection", "x-inner, keep-alive")
            .field("x-inner", "1")
            .field("keep-alive", "timeout=9")
            .field("proxy-connection", "keep-alive")
            .field("set-cookie", "a=b")
            .field("set-cookie", "c=d")
            .field("server", "sample")
    });
    let answer = stand.client.get("/");
    for gone in ["x-inner", "proxy-connection"] {
        assert!(!answer.fields.has(gone), "{gone}: {answer:?}");
    }
    assert!(!answer.fields.lists("connection", "x-inner"));
    assert_eq!(answer.fields.get("keep-alive"), Some("timeout=74"), "ours");
    assert_eq!(answer.fields.get("server"), Some("sample"));
    let cookies: Vec<&str> = answer.fields.all("set-cookie").collect();
    assert_eq!(cookies, ["a=b", "c=d"]);
}

/// What a client may try, in several spellings.
const FORGED: &str = "host: test\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\
    x-forwarded_for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx_forwarded-proto: https\r\n\
    x-forwarded-host: evil\r\nX-Forwarded_Host: evil\r\nx-request-id: forged\r\nx_request_id: forged\r\n\
    forwarded: for=6.6.6.6\r\nx-real-ip: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\ntrue-client-ip: 6.6.6.6\r\n\
    true_client_ip: 6.6.6.6\r\ncf-connecting-ip: 6.6.6.6\r\nCF_Connecting-IP: 6.6.6.6\r\nx-mine: kept\r\n";

#[test]
fn forged_forwarding_fields_of_an_untrusted_peer_are_removed_in_every_spelling() {
    let mut stand = Stand::new("");
    let seen = stand.seen(FORGED);
    assert!(!seen.head.contains("6.6.6.6"), "{}", seen.head);
    assert!(!seen.head.contains("evil"), "{}", seen.head);
    assert!(!seen.head.contains("forged"), "{}", seen.head);
    assert!(!seen.head.contains("https"), "{}", seen.head);
    assert!(!seen.head.contains('_'), "{}", seen.head);
    assert_eq!(seen.fields.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.fields.get("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.fields.get("x-forwarded-host"), Some("test"));
    assert_eq!(seen.fields.get("x-mine"), Some("kept"));
    let first = seen.fields.get("x-request-id").unwrap().to_owned();
    assert!(first.len() >= 16, "{first}");
    let second = stand.seen(FORGED);
    assert_ne!(
        second.fields.get("x-request-id"),
        Some(&*first),
        "each has its own"
    );
}

#[test]
fn the_log_says_once_per_listener_who_sends_forged_fields_and_how_to_trust_it() {
    let mut stand = Stand::new("");
    for _ in 0..3 {
        stand.seen(FORGED);
    }
    let lines = || {
        let log = stand.proxy.log();
        log.lines()
            .filter(|l| l.contains("trusted_proxies"))
            .count()
    };
    wait_until(PATIENCE, "the log names trusted_proxies", || lines() > 0);
    assert_eq!(lines(), 1, "{}", stand.proxy.log());
    let log = stand.proxy.log();
    let line = log.lines().find(|l| l.contains("trusted_proxies")).unwrap();
    assert!(line.contains("127.0.0.1") && line.contains("web"), "{line}");
}

#[test]
fn a_trusted_peer_is_believed_up_to_the_first_address_that_is_not() {
    let mut stand = Stand::new("trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]");
    let seen = stand.seen(
        "host: test\r\nx-forwarded-for: 6.6.6.6, 1.2.3.4\r\nx-forwarded-for: 10.1.1.1\r\n\
         x-forwarded-proto: https\r\nx-forwarded-host: front.example\r\nx-request-id: from-the-front\r\n",
    );
    let chain: Vec<&str> = seen.fields.all("x-forwarded-for").collect();
    assert_eq!(chain.join(", "), "6.6.6.6, 1.2.3.4, 10.1.1.1, 127.0.0.1");
    assert_eq!(seen.fields.get("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.fields.get("x-forwarded-host"), Some("front.example"));
    assert_eq!(seen.fields.get("x-request-id"), Some("from-the-front"));
    let line = stand.proxy.wait_access("/");
    assert_eq!(line["client"], "1.2.3.4", "{line}");
    assert!(
        line["peer"].as_str().unwrap().starts_with("127.0.0.1"),
        "{line}"
    );
    assert_eq!(line["id"], "from-the-front", "{line}");
}

#[test]
fn a_trusted_peer_that_says_nothing_gets_the_fields_set() {
    let mut stand = Stand::new("trusted_proxies = [\"127.0.0.1/32\"]");
    let seen = stand.seen("host: test\r\n");
    assert_eq!(seen.fields.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.fields.get("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.fields.get("x-forwarded-host"), Some("test"));
    assert!(seen.fields.has("x-request-id"));
}

#[test]
fn a_client_that_a_trusted_proxy_cannot_name_is_unknown() {
    let mut stand = Stand::new("trusted_proxies = [\"127.0.0.1/32\"]");
    let seen = stand.seen("host: test\r\nx-forwarded-for: 1.2.3.4, unknown\r\n");
    let chain = seen.fields.get("x-forwarded-for");
    assert_eq!(chain, Some("1.2.3.4, unknown, 127.0.0.1"));
    let line = stand.proxy.wait_access("/");
    assert!(line.get("client").is_none(), "{line}");
    assert!(line.get("peer").is_some(), "{line}");
}

#[test]
fn requests_pass_over_unix_sockets_and_their_peers_have_no_address() {
    let backend = Backend::start("a");
    backend.record();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.sock");
    let listener = |trusted: &str| {
        let keys = "name = \"web\"\naddress = \"unix:";
        let web = web_with(trusted, &[&backend], ACCESS_LOG);
        web.replace(
            "name = \"web\"\naddress = \"127.0.0.1:0",
            &format!("{keys}{}", path.display()),
        )
    };
    let inner = Proxy::start(&listener(""));
    let front = Proxy::start(&format!(
        "[[listener]]\nname = \"front\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [cluster.web]\nbackends = [\"unix:{}\"]\ncheck = {{ http = \"/\", host = \"check\" }}\n",
        path.display()
    ));
    let label = format!("unix:{}", path.display());
    front.wait_backend("web", &label, "up");
    let mut client = Client::connect(front.addr("front"));
    let mut ask = |uri: &str| {
        client.send(format!(
            "GET {uri} HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
        ));
        assert_eq!(client.response().status, 200);
        // Beside those of the check.
        let mut all = backend.take_recorded().into_iter();
        all.find(|request| request.target == uri).unwrap()
    };
    // A path is no host.
    let seen = ask("/strange");
    assert_eq!(seen.fields.get("host"), Some("localhost"));
    assert!(!seen.fields.has("x-forwarded-for"), "{seen:?}");
    let line = inner.wait_access("/strange");
    assert!(
        line.get("client").is_none() && line.get("peer").is_none(),
        "{line}"
    );
    inner.reload_ok(&listener("trusted_proxies = [\"unix:\"]"));
    let seen = ask("/trusted");
    assert_eq!(seen.fields.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(inner.wait_access("/trusted")["client"], "127.0.0.1");
    assert!(front.count("lbproxy_backend_connections_total", &[("backend", &label)]) > 0);
    // Its socket goes with the listener, and a backend that is gone is a failed connection.
    inner.signal(rustix::process::Signal::TERM);
    inner.wait_exit(PATIENCE);
    assert!(!path.exists());
    client.send("GET /gone HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.response().status, 502);
}

#[test]
fn a_v4_client_of_a_v6_listener_has_its_v4_address() {
    let backend = Backend::start("a");
    backend.record();
    let config = web(&[&backend], "").replace("127.0.0.1:0", ":0");
    let proxy = Proxy::start(&config);
    let mut addr = proxy.addr("web");
    for (ip, expected) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        addr.set_ip(ip.parse().unwrap());
        assert_eq!(Client::connect(addr).get("/").status, 200);
        let seen = backend.take_one();
        assert_eq!(seen.fields.get("x-forwarded-for"), Some(expected));
    }
}

#[test]
fn a_response_without_a_date_gets_one_and_one_with_a_date_keeps_it() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(2);
    let date = client.get("/").fields.get("date").unwrap().to_owned();
    assert!(
        httpdate::parse_http_date(&date).unwrap() >= before,
        "{date}"
    );
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    backend.behave(move |_| Answer::new(200, "").field("date", old));
    assert_eq!(client.get("/").fields.get("date"), Some(old));
}

#[test]
fn via_and_the_id_of_a_request_are_there_when_asked_for() {
    let backend = Backend::start("a");
    backend.record().behave(|_| {
        Answer::new(200, "ok")
            .field("via", "1.1 inner")
            .field("x-request-id", "theirs")
    });
    for (keys, is_on) in [("via = true\nexpose_request_id = true", true), ("", false)] {
        let proxy = Proxy::start(&web_with(keys, &[&backend], ""));
        let mut client = Client::connect(proxy.addr("web"));
        let answer = client.request("GET", "/", "via: 1.0 outer\r\n", b"");
        let seen = backend.take_one();
        let via = |fields: &Fields| fields.all("via").map(str::to_owned).collect::<Vec<_>>();
        let id = seen.fields.get("x-request-id").unwrap();
        if is_on {
            assert_eq!(via(&seen.fields), ["1.0 outer", "1.1 lbproxy"]);
            assert_eq!(via(&answer.fields), ["1.1 inner", "1.1 lbproxy"]);
            assert_eq!(answer.fields.get("x-request-id"), Some(id));
        } else {
            assert_eq!(via(&seen.fields), ["1.0 outer"]);
            assert_eq!(via(&answer.fields), ["1.1 inner"]);
            assert_eq!(answer.fields.get("x-request-id"), Some("theirs"));
        }
        client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
        assert_eq!(client.response().status, 200);
        let seen = backend.take_one();
        assert_eq!(seen.fields.get("via"), is_on.then_some("1.0 lbproxy"));
    }
}

#[test]
fn a_kept_connection_says_for_how_long_it_may_rest() {
    let backend = Backend::start("a");
    for (idle, told) in [
        ("75s", Some("timeout=74")),
        ("3s", Some("timeout=2")),
        ("2900ms", None),
    ] {
        let keys = format!("timeouts = {{ idle = \"{idle}\" }}");
        let proxy = Proxy::start(&web_with(&keys, &[&backend], ""));
        let mut client = Client::connect(proxy.addr("web"));
        let answer = client.get("/");
        assert_eq!(answer.fields.get("keep-alive"), told, "{idle}");
        assert_eq!(
            answer.fields.lists("connection", "keep-alive"),
            told.is_some()
        );
        let answer = client.request("GET", "/", "connection: close\r\n", b"");
        assert_eq!(answer.fields.get("keep-alive"), None);
        assert_eq!(answer.fields.get("connection"), Some("close"));
    }
}
