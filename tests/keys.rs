//! `lbproxy key` and `lbproxy token` with the real program: what they print and write, with which modes, and what they
//! never show.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;

use crate::support::process::{Proxy, Reload, run};
use crate::support::wait::{PATIENCE, wait_until};
use lbproxy::internals::gossip::{AgentCredential, Authority, OperatorPublic, SecretKey};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What a command printed; it succeeded without messages.
#[track_caller]
fn printed(output: &Output) -> String {
    let stderr = text(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    text(&output.stdout).to_owned()
}

/// The errors of a command; it failed and printed nothing.
#[track_caller]
fn refused(output: &Output) -> String {
    let code = output.status.code();
    assert_eq!((code, text(&output.stdout)), (Some(1), ""));
    let stderr = text(&output.stderr).to_owned();
    assert!(stderr.starts_with("error: "), "{stderr}");
    stderr
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn mint<'a>(key: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["token", "mint", "--key", key, "--cluster", "api"];
    arguments.extend(["--max-weight", "200", "--ttl", "30d"]);
    arguments.extend(more);
    arguments
}

#[test]
fn a_generated_key_is_printed_alone_and_is_unique() {
    let [first, second] = [(); 2].map(|()| printed(&run(&["key", "generate"])));
    for key in [&first, &second] {
        assert_eq!(key.lines().count(), 1);
        assert_eq!(SecretKey::parse(key).unwrap().to_text(), *key);
    }
    assert_ne!(first, second);
}

#[test]
fn a_key_file_is_readable_by_its_owner_alone_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gossip.key");
    let arguments = ["key", "generate", "--out", path.to_str().unwrap()];
    assert_eq!(printed(&run(&arguments)), "");
    let key = std::fs::read_to_string(&path).unwrap();
    assert!(key.ends_with('\n') && SecretKey::parse(&key).is_ok());
    assert_eq!(mode(&path), 0o600);

    let error = refused(&run(&arguments));
    assert!(error.contains("gossip.key: File exists"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), key);

    // Nothing is written through a link either, wherever it points.
    let (link, target) = (dir.path().join("link"), dir.path().join("target"));
    symlink(&target, &link).unwrap();
    refused(&run(&["key", "generate", "--out", link.to_str().unwrap()]));
    assert!(!target.exists());
}

#[test]
fn a_token_is_minted_by_the_operator_that_proxies_know() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("operator");
    let name = name.to_str().unwrap();
    let make = || run(&["token", "operator", "--out", name]);
    assert_eq!(printed(&make()), "");
    let [key, public] = ["key", "pub"].map(|end| format!("{name}.{end}"));
    assert_eq!(mode(Path::new(&key)), 0o600);
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let (key_text, public_text) = (read(&key), read(&public));

    let error = refused(&make());
    assert!(error.contains("operator.key: File exists"), "{error}");
    std::fs::remove_file(&key).unwrap();
    let error = refused(&make());
    assert!(error.contains("operator.pub: File exists"), "{error}");
    assert!(!Path::new(&key).exists(), "half a pair was left");
    assert_eq!(read(&public), public_text);
    std::fs::write(&key, &key_text).unwrap();

    let cidrs = ["--cidr", "10.1.0.0/16", "--cidr", "fd00::/8"];
    let [first, second] = [(); 2].map(|()| printed(&run(&mint(&key, &cidrs))));
    assert_ne!(first, second);
    let credential = AgentCredential::parse(&first).unwrap();
    let token = credential.token();
    let authority = Authority::new(OperatorPublic::parse(&public_text).unwrap());
    let month = 30 * 86_400;
    assert_eq!(authority.verify_token(token, token.expires()), Ok(()));
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let made = token.expires() - month;
    assert!(
        (now - 600..=now).contains(&made),
        "{made} is not before {now}"
    );
    assert_eq!(
        token.permits("api", "10.1.2.3".parse().unwrap(), 200),
        Ok(())
    );
}

#[test]
fn a_token_file_is_readable_by_its_owner_alone_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (operator, token) = (path("operator"), path("agent.token"));
    printed(&run(&["token", "operator", "--out", &operator]));
    let operator = format!("{operator}.key");
    let arguments = mint(&operator, &["--cidr", "10.1.0.0/16", "--out", &token]);
    assert_eq!(printed(&run(&arguments)), "");
    let minted = std::fs::read_to_string(&token).unwrap();
    assert!(minted.ends_with('\n') && AgentCredential::parse(&minted).is_ok());
    assert_eq!(mode(Path::new(&token)), 0o600);
    let error = refused(&run(&arguments));
    assert!(error.contains("agent.token: File exists"), "{error}");
    assert_eq!(std::fs::read_to_string(&token).unwrap(), minted);
}

#[test]
fn what_cannot_start_is_not_valid_and_not_loaded() {
    let config = |keys: &str| {
        format!(
            "[[listener]]\naddress = '127.0.0.1:0'\ncluster = 'web'\n[cluster.web]\nbackends = ['127.0.0.1:9']\n\
             [gossip]\naddress = '127.87.1.1:7946'\n{keys}\n"
        )
    };
    let proxy = Proxy::start(&config(""));
    std::fs::write(proxy.dir().join("operator.pub"), "junk").unwrap();
    let path = proxy.dir().join("other.toml");
    for (keys, said) in [
        ("key_files = ['none.key']", "none.key: No such file"),
        (
            "token_key = 'operator.pub'",
            "operator.pub: it does not begin with",
        ),
    ] {
        std::fs::write(&path, config(keys)).unwrap();
        let path = path.to_str().unwrap();
        for arguments in [["check", path], ["--config", path]] {
            let output = run(&arguments);
            let stderr = text(&output.stderr);
            // A file may be checked on a machine without the secrets.
            let only_warned = arguments[0] == "check" && said.starts_with("none.key");
            let code = i32::from(!only_warned);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
            assert!(stderr.contains(said), "{arguments:?}: {stderr}");
            assert!(stderr.contains("other.toml:8:"), "{arguments:?}: {stderr}");
        }
        assert_eq!(proxy.reload(&config(keys)), Reload::Rejected);
        wait_until(PATIENCE, "the reload's log", || {
            let log = proxy.log();
            log.contains(said) && log.contains("lb.toml:8:")
        });
    }
}

#[test]
fn check_reports_everything_doubtful_about_a_new_operators_key_and_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    printed(&run(&["token", "operator", "--out", &path("operator")]));
    let (exposed, first) = ("operator.pub has mode 0664", "asked for no token");
    let config = format!(
        "state_dir = '{}'\n[[listener]]\naddress = '127.0.0.1:0'\ncluster = 'web'\n[cluster.web]\n\
         discover = {{ gossip = 'web' }}\n[gossip]\naddress = '127.87.1.1:7946'\ntoken_key = 'operator.pub'\n",
        path("state")
    );
    std::fs::write(path("lb.toml"), config).unwrap();
    for (mode, tokens, said) in [
        (0o644, "true", &[][..]),
        (0o664, "true", &[exposed]),
        (0o644, "false", &[first]),
        (0o664, "false", &[exposed, first]),
    ] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path("operator.pub"), mode).unwrap();
        let members = format!(
            r#"{{"version":1,"written":"","tokens":{tokens},"members":{{"web":[{{"address":"10.0.0.1:80","weight":1}}]}}}}"#
        );
        std::fs::write(path("lb.members.json"), members).unwrap();
        let output = run(&["check", &path("lb.toml")]);
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        for what in [exposed, first] {
            assert_eq!(stderr.contains(what), said.contains(&what), "{stderr}");
        }
    }
    assert!(!Path::new(&path("state")).exists());
}

#[test]
fn no_error_shows_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let gossip = printed(&run(&["key", "generate"]));
    let secret = gossip.strip_prefix("lbproxy-key-1.").unwrap();
    let operator = format!("lbproxy-operator-1.{secret}");
    let cidr = ["--cidr", "10.0.0.0/8"];
    for (what, key, expected) in [
        (
            "another kind",
            file("a", &gossip),
            "does not begin with `lbproxy-operator-1.`",
        ),
        (
            "cut",
            file("b", &operator[..operator.len() - 3]),
            "30 bytes long, not 32",
        ),
        (
            "padded",
            file("c", &format!("{operator}=")),
            "not base64url",
        ),
        (
            "twice",
            file("d", &format!("{operator}\n{operator}\n")),
            "more than one line",
        ),
        ("empty", file("e", "\n"), "it is empty"),
        (
            "no file",
            dir.path().join("f").to_str().unwrap().to_owned(),
            "No such file",
        ),
    ] {
        let error = refused(&run(&mint(&key, &cidr)));
        assert!(error.contains(expected), "{what}: {error}");
        assert!(!error.contains(&secret[..8]), "{what}: {error}");
    }
    // clap would repeat a value that it rejects.
    for arguments in [
        vec!["agent", "--seeds", &operator],
        vec!["agent", "--config", &operator],
        vec!["check", &operator],
        vec!["--config", &operator],
        vec![operator.as_str()],
        mint(&operator, &cidr),
    ] {
        let output = run(&arguments);
        let said = "error: a key or token was given as an argument";
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).starts_with(said), "{output:?}");
        let all = [output.stdout, output.stderr].concat();
        assert!(!text(&all).contains(&secret[..8]), "{arguments:?}");
    }
    let good = file("good", &operator);
    printed(&run(&mint(&good, &cidr)));
    for (cidr, expected) in [
        ("10.0.0.0/99", "expected a network such as"),
        ("10.0.0.1/8", "bits after the prefix"),
    ] {
        let error = refused(&run(&mint(&good, &["--cidr", cidr])));
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(&secret[..8]), "{error}");
    }
}
