//! Which cluster takes a request, and the answers that a route gives itself.

use std::net::{IpAddr, SocketAddr};

use crate::support::backend::Backend;
use crate::support::client::{Client, raw};
use crate::support::process::{ACCESS_LOG, Proxy};
use socket2::{Domain, Socket, Type};

/// A proxy with these routes, in which every cluster `x` has one backend `x`.
struct Stand {
    proxy: Proxy,
    _backends: Vec<Backend>,
}

impl Stand {
    fn new(clusters: &[&str], rest: &str) -> Self {
        let backends: Vec<Backend> = clusters.iter().map(|id| Backend::start(id)).collect();
        let listener = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";
        let mut config = format!("{listener}{rest}\n{ACCESS_LOG}\n");
        for backend in &backends {
            config += &format!(
                "[cluster.{}]\nbackends = [\"{}\"]\n",
                backend.id(),
                backend.addr
            );
        }
        Self {
            proxy: Proxy::start(&config),
            _backends: backends,
        }
    }

    /// Who takes a request: the id of the backend, or the status of the proxy's own answer.
    #[track_caller]
    fn takes(&self, method: &str, target: &str, fields: &str) -> String {
        let request = format!("{method} {target} HTTP/1.1\r\n{fields}connection: close\r\n\r\n");
        let answer = raw(self.proxy.addr("web"), request);
        match answer.backend() {
            "" => answer.status.to_string(),
            id => id.to_owned(),
        }
    }

    #[track_caller]
    fn get(&self, target: &str) -> String {
        self.takes("GET", target, "host: any\r\n")
    }
}

fn route(keys: &str, cluster: &str) -> String {
    format!("[[route]]\n{keys}\ncluster = \"{cluster}\"\n")
}

#[test]
fn the_host_decides_without_case_port_or_trailing_dot() {
    let rest = route("host = \"api.example.com\"", "api")
        + &route("host = \"*.example.com\"", "any")
        + &route("host = \"[::1]\"", "six");
    let stand = Stand::new(&["api", "any", "six"], &rest);
    for (host, taker) in [
        ("api.example.com", "api"),
        ("API.Example.COM", "api"),
        ("api.example.com:8080", "api"),
        ("api.example.com.", "api"),
        ("api.example.com.:80", "api"),
        ("[0:0::0001]:80", "six"),
        ("[::FFFF:1]", "404"),
        ("api.example.com..", "400"),
        ("api..example.com", "400"),
        (".example.com", "400"),
        ("other.example.com", "any"),
        ("a.b.example.com", "any"),
        ("example.com", "404"),
        ("xexample.com", "404"),
        ("api.example.com.evil", "404"),
        ("[::1]", "six"),
        ("[::1]:80", "six"),
    ] {
        assert_eq!(
            stand.takes("GET", "/", &format!("host: {host}\r\n")),
            taker,
            "{host}"
        );
    }
}

#[test]
fn the_host_of_an_absolute_target_wins() {
    let stand = Stand::new(&["api"], &route("host = \"api.example\"", "api"));
    assert_eq!(
        stand.takes("GET", "http://api.example/", "host: other\r\n"),
        "api"
    );
    assert_eq!(
        stand.takes("GET", "http://other/", "host: api.example\r\n"),
        "404"
    );
}

#[test]
fn the_path_decides_exactly_by_prefix_or_by_expression() {
    let rest = route("path = \"/exact\"", "exact")
        + &route("path = \"/v1/*\"", "prefix")
        + &route("path_regex = \"^/u/[0-9]+$\"", "regex");
    let stand = Stand::new(&["exact", "prefix", "regex"], &rest);
    for (target, taker) in [
        ("/exact", "exact"),
        ("/exact?query", "exact"),
        ("/exact/", "404"),
        ("/Exact", "404"),
        ("/v1/", "prefix"),
        ("/v1/a/b", "prefix"),
        ("/v1", "prefix"),
        ("/v10", "404"),
        ("/u/17", "regex"),
        ("/u/17?x", "regex"),
        ("/u/17/a", "404"),
        ("/u/", "404"),
    ] {
        assert_eq!(stand.get(target), taker, "{target}");
    }
}

#[test]
fn a_path_that_would_normalise_into_another_route_never_gets_past_the_first() {
    let rest = route("path = \"/admin*\"", "guarded") + &route("path = \"/*\"", "open");
    let stand = Stand::new(&["guarded", "open"], &rest);
    for target in [
        "/x/../admin",
        "/./admin",
        "//admin",
        "/%2e/admin",
        "/x/%2e%2e/admin",
        "/x/..%2fadmin",
        "/x/..%5cadmin",
        "/%00/admin",
    ] {
        let taker = stand.get(target);
        assert!(["400", "open"].contains(&&*taker), "{target}: {taker}");
    }
    assert_eq!(stand.get("/admin"), "guarded");
    assert_eq!(stand.get("/a%2Fb"), "open");
}

#[test]
fn method_header_and_query_decide() {
    let rest = route("method = [\"PUT\", \"DELETE\"]", "write")
        + &route("header = { \"x-canary\" = \"1\" }", "canary")
        + &route(
            "header = { \"authorization\" = { present = true } }",
            "user",
        )
        + &route("query = { \"v\" = \"2\" }", "two")
        + &route("query = { \"debug\" = { present = true } }", "debug")
        + &route(
            "path = \"/plain\"\nheader = { \"x-none\" = { present = false } }",
            "plain",
        );
    let stand = Stand::new(&["write", "canary", "user", "two", "debug", "plain"], &rest);
    for (method, target, fields, taker) in [
        ("PUT", "/", "", "write"),
        ("DELETE", "/", "", "write"),
        ("put", "/", "", "404"),
        ("GET", "/", "X-Canary: 1\r\n", "canary"),
        ("GET", "/", "x-canary: 0\r\nx-canary: 1\r\n", "canary"),
        ("GET", "/", "x-canary: 11\r\n", "404"),
        ("GET", "/", "authorization: x\r\n", "user"),
        ("GET", "/?v=2", "", "two"),
        ("GET", "/?a=b&v=2&c", "", "two"),
        ("GET", "/?v=22", "", "404"),
        ("GET", "/?vv=2", "", "404"),
        ("GET", "/?debug", "", "debug"),
        ("GET", "/?debug=", "", "debug"),
        ("GET", "/plain", "", "plain"),
        ("GET", "/plain", "x-none: 1\r\n", "404"),
        ("GET", "/", "", "404"),
    ] {
        let all = format!("host: any\r\n{fields}");
        assert_eq!(
            stand.takes(method, target, &all),
            taker,
            "{method} {target} {fields:?}"
        );
    }
}

#[test]
fn the_first_route_that_matches_wins_and_all_its_keys_must_match() {
    let rest = route(
        "host = \"a.example\"\npath = \"/x*\"\nmethod = [\"GET\"]",
        "narrow",
    ) + &route("path = \"/x*\"", "wide")
        + &route("path = \"/xy\"\nhost = \"b.example\"", "shadowed");
    let stand = Stand::new(&["narrow", "wide", "shadowed"], &rest);
    assert_eq!(stand.takes("GET", "/xy", "host: a.example\r\n"), "narrow");
    assert_eq!(stand.takes("DELETE", "/xy", "host: a.example\r\n"), "wide");
    assert_eq!(stand.takes("GET", "/xy", "host: b.example\r\n"), "wide");
}

#[test]
fn the_client_address_decides() {
    let rest =
        route("client = [\"127.0.0.2/32\"]", "two") + &route("client = [\"127.0.0.0/8\"]", "any");
    let stand = Stand::new(&["two", "any"], &rest);
    let addr = stand.proxy.addr("web");
    for (from, taker) in [
        ("127.0.0.1", "any"),
        ("127.0.0.2", "two"),
        ("127.3.0.2", "any"),
    ] {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from: IpAddr = from.parse().unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&addr.into()).unwrap();
        let mut client = Client::over(std::net::TcpStream::from(socket));
        assert_eq!(client.get("/").backend(), taker, "{from}");
    }
}

#[test]
fn a_client_that_a_trusted_proxy_cannot_name_is_in_no_network() {
    let rest = "trusted_proxies = [\"127.0.0.0/8\"]\ncluster = \"rest\"\n".to_owned()
        + &route("client = [\"127.0.0.0/8\", \"10.0.0.0/8\"]", "inner");
    let stand = Stand::new(&["inner", "rest"], &rest);
    for (number, (chain, taker, client)) in [
        (None, "inner", Some("127.0.0.1")),
        (Some("10.1.1.1"), "inner", Some("10.1.1.1")),
        (Some("192.0.2.1"), "rest", Some("192.0.2.1")),
        (Some("unknown"), "rest", None),
        (Some("10.1.1.1, junk"), "rest", None),
        (Some(""), "rest", None),
    ]
    .into_iter()
    .enumerate()
    {
        let field = chain.map_or(String::new(), |c| format!("x-forwarded-for: {c}\r\n"));
        let target = format!("/{number}");
        let taken = stand.takes("GET", &target, &format!("host: any\r\n{field}"));
        assert_eq!(taken, taker, "{chain:?}");
        let line = stand.proxy.wait_access(&target);
        assert_eq!(
            line.get("client").and_then(|c| c.as_str()),
            client,
            "{chain:?} {line}"
        );
        assert!(line.get("peer").is_some(), "{line}");
    }
}

#[test]
fn a_route_belongs_to_the_listeners_that_it_names() {
    let rest = "cluster = \"rest\"\n[[listener]]\nname = \"inner\"\naddress = \"127.0.0.2:0\"\n"
        .to_owned()
        + &route("listeners = [\"inner\"]\npath = \"/private\"", "private");
    let stand = Stand::new(&["rest", "private"], &rest);
    assert_eq!(stand.get("/private"), "rest");
    let inner = stand.proxy.addr("inner");
    assert_eq!(Client::connect(inner).get("/private").backend(), "private");
    assert_eq!(Client::connect(inner).get("/").status, 404);
}

#[test]
fn two_listeners_may_both_ask_for_any_port() {
    let stand = Stand::new(
        &["a"],
        "cluster = \"a\"\n[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\ncluster = \"a\"\n",
    );
    assert_ne!(stand.proxy.addr("web"), stand.proxy.addr("other"));
    assert_eq!(stand.get("/"), "a");
}

#[test]
fn a_redirect_fills_its_template() {
    let rest = "[[route]]\npath = \"/a*\"\nredirect = { to = \"https://{host}{uri}\" }\n\
        [[route]]\npath = \"/b\"\nredirect = { to = \"http://new.example{path}?old&{query}\", status = 302 }\n";
    let stand = Stand::new(&[], rest);
    let mut client = Client::connect(stand.proxy.addr("web"));
    client.send("GET /a/b?c=d HTTP/1.1\r\nhost: My.Example:8080\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status, 308);
    let location = answer.fields.get("location").unwrap().to_ascii_lowercase();
    let expected = [
        "https://my.example:8080/a/b?c=d",
        "https://my.example/a/b?c=d",
    ];
    assert!(expected.contains(&&*location), "{location}");
    let answer = client.get("/b?x=1");
    assert_eq!(answer.status, 302);
    assert_eq!(
        answer.fields.get("location"),
        Some("http://new.example/b?old&x=1")
    );
    assert_eq!(
        client.request("HEAD", "/b", "", b"").status,
        302,
        "the connection goes on"
    );
    assert_eq!(client.get("/b").status, 302);
}

#[test]
fn a_redirect_never_carries_what_could_split_an_answer() {
    let stand = Stand::new(
        &[],
        "[[route]]\nredirect = { to = \"https://{host}{uri}\" }\n",
    );
    let answer = raw(
        stand.proxy.addr("web"),
        "GET /%0d%0aset-cookie:%20x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(answer.status, 308);
    assert!(!answer.fields.has("set-cookie"));
}

#[test]
fn a_route_may_answer_itself() {
    let rest = "[[route]]\npath = \"/ok\"\nrespond = { status = 200, body = \"fine\\n\" }\n\
        [[route]]\npath = \"/gone\"\nrespond = { status = 410 }\n[[route]]\npath = \"/none\"\nrespond = { status = 204 }\n";
    let stand = Stand::new(&[], rest);
    let mut client = Client::connect(stand.proxy.addr("web"));
    for _ in 0..2 {
        let answer = client.request("POST", "/ok", "", b"a body that is read and dropped");
        assert_eq!((answer.status, answer.text()), (200, "fine\n"));
        assert_eq!(client.get("/gone").status, 410);
        assert_eq!(client.get("/none").status, 204);
        let head = client.request("HEAD", "/ok", "", b"");
        assert_eq!(head.fields.get("content-length"), Some("5"));
    }
}

#[test]
fn lists_and_names() {
    let rest = "cluster = \"rest\"\n".to_owned()
        + &route(
            "name = \"the fence\"\nhost = [\"a.example\", \"*.b.example\"]\npath = [\"/x/*\", \"/y\", \"/z*\"]\n\
             method = \"GET\"\nclient = \"127.0.0.0/8\"\nlisteners = \"web\"",
            "api",
        );
    let stand = Stand::new(&["api", "rest"], &rest);
    for (host, path, taker) in [
        ("a.example", "/x", "api"),
        ("a.example", "/x/1", "api"),
        ("www.b.example", "/y", "api"),
        ("www.b.example", "/zebra", "api"),
        ("a.example", "/xy", "rest"),
        ("a.example", "/y/1", "rest"),
        ("b.example", "/x", "rest"),
    ] {
        let fields = format!("host: {host}\r\n");
        assert_eq!(stand.takes("GET", path, &fields), taker, "{host} {path}");
    }
    let line = stand.proxy.wait_access("/zebra");
    assert_eq!(line["route"], "the fence", "{line}");
    let labels = [("route", "the fence"), ("code", "200")];
    let counted = "lbproxy_route_requests_total";
    stand.proxy.wait_count(counted, &labels, 4);
}

#[test]
fn the_access_log_names_route_cluster_and_backend() {
    let rest = "cluster = \"rest\"\n".to_owned()
        + &route("host = \"api.example\"\npath = \"/v1/*\"", "api");
    let stand = Stand::new(&["api", "rest"], &rest);
    stand.takes("GET", "/v1/x", "host: api.example\r\n");
    let line = stand.proxy.wait_access("/v1/x");
    assert_eq!(line["route"], "api.example/v1/*", "{line}");
    assert_eq!(line["cluster"], "api", "{line}");
    assert!(
        line["backend"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
    stand.get("/other");
    let line = stand.proxy.wait_access("/other");
    assert_eq!(line["cluster"], "rest", "{line}");
    assert!(line.get("route").is_none(), "no route took it: {line}");
}
