//! Several files, variables and defaults.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{config, report, shown};
use crate::config::diagnostics::render_set;
use crate::config::environment::Environment;
use crate::config::load::{Loaded, load_sources, load_with};
use crate::config::schema::Config;
use crate::config::sources::Sources;
use crate::model::route_action::RouteAction;

/// A few variables, and the files of the machine.
struct Env;

impl Environment for Env {
    fn variable(&self, name: &str) -> Option<OsString> {
        match name {
            "PORT" => Some("8081".into()),
            "BAD" => Some("localhost".into()),
            "QUOTE" => Some("\"\nworkers = 0".into()),
            "SITES" => Some("sites".into()),
            _ => None,
        }
    }

    fn content(&self, path: &Path, most: usize) -> Result<Vec<u8>, String> {
        let content = std::fs::read(path).map_err(|error| error.to_string())?;
        match content.len() > most {
            true => Err("too large".to_owned()),
            false => Ok(content),
        }
    }
}

fn report_with(text: &str) -> Vec<String> {
    let loaded = load_with(text.as_bytes(), &Env);
    loaded.diagnostics.iter().map(shown).collect()
}

fn with(text: &str) -> Config {
    let loaded = load_with(text.as_bytes(), &Env);
    let config = loaded.config;
    config.unwrap_or_else(|| panic!("{text}\n{:#?}", loaded.diagnostics))
}

#[test]
fn variables_in_values() {
    let config = with(
        "[[listener]]\nname = 'x$${PORT}'\naddress = '127.0.0.1:${PORT}'\n\
         [[route]]\npath = '/${NONE:-a}/*'\nredirect = { to = 'https://{host}:${PORT}' }\n\
         [[route]]\npath_regex = '^/a{1}$'\nrespond = { body = '${QUOTE}${NONE:-}' }\n",
    );
    assert_eq!(config.workers, None, "a value cannot make syntax");
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8081");
    assert_eq!(config.listeners[0].name, "x${PORT}");
    assert_eq!(config.routes[0].name, "/a/*");
}

#[test]
fn a_value_that_cannot_be_filled_in_is_one_error_at_its_place() {
    let text = "[[listener]]\naddress = ':${NONE}'\ncluster = '${ALSO}'\n[cluster.web]\nbackends = ['a:${PORT', '${BAD}']\n";
    assert_eq!(
        report_with(text),
        [
            "2:11 error: there is no environment variable `NONE` | expected it to be set, or a default as in \
             `${NONE:-…}` | a plain `${` is written `$${`",
            "3:11 error: there is no environment variable `ALSO` | expected it to be set, or a default as in \
             `${ALSO:-…}` | a plain `${` is written `$${`",
            "5:13 error: `${` without its `}` | expected `${NAME}` or `${NAME:-default}` | a plain `${` is written \
             `$${`",
            &format!(
                "5:25 error: an entry of `backends` is \"localhost\" | {}",
                report_of_a_bare_name()
            ),
        ]
    );
    // Keys are not values.
    assert!(report_with("'${PORT}' = 1\n")[0].contains("unknown key `${PORT}`"));
}

/// What is reported of the backend "localhost", without the beginning.
fn report_of_a_bare_name() -> String {
    let all = report(
        "[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\nbackends = ['localhost']\n",
    );
    all[0].split_once(" | ").unwrap().1.to_owned()
}

#[test]
fn the_caret_is_at_the_whole_of_an_expression_with_a_variable() {
    let rest = "\nrespond = {}\n[[listener]]\naddress = ':1'\n";
    let column = |expression: &str| {
        let reported = report_with(&format!("[[route]]\npath_regex = {expression}{rest}"));
        reported[0].split_once(' ').unwrap().0.to_owned()
    };
    assert_eq!(column("'^/v(1'"), "2:18");
    assert_eq!(column("'^/${PORT}('"), "2:14");
}

/// A directory with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}

/// Loads files and directories of a folder. Returns the diagnostics as they are shown too, without the path of the
/// folder.
fn of(root: &tempfile::TempDir, named: &[&str]) -> (Loaded, String) {
    let named: Vec<PathBuf> = named.iter().map(|name| root.path().join(name)).collect();
    let sources = Sources::read(&named, &Env).unwrap();
    let loaded = load_sources(&sources, &Env);
    let files = sources.shown();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let shown = render_set(&files, &loaded.diagnostics, false);
    let shown = shown.replace(&format!("{}/", root.path().display()), "");
    (loaded, shown)
}

const MAIN: &str = "include = ['${SITES}/*.toml']\n[[listener]]\naddress = ':1'\n[[route]]\npath = '/own'\ncluster = 'a'\n";
const A: &str = "[[route]]\npath = '/a'\ncluster = 'a'\n[cluster.a]\nbackends = ['a:1']\n";
const B: &str = "[[listener]]\naddress = ':2'\n[[route]]\npath = '/b'\ncluster = 'b'\n[cluster.b]\nbackends = ['b:1']\n";

#[test]
fn included_files_come_after_in_byte_order() {
    let root = folder(&[
        ("lb.toml", MAIN),
        ("sites/b.toml", B),
        ("sites/a.toml", A),
        ("sites/.hidden.toml", "x"),
        ("sites/note.txt", "x"),
        ("sites/d.toml/x.toml", "x"),
    ]);
    let (loaded, shown) = of(&root, &["lb.toml"]);
    assert_eq!(shown, "");
    let config = loaded.config.unwrap();
    let routes: Vec<&str> = config.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(routes, ["/own", "/a", "/b"]);
    assert_eq!((config.listeners.len(), config.clusters.len()), (2, 2));
}

#[test]
fn directories_and_several_files_are_one_configuration() {
    let root = folder(&[
        ("d/b.toml", B),
        ("d/a.toml", A),
        ("c.toml", "workers = 1\n"),
    ]);
    for named in [
        &["d"][..],
        &["d/a.toml", "d/b.toml"],
        &["d/a.toml", "d", "d/a.toml"],
    ] {
        let (loaded, shown) = of(&root, named);
        assert_eq!(shown, "", "{named:?}");
        let config = loaded.config.unwrap();
        let routes: Vec<&str> = config.routes.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(routes, ["/a", "/b"], "{named:?}");
    }
    assert_eq!(
        of(&root, &["d", "c.toml"]).0.config.unwrap().workers,
        Some(1)
    );
}

#[test]
fn errors_of_all_files_are_reported_in_their_places() {
    let root = folder(&[
        ("lb.toml", &format!("workers = 0\n{MAIN}")),
        (
            "sites/a.toml",
            &format!("workers = 2\ninclude = 'x'\n{A}[log]\nlevel = 'wran'\n"),
        ),
        ("sites/b.toml", &format!("{A}{B}")),
        ("sites/c.toml", "listener = 1\ncluster = 2\n[admin\n"),
        ("sites/d.toml", "\n\u{fffd}"),
    ]);
    std::fs::write(root.path().join("sites/d.toml"), b"x = \"\xff\"\n").unwrap();
    let (loaded, shown) = of(&root, &["lb.toml"]);
    assert!(loaded.config.is_none());
    for reported in [
        "error: `workers` is 0\n --> lb.toml:1:11\n",
        "error: `workers` is given in two files\n --> sites/a.toml:1:1\n",
        "= note: the first is at lb.toml:1:1\n",
        "error: an included file that includes others\n --> sites/a.toml:2:1\n",
        "--> sites/a.toml:9:9\n",
        "did you mean \"warn\"?",
        "error: cluster \"a\" is given in two files\n --> sites/b.toml:4:10\n",
        "= note: the first is at sites/a.toml:6:10\n",
        "error: `listener` is a single table\n --> sites/c.toml:1:12\n",
        "error: `cluster` is not a table\n --> sites/c.toml:2:11\n",
        "--> sites/c.toml:3:",
        "error: the file is not UTF-8 text\n --> sites/d.toml:1:6\n",
    ] {
        assert!(shown.contains(reported), "{reported:?} is not in\n{shown}");
    }
    let json =
        crate::config::diagnostics::set_to_json(&["m", "a", "b", "c", "d"], &loaded.diagnostics);
    assert_eq!(json["errors"][0]["file"], "m");
    assert_eq!(json["errors"][1]["related"]["file"], "m");
}

#[test]
fn names_of_other_files_are_known() {
    let root = folder(&[
        (
            "lb.toml",
            "include = 'sites/*'\n[cluster.web]\nbackends = ['a:1']\n",
        ),
        ("sites/a", "[[listener]]\naddress = ':1'\ncluster = 'wbe'\n"),
        ("sites/b", "[[listener]]\naddress = ':1'\ncluster = 'web'\n"),
    ]);
    let (_, shown) = of(&root, &["lb.toml"]);
    assert!(
        shown.contains("--> sites/a:3:11\n") && shown.contains("did you mean \"web\"?"),
        "{shown}"
    );
    assert!(
        shown.contains("error: \":1\" is already in use\n --> sites/b:2:11\n")
            && shown.contains("a listener has it at sites/a:2:11"),
        "{shown}"
    );
}

#[test]
fn what_is_wrong_with_an_include() {
    let root = folder(&[
        (
            "lb.toml",
            "include = ['none/*.toml', 'gone.toml', 'a/**/b', 'a[', '', 3, '*.toml', 'real.toml']\n\
             [[listener]]\naddress = ':1'\n",
        ),
        ("real.toml", "[[route]]\npath = '/real'\nrespond = {}\n"),
    ]);
    let (loaded, shown) = of(&root, &["lb.toml"]);
    for reported in [
        "warning: no file matches \"none/*.toml\"\n --> lb.toml:1:12\n",
        "error: \"gone.toml\" cannot be read\n --> lb.toml:1:27\n",
        "error: \"a/**/b\" cannot be included\n --> lb.toml:1:40\n",
        "error: \"a[\" cannot be included\n --> lb.toml:1:50\n",
        "error: \"\" cannot be included\n --> lb.toml:1:56\n",
        "error: an entry of `include` is an integer\n --> lb.toml:1:60\n",
    ] {
        assert!(shown.contains(reported), "{reported:?} is not in\n{shown}");
    }
    assert!(loaded.config.is_none());
    let root = folder(&[(
        "lb.toml",
        "include = 'none/*'\n[[listener]]\naddress = ':1'\nname = 'x'\n",
    )]);
    let (loaded, shown) = of(&root, &["lb.toml"]);
    assert!(
        loaded.config.is_some() && shown.contains("no file matches"),
        "{shown}"
    );
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let gossip = "[gossip]\naddress = '127.0.0.1:2'\nkey_files = ['k', '/abs']\n";
    let root = folder(&[
        (
            "lb.toml",
            "include = 'sites/*'\n[[listener]]\naddress = ':1'\n",
        ),
        ("sites/a", gossip),
        ("b.toml", gossip),
    ]);
    let keys = |named: &[&str]| {
        let gossip = of(&root, named).0.config.unwrap().gossip.unwrap();
        gossip.peer_set.key_files
    };
    assert_eq!(
        keys(&["lb.toml"]),
        [root.path().join("sites/k"), PathBuf::from("/abs")]
    );
    std::fs::remove_file(root.path().join("sites/a")).unwrap();
    // As written if the file is beside the first.
    assert_eq!(
        keys(&["lb.toml", "b.toml"]),
        [PathBuf::from("k"), PathBuf::from("/abs")]
    );
}

#[test]
fn swapped_links_are_noticed() {
    let root = folder(&[("v1/a.toml", A), ("v2/a.toml", B)]);
    std::os::unix::fs::symlink("v1", root.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.toml", root.path().join("a.toml")).unwrap();
    let read = || Sources::read(&[root.path().to_owned()], &Env).unwrap();
    let before = read();
    assert_eq!(before.files.len(), 1, "{before:?}");
    assert!(before.is_same(&read()));
    std::os::unix::fs::symlink("v2", root.path().join("new")).unwrap();
    std::fs::rename(root.path().join("new"), root.path().join("..data")).unwrap();
    assert!(!before.is_same(&read()));
}

#[test]
fn defaults_fill_in_what_a_table_lacks() {
    let config = config(
        "[defaults.listener]\ncluster = 'a'\ntimeouts = { header = '1s', idle = '2s' }\nlimits = { headers = 7 }\n\
         [defaults.cluster]\ncheck = { http = '/h', host = 'h', interval = '3s' }\npolicy = 'consistent_hash'\n\
         hash_key = { cookie = 'c' }\ntimeouts = { connect = '5s' }\n\
         [[listener]]\naddress = ':1'\n\
         [[listener]]\naddress = ':2'\ncluster = 'b'\ntimeouts = { idle = '9s' }\n\
         [[listener]]\naddress = ':3'\nprotocol = 'tcp'\n\
         [cluster.a]\nbackends = ['a:1']\n\
         [cluster.b]\nbackends = ['a:1']\ncheck = { tcp = true }\nhash_key = { header = 'h' }\ntimeouts = { body = '6s' }\n\
         [cluster.c]\nbackends = ['a:1']\ncheck = { interval = '4s' }\n",
    );
    let [one, two, three] = &config.listeners[..] else {
        panic!()
    };
    let secs = std::time::Duration::from_secs;
    assert_eq!((one.timeouts.header, one.timeouts.idle), (secs(1), secs(2)));
    assert_eq!((two.timeouts.header, two.timeouts.idle), (secs(1), secs(9)));
    assert_eq!(
        three.timeouts.header,
        secs(10),
        "a tcp listener takes no keys that are for requests"
    );
    assert_eq!(
        [one, two, three].map(|l| l.cluster.as_deref()),
        [Some("a"), Some("b"), Some("a")]
    );
    let [a, b, c] = &config.clusters[..] else {
        panic!()
    };
    assert_eq!(format!("{:?}", a.settings.hash_key), "Cookie(\"c\")");
    assert_eq!(format!("{:?}", b.settings.hash_key), "Header(\"h\")");
    assert_eq!(
        (b.settings.timeouts.connect, b.settings.timeouts.body),
        (secs(5), secs(6))
    );
    let check =
        |cluster: &crate::config::schema::ClusterConfig| cluster.settings.check.clone().unwrap();
    assert_eq!(check(b).interval, secs(3));
    assert!(
        format!("{:?}", check(b).kind).starts_with("Tcp"),
        "{:?}",
        check(b)
    );
    assert_eq!(check(c).interval, secs(4));
    assert_eq!(check(c).kind, check(a).kind);
}

#[test]
fn an_error_in_defaults_is_reported_once_in_its_place() {
    let rest = "[[listener]]\naddress = ':1'\n[[listener]]\naddress = ':2'\n";
    let all = report(&format!(
        "[defaults]\nlog = 1\n[defaults.listener]\naddress = ':1'\nadress = 1\ncluster = 'x'\ntimeouts = {{ idle = 1 }}\n\
         [defaults.cluster]\nresolve = 5\n{rest}"
    ));
    let places: Vec<&str> = all.iter().map(|s| s.split(" | ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "2:1 error: unknown key `log` in [defaults]",
            "4:1 error: `address` in [defaults.listener]",
            "5:1 error: unknown key `adress` in [[listener]]",
            "6:11 error: no cluster is called \"x\"",
            "7:21 error: `idle` is a bare number",
            "9:11 error: `resolve` is a bare number",
        ],
    );
    assert_eq!(
        report("defaults = { listener = 1 }\n[[listener]]\naddress = ':1'\nname = 'a'\n")[0],
        "1:25 error: `listener` is an integer | expected a table"
    );
}

#[test]
fn defaults_are_bounded() {
    let many = |n: usize, text: &str| text.repeat(n);
    let text = format!(
        "[defaults.listener]\ntrusted_proxies = [{}]\n{}",
        many(3000, "'10.0.0.1',"),
        many(3000, "[[listener]]\naddress = ':0'\n"),
    );
    assert!(
        report(&text)
            .iter()
            .any(|s| s.contains("`defaults` holds too much"))
    );
}

#[test]
fn tables_that_only_toml_1_1_allows() {
    assert_eq!(
        report(
            "[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\nbackends = ['a:1']\nretry = {\n attempts = 1,\n}\n"
        ),
        [
            "6:9 warning: an inline table with line ends | many editors and other readers of TOML refuse it | write it \
             on one line without a comma at its end, or as a [table]"
        ]
    );
}

#[test]
fn answers_of_listeners_and_routes() {
    let root = folder(&[
        (
            "lb.toml",
            "include = 'sites/*.toml'\n[[listener]]\naddress = ':1'\nredirect = 'https://{host}{uri}'\n\
             [[listener]]\naddress = ':2'\nrespond = { status = 503 }\nerrors = { 503 = 'sorry.html', 4xx = 'c.json' }\n",
        ),
        ("sorry.html", "sorry"),
        ("c.json", "{}"),
        (
            "sites/a.toml",
            "[[route]]\npath = '/a'\nrespond = { file = 'a.PNG', headers = { \"X-A\" = 'b', c = '' } }\nlog = false\n\
             limits = { body_bytes = '1KiB' }\nerrors = { 404 = '../sorry.html' }\n\
             [[route]]\npath = '/b'\nrespond = { file = 'a.PNG', content_type = 'x/y' }\n",
        ),
        ("sites/a.PNG", "png"),
    ]);
    let (loaded, shown) = of(&root, &["lb.toml"]);
    assert_eq!(shown, "");
    assert_eq!(loaded.contents.paths().count(), 4);
    let config = loaded.config.unwrap();
    assert_eq!(
        format!("{:?}", config.listeners[0].answer),
        "Some(Redirect { to: \"https://{host}{uri}\", status: 308 })"
    );
    let pages = &config.listeners[1].errors;
    let page = |status| {
        let page = pages.find(pages, status).unwrap();
        (page.content_type.as_str(), &page.body[..])
    };
    assert_eq!(page(503), ("text/html; charset=utf-8", &b"sorry"[..]));
    assert_eq!(page(404), ("application/json", &b"{}"[..]));
    let [a, b] = &config.routes[..] else { panic!() };
    assert_eq!(
        (a.log, a.body_bytes, b.log, b.body_bytes),
        (false, Some(1024), true, None)
    );
    let RouteAction::Respond { fields, page, .. } = &a.rule.target else {
        panic!()
    };
    let page = page.as_ref().unwrap();
    assert_eq!(&**fields, "X-A: b\r\nc: \r\n");
    assert_eq!(
        (page.content_type.as_str(), &page.body[..]),
        ("image/png", &b"png"[..])
    );
    let RouteAction::Respond { page, .. } = &b.rule.target else {
        panic!()
    };
    assert_eq!(page.as_ref().unwrap().content_type, "x/y");
}

#[test]
fn a_listener_at_several_addresses() {
    let text = |address: &str| {
        format!(
            "[[listener]]\naddress = {address}\ncluster = 'a'\n[cluster.a]\nbackends = ['a:1']\n"
        )
    };
    let config = config(&text("[':1', '127.0.0.1:2', '[::1]:2']"));
    let all: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| (listener.name.as_str(), listener.address.to_string()))
        .collect();
    assert_eq!(
        all,
        [":1", "127.0.0.1:2", "[::1]:2"].map(|address| (":1", address.to_owned()))
    );
    let places = |address: &str| -> Vec<String> {
        let all = report(&text(address));
        all.iter()
            .map(|s| s.split(" | ").next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        places("[':1', ':0', ':1', ':0']"),
        [
            "2:24 error: address \":1\" is given twice",
            "2:30 error: address \":0\" is given twice",
        ]
    );
    assert_eq!(
        places("[':1', '127.0.0.1:1']"),
        ["2:18 error: \"127.0.0.1:1\" is already in use"]
    );
    assert_eq!(places("[]"), ["2:11 error: `address` is an empty array"]);
    assert_eq!(
        places("[1]"),
        ["2:12 error: an entry of `address` is an integer"]
    );
    let many: Vec<String> = (1..18).map(|port| format!("':{port}'")).collect();
    assert_eq!(
        places(&format!("[{}]", many.join(","))),
        ["2:11 error: `address` has 17 entries"]
    );
}

#[test]
fn what_is_wrong_with_answers() {
    let root = folder(&[
        (
            "lb.toml",
            "[[listener]]\naddress = ':1'\nredirect = '/'\nrespond = {}\nerrors = { 3xx = 'a', 600 = 'a', 404 = 'none', 500 = 'big' }\n\
             [[listener]]\naddress = ':2'\nprotocol = 'tcp'\nredirect = '/'\n\
             [[route]]\npath = '/a'\nrespond = { body = 'x', file = 'big', content_type = 'é', headers = { Content-Length = '1', X-Request-Id = '1', a = \"b\\r\\nc\" } }\n",
        ),
        ("big", &"x".repeat((1 << 20) + 1)),
    ]);
    let (loaded, shown) = of(&root, &["lb.toml"]);
    assert!(loaded.config.is_none());
    for reported in [
        "error: [[listener]] has `redirect` and `respond`\n --> lb.toml:4:11\n",
        "error: \"3xx\" is not a status for `errors`\n --> lb.toml:5:12\n",
        "error: \"600\" is not a status for `errors`\n --> lb.toml:5:23\n",
        "error: `404` cannot be read: \"none\": No such file or directory",
        "error: `500` cannot be read: \"big\":",
        "error: `redirect` on a tcp listener\n --> lb.toml:9:12\n",
        "error: `file` beside `body`\n  --> lb.toml:12:32\n",
        "error: `content_type` is \"é\"",
        "error: \"Content-Length\" is not a field for `headers`",
        "error: \"X-Request-Id\" is not a field for `headers`",
        "error: `a` is \"b\\u{d}\\u{a}c\"",
    ] {
        assert!(shown.contains(reported), "{reported:?} is not in\n{shown}");
    }
}

#[test]
fn keys_that_have_no_effect_for_tcp() {
    let all = report(
        "[defaults.cluster]\ntimeouts = { response = '9s' }\nretry.on = ['reset']\n\
         [[listener]]\naddress = ':1'\nprotocol = 'tcp'\ncluster = 'a'\ntrusted_proxies = []\n\
         timeouts = { header = '1s', tunnel = '1h' }\nlimits = { headers = 3, connections = 4 }\n\
         [[listener]]\naddress = ':2'\ncluster = 'b'\n\
         [cluster.a]\nbackends = ['a:1']\nhttp_version = '1.1'\npolicy = 'consistent_hash'\nhash_key = 'path'\n\
         timeouts = { body = '1s', connect = '1s' }\nlimits = { idle_connections = 1 }\n\
         retry = { on = ['reset', 'connect', 'timeout'] }\n\
         [cluster.b]\nbackends = ['a:1']\nhttp_version = '1.1'\n",
    );
    let places: Vec<&str> = all.iter().map(|s| s.split(" | ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "8:19 warning: `trusted_proxies` on a tcp listener without `connections_per_client`",
            "9:23 warning: `header` on a tcp listener",
            "10:22 warning: `headers` on a tcp listener",
            "16:16 warning: `http_version` on a cluster of tcp listeners",
            "18:12 warning: `hash_key` on a cluster of tcp listeners",
            "19:21 warning: `body` on a cluster of tcp listeners",
            "20:31 warning: `idle_connections` on a cluster of tcp listeners",
            "21:17 warning: `on = \"reset\"` on a cluster of tcp listeners",
            "21:37 warning: `on = \"timeout\"` on a cluster of tcp listeners",
        ]
    );
}

#[test]
fn trusted_proxies_of_a_tcp_listener_are_not_limited_as_clients() {
    for (defaults, own) in [
        (
            "",
            "trusted_proxies = ['10.0.0.0/8']\nlimits = { connections_per_client = 4 }\n",
        ),
        (
            "trusted_proxies = ['10.0.0.0/8']\n",
            "limits = { connections_per_client = 4 }\n",
        ),
        (
            "limits = { connections_per_client = 4 }\n",
            "trusted_proxies = ['10.0.0.0/8']\n",
        ),
        (
            "trusted_proxies = ['10.0.0.0/8']\nlimits = { connections_per_client = 4 }\n",
            "",
        ),
    ] {
        let text = format!(
            "[defaults.listener]\n{defaults}[[listener]]\naddress = ':1'\nprotocol = 'tcp'\ncluster = 'a'\n{own}\
             [cluster.a]\nbackends = ['a:1']\n"
        );
        assert_eq!(report(&text), Vec::<String>::new(), "{text}");
        assert_eq!(
            config(&text).listeners[0].trusted_proxies.networks.len(),
            1,
            "{text}"
        );
    }
}

#[test]
fn defaults_that_have_an_effect_elsewhere_are_no_warning() {
    let all = report(
        "[defaults.cluster]\nretry.on = ['reset', 'connect']\n\
         [[listener]]\naddress = ':1'\nprotocol = 'tcp'\ncluster = 'a'\n\
         [cluster.a]\nbackends = ['a:1']\n",
    );
    assert_eq!(all, Vec::<String>::new());
}
