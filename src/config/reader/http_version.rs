//! The rule that HTTP/1.1 is the only version so far. Nothing is kept of `http_version` and `http_versions`: both only
//! give a file that asks for HTTP/2 an answer that is better than an unknown key.

use super::{NamedValue, Reader, Setting};

/// Reports a version that is not supported.
pub(super) fn require_1_1(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) {
    r.parsed(value, |text| match text {
        "1.1" => Ok(()),
        "2" => Err("HTTP/2 is not supported yet; expected \"1.1\"".to_owned()),
        _ => Err("expected \"1.1\"".to_owned()),
    });
}

/// Reports each version of an array that is not supported, and an empty array.
pub(super) fn require_only_1_1(r: &mut Reader<'_>, setting: Setting<'_>) {
    r.filled_list(setting, |r, version| {
        require_1_1(r, Some(version));
        Some(())
    });
}
