//! Texts that are no TOML: what is told, and what is left out because it only follows.

use super::{said, says};

#[test]
fn single_mistakes() {
    says(
        "workers = ",
        "1:11 error: no value after `=` | expected a value",
    );
    says(
        "watch = yes",
        "1:9 error: \"yes\" is not a value | expected a number, true or false, or text in quotes",
    );
    says("workers 2", "1:9 error: key with no value | expected `=`");
    says(
        "workers = 1\nworkers = 2",
        "2:1 error: \"workers\" is given twice | expected each key and each table once",
    );
    says(
        "log.level = \"info",
        "1:18 error: invalid basic string | expected `\"`",
    );
    says("[admin\n", "1:7 error: unclosed table | expected `]`");
    says(
        "log.level = \"in\u{1b}[2Jfo\"",
        "1:16 error: invalid basic string | expected non-double-quote visible characters, `\\`",
    );
}

#[test]
fn other_errors_are_told_beside_them() {
    assert_eq!(
        said(
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
fn an_open_bracket_is_told_once() {
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
        said(text),
        [
            "1:11 error: `workers` is 0 | expected a whole number from 1 to 1024",
            "4:1 error: missing comma between array elements | expected `,`",
            "8:13 error: unclosed array | expected `]`",
        ]
    );
}

#[test]
fn of_a_long_text_the_first_error_is_told() {
    let text = format!("workers = \nwatch = \n# {}\n", "x".repeat(1 << 20));
    assert_eq!(
        said(&text),
        ["1:11 error: no value after `=` | expected a value"]
    );
}
