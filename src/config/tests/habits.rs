//! Forms of other programs that people are used to: the message shows how they are written here.

use super::expect;

const LISTENER: &str = "[[listener]]\ncluster = 'web'\n";

#[test]
fn addresses() {
    expect(
        &format!("{LISTENER}address = '8080'"),
        "3:11 error: `address` is \"8080\" | expected an address before the port: write \":8080\" for all addresses, \
         or \"127.0.0.1:8080\" for this machine alone",
    );
    expect(
        &format!("{LISTENER}address = '*:8080'"),
        "3:11 error: `address` is \"*:8080\" | \"*\" is not an address: write \":8080\" for all addresses",
    );
    expect(
        "admin.address = 'localhost:9900'",
        "1:17 error: `address` is \"localhost:9900\" | expected an IP address, not a name: write \"127.0.0.1:9900\", \
         or \"[::1]:9900\" for IPv6",
    );
    expect(
        "[cluster.b]\nbackends = ['http://10.0.0.1:8080/', { address = 'https://10.0.0.1' }]",
        "1:10 warning: nothing uses cluster \"b\" | expected a listener or a route with this `cluster`\n\
         2:13 error: an entry of `backends` is \"http://10.0.0.1:8080/\" | \
         expected an address without a scheme: write \"10.0.0.1:8080\"\n\
         2:50 error: `address` is \"https://10.0.0.1\" | TLS to backends is not supported yet; \
         expected the address of a plaintext port, such as \"10.0.0.1:8080\"",
    );
    let gossip = |rest: &str| format!("gossip = {{ insecure_plaintext = true, {rest} }}");
    expect(
        &gossip("address = '7946'"),
        "1:10 warning: no cluster discovers backends in [gossip] | expected a cluster with discover = { gossip = \"…\" }\n\
         1:49 error: `address` is \"7946\" | expected an address before the port, as in \"10.0.0.5:7946\"",
    );
    expect(
        &gossip("address = 'udp://10.0.0.5:7946'"),
        "1:10 warning: no cluster discovers backends in [gossip] | expected a cluster with discover = { gossip = \"…\" }\n\
         1:49 error: `address` is \"udp://10.0.0.5:7946\" | expected an address without a scheme, \
         such as \"10.0.0.5:7946\"",
    );
}

#[test]
fn protocols() {
    let tls = "TLS is not supported yet; \"tcp\" passes it through to backends that speak it";
    let h2 = "HTTP/2 is not supported yet; \"tcp\" passes it through to backends that speak it";
    let http = "\"http\" is HTTP/1.1 with upgrades such as WebSocket";
    for (word, help) in [
        ("https", tls),
        ("HTTPS", tls),
        ("ssl", tls),
        ("grpc", h2),
        ("h2", h2),
        ("websocket", http),
        ("udp", "UDP is not supported yet"),
        ("HTTP", "did you mean \"http\"?"),
    ] {
        expect(
            &format!("{LISTENER}address = ':1'\nprotocol = '{word}'"),
            &format!(
                "4:12 error: `protocol` is \"{word}\" | expected \"http\" or \"tcp\" | {help}"
            ),
        );
    }
}

#[test]
fn a_value_in_place_of_a_table() {
    let attempts = "expected a table such as { attempts = 2 }, the first attempt included";
    let check = "expected a table such as { http = \"/healthz\" } or { tcp = true }";
    for (entry, expected) in [
        (
            "retry = 3",
            format!("`retry` is an integer | {attempts} | write retry = {{ attempts = 3 }}"),
        ),
        (
            "retry = false",
            format!("`retry` is a boolean | {attempts} | write retry = {{ attempts = 1 }}"),
        ),
        (
            "retry = true",
            format!("`retry` is a boolean | {attempts}"),
        ),
        (
            "check = '/healthz'",
            format!("`check` is a string | {check} | write check = {{ http = '/healthz' }}"),
        ),
        (
            "check = true",
            format!("`check` is a boolean | {check} | write check = {{ tcp = true }}"),
        ),
        ("check = false", format!("`check` is a boolean | {check}")),
        (
            "discover = 'web'",
            "`discover` is a string | expected a table such as { gossip = \"web\" } | \
             write discover = { gossip = 'web' }"
                .to_owned(),
        ),
        (
            "limits = 100",
            "`limits` is an integer | expected a table such as { idle_connections = 256 } | \
             write limits = { idle_connections = 100 }"
                .to_owned(),
        ),
        (
            "timeouts = '5s'",
            "`timeouts` is a string | expected a table such as { connect = \"1s\", response = \"30s\" }"
                .to_owned(),
        ),
    ] {
        let reported = super::report(&format!("{}{entry}\n", super::REST));
        let errors: Vec<&str> = reported
            .iter()
            .filter_map(|line| line.split_once(" error: ").map(|(_, rest)| rest))
            .collect();
        assert_eq!(errors, [expected], "{entry}");
    }
    expect(
        "admin = '127.0.0.1:9900'",
        "1:9 error: `admin` is a string | expected a table such as { address = \"127.0.0.1:9900\" } | \
         write admin = { address = '127.0.0.1:9900' }",
    );
    expect(
        "[[route]]\nrespond = 503",
        "2:11 error: `respond` is an integer | expected a table such as { status = 200, body = \"ok\" } | \
         write respond = { status = 503 }",
    );
}

#[test]
fn statuses_of_redirects() {
    for status in ["200", "300", "304", "306", "309", "-1", "'308'"] {
        let what = match status {
            "'308'" => "a string",
            status => status,
        };
        expect(
            &format!("[[route]]\nredirect = {{ to = '/', status = {status} }}"),
            &format!("2:33 error: `status` is {what} | expected 301, 302, 303, 307 or 308"),
        );
    }
}
