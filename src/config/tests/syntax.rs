//! Texts that are not TOML: what is reported, and what is left out because it only follows from another error.

use super::{expect, report};

#[test]
fn single_mistakes() {
    expect(
        "workers = ",
        "1:11 error: no value after `=` | expected a value",
    );
    expect(
        "watch = yes",
        "1:9 error: \"yes\" is not a value | expected a number, true or false, or text in quotes",
    );
    expect("workers 2", "1:9 error: key with no value | expected `=`");
    expect(
        "workers = 1\nworkers = 2",
        "2:1 error: \"workers\" is given twice | expected each key and each table once",
    );
    expect(
        "log.level = \"info",
        "1:18 error: invalid basic string | expected `\"`",
    );
    expect("[admin\n", "1:7 error: unclosed table | expected `]`");
    expect(
        "log.level = \"in\u{1b}[2Jfo\"",
        "1:16 error: invalid basic string | expected non-double-quote visible characters, `\\`",
    );
}

#[test]
fn other_errors_are_reported_beside_them() {
    assert_eq!(
        report(
            "workers = \nwatch = 3\n[[listener]]\nadress = ':1'\n[[route]\nwatch = 3\n[cluster.a]\nx = 1\n[log]\nlevel = 'inf'\n"
        ),
        [
            "1:11 error: no value after `=` | expected a value",
            "2:9 error: `watch` is an integer | expected true or false, without quotes",
            "4:1 error: unknown key `adress` in [[listener]] | expected `name`, `address`, `protocol`, `cluster`, \
             `redirect`, `respond`, `errors`, \
             `trusted_proxies`, `via`, `expose_request_id`, `timeouts`, `limits` or `http_versions` | \
             did you mean `address`?",
            "5:9 error: unclosed array table | expected `]`",
            "10:9 error: `level` is \"inf\" | expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\" | \
             did you mean \"info\"?",
        ]
    );
}

#[test]
fn an_unclosed_bracket_is_reported_once() {
    let text = "workers = 0
[cluster.web]
backends = [\"a:1\", \"b:1\"
policy = \"x\"
[[route]]
path = \"/\"
[cluster.api]
backends = 3
";
    assert_eq!(
        report(text),
        [
            "1:11 error: `workers` is 0 | expected a whole number from 1 to 1024",
            "4:1 error: missing comma between array elements | expected `,`",
            "8:13 error: unclosed array | expected `]`",
        ]
    );
}

#[test]
fn only_the_first_error_of_a_long_text_is_reported() {
    let text = format!("workers = \nwatch = \n# {}\n", "x".repeat(1 << 20));
    assert_eq!(
        report(&text),
        ["1:11 error: no value after `=` | expected a value"]
    );
}
