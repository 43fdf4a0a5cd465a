//! Compares normal forms with those found by brute force, and a table with both.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::*;
use crate::route::rule::{PathPattern, Rule};
use crate::route::table::Table;
use crate::route::{Fields, RequestView};

fn normal_forms(path: &str) -> Option<BTreeSet<String>> {
    let mut found = BTreeSet::from([path.to_owned()]);
    all_normal_forms(path.as_bytes(), |form| {
        found.insert(String::from_utf8(form.to_vec()).unwrap());
        true
    })
    .then_some(found)
}

#[test]
fn normal_forms_of_single_features() {
    for (path, others) in [
        ("/", &[][..]),
        ("/a/b", &[]),
        ("/...", &[]),
        ("/.a/b.", &[]),
        ("/%252e", &[]),
        ("/%3F%23%25", &[]),
        ("/%", &[]),
        ("/%2", &[]),
        ("/%zz%20%C3%A9", &[]),
        ("/%c3%a9", &["/%C3%A9"]),
        ("/%61%3A", &["/a%3A", "/%61:", "/a:"]),
        ("/a%2fb", &["/a/b"]),
        ("/a\\b", &["/a/b"]),
        ("/a%5Cb", &["/a\\b", "/a/b"]),
        ("/a;b/c;/d", &["/a/c/d"]),
        ("/a%3Bb/c", &["/a;b/c", "/a/c"]),
        ("/a/./b", &["/a/b"]),
        ("/a/.", &["/a/"]),
        ("/a/b/..", &["/a/"]),
        ("/../../b", &["/b"]),
        ("/%2e/b", &["/./b", "/b"]),
        ("//a///b/", &["/a/b/"]),
        ("/a//", &["/a/"]),
        ("/a//../b", &["/a/../b", "/a/b", "/b"]),
        ("/a/;x/b", &["/a//b", "/a/b"]),
    ] {
        let mut expected: BTreeSet<String> = others.iter().map(|&o| o.to_owned()).collect();
        expected.insert(path.to_owned());
        // Some subsets change nothing: `%2e/b` with dots resolved but not decoded is the path itself.
        assert_eq!(normal_forms(path), Some(expected), "{path}");
    }
}

#[test]
fn paths_without_features_have_no_other_form() {
    for path in short_paths("/", 3) {
        if !may_have_other_forms(path.as_bytes()) {
            assert_eq!(normal_forms(&path), Some(BTreeSet::from([path.clone()])));
        }
    }
}

const PARTS: [&str; 11] = [
    "/", "admin", "x", "%2F", "%5c", "\\", ";", "..", "%2e", "%61dmin", "%3B",
];

/// All paths of up to `limit` parts after `start`.
fn short_paths(start: &str, limit: u32) -> Vec<String> {
    let mut paths = vec![start.to_owned()];
    let mut from = 0;
    for _ in 0..limit {
        let to = paths.len();
        for at in from..to {
            let longer = PARTS.map(|part| format!("{}{part}", paths[at]));
            paths.extend(longer);
        }
        from = to;
    }
    paths
}

fn stripped(path: &str) -> String {
    let segments = path.split('/').map(|s| s.split(';').next().unwrap());
    segments.collect::<Vec<_>>().join("/")
}

fn without_runs(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

fn without_dots(path: &str) -> String {
    let mut stack: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in path[1..].split('/') {
        open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                stack.pop();
            }
            _ => stack.push(segment),
        }
    }
    if open {
        stack.push("");
    }
    format!("/{}", stack.join("/"))
}

/// The replacements of decoding; an escaped backslash becomes a `/` only after it is decoded.
const STEPS: [&[(&str, &str)]; 5] = [
    &[("%2F", "/")],
    &[("%3B", ";")],
    &[("%61", "a"), ("%2e", ".")],
    &[("%5c", "\\")],
    &[("\\", "/")],
];
const ESCAPED_BACKSLASH_STEP: u8 = 1 << 3;
const BACKSLASH_STEP: u8 = 1 << 4;
const ALL_STEPS: u8 = (1 << STEPS.len()) - 1;

/// Applies some of the steps that are `left`, in any order, and strips parameters before, between or after them.
fn apply_steps(path: &str, left: u8, found: &mut BTreeSet<(String, u8)>) {
    if !found.insert((path.to_owned(), left)) {
        return;
    }
    apply_steps(&stripped(path), left, found);
    for (bit, replaced) in STEPS.iter().enumerate() {
        let step = 1 << bit;
        if left & step == 0 || !replaced.iter().any(|(from, _)| path.contains(from)) {
            continue;
        }
        let replace = |path: String, (from, to): &(&str, &str)| path.replace(from, to);
        let decoded = replaced.iter().fold(path.to_owned(), replace);
        let done = match step {
            BACKSLASH_STEP => BACKSLASH_STEP | ESCAPED_BACKSLASH_STEP,
            _ => step,
        };
        apply_steps(&decoded, left & !done, found);
    }
}

/// Every normal form, applying one normalization after another.
fn by_brute_force(path: &str) -> BTreeSet<String> {
    let mut steps = BTreeSet::new();
    apply_steps(path, ALL_STEPS, &mut steps);
    let mut found: BTreeSet<String> = steps.into_iter().map(|(path, _)| path).collect();
    let decoded: Vec<String> = found.iter().cloned().collect();
    for path in decoded {
        found.insert(without_runs(&path));
        found.insert(without_dots(&path));
        found.insert(without_dots(&without_runs(&path)));
        found.insert(without_runs(&without_dots(&path)));
    }
    found
}

/// Whether the order of stripping parameters and decoding matters.
fn is_order_dependent(path: &str) -> bool {
    let is_split = |segment: &str| {
        let mut parts = segment.split(';').flat_map(|part| part.split("%3B"));
        let _before = parts.next();
        parts.any(|part| ["%2F", "%5c", "\\"].iter().any(|text| part.contains(text)))
    };
    path.contains(';') && path.contains("%3B") || path.split('/').any(is_split)
}

/// A path with all its normal forms.
struct ShortPath {
    path: String,
    forms: BTreeSet<String>,
    /// Whether it is always ambiguous: any form has a dot segment together with a feature that splits segments, or the
    /// order of normalizations matters.
    always_ambiguous: bool,
}

static SHORT_PATHS: LazyLock<Vec<ShortPath>> = LazyLock::new(|| {
    let normalize = |path: String| {
        let forms = by_brute_force(&path);
        let splits = ["%2F", "%5c", "\\", ";", "%3B"]
            .iter()
            .any(|text| path.contains(text));
        let is_dots = |segment| matches!(segment, "." | "..");
        let has_dots = forms.iter().any(|p| p.split('/').any(is_dots));
        ShortPath {
            always_ambiguous: splits && has_dots || is_order_dependent(&path),
            path,
            forms,
        }
    };
    let mut paths = short_paths("/", 4);
    paths.extend(short_paths("/;", 4));
    paths.into_iter().map(normalize).collect()
});

#[test]
fn all_normal_forms_are_those_of_brute_force() {
    for short in SHORT_PATHS.iter() {
        let expected = (!short.always_ambiguous).then(|| short.forms.clone());
        assert_eq!(normal_forms(&short.path), expected, "{}", short.path);
    }
}

struct NoFields;

fn request(path: &str) -> RequestView<'_> {
    RequestView {
        method: b"GET",
        host: b"a",
        path: path.as_bytes(),
        query: None,
        client: None,
        fields: &NoFields,
    }
}

impl Fields for NoFields {
    fn any_value(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

#[test]
fn no_normal_form_of_a_forwarded_path_matches_another_rule() {
    let rule = |path| Rule {
        hosts: Vec::new(),
        paths: vec![path],
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
        clients: Vec::new(),
        target: (),
    };
    let table = Table::new(vec![
        rule(PathPattern::Below("/admin".to_owned())),
        rule(PathPattern::Exact("/x".to_owned())),
    ]);
    let matched = |path: &str| table.find(&request(path)).map(|(index, ())| index);
    let (mut restricted, mut refused, mut served) = (0, 0, 0);
    for short in SHORT_PATHS.iter() {
        let path = &short.path;
        let own = matched(path);
        let all_agree = short.forms.iter().all(|p| matched(p) == own);
        if table.is_ambiguous(&request(path)) {
            refused += 1;
            assert!(
                !all_agree || short.always_ambiguous,
                "{path}: refused without need"
            );
        } else {
            assert!(all_agree, "{path}: bypasses a rule");
            restricted += usize::from(own == Some(0));
            served += usize::from(own != Some(0));
        }
    }
    assert!(
        restricted > 100 && refused > 100 && served > 100,
        "{restricted} {refused} {served}"
    );
}

#[test]
fn the_work_for_one_path_is_bounded() {
    let odd = "%2F%5C%61%3A//%3B";
    for length in [odd.len(), 200, 1 << 10, 8 << 10, 1 << 20] {
        let path = format!("/{odd}{}", "/x".repeat(length / 2));
        let mut bytes = 0;
        let whole = all_normal_forms(path.as_bytes(), |form| {
            bytes += form.len();
            true
        });
        assert!(bytes <= WORK, "{bytes} for {length}");
        assert_eq!(whole, path.len() << 8 <= WORK, "{length}");
    }
    let long = format!("/{}", "a%2Fb".repeat(1600));
    assert!(
        all_normal_forms(long.as_bytes(), |_| true),
        "one feature is ordinary"
    );
    let dots = format!("/{}", "../".repeat(100_000));
    assert!(!all_normal_forms(dots.as_bytes(), |_| true));
}
