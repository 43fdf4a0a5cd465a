//! Addresses of the file, and what to write instead of one that is wrong. People write the forms of other programs
//! (`http://…`, `8080`, `*:8080`, `localhost:8080`, `10.0.0.1:80 weight=3`). A message suggests a form only if that is
//! an address itself.

use std::fmt::Display;
use std::str::FromStr;

use crate::model::address::{AddressError, BackendAddress, BindAddress, ListenAddress};

/// Schemes that mean TLS.
const TLS_SCHEMES: [&str; 5] = ["https", "wss", "grpcs", "tls", "ssl"];
/// Schemes whose default port is 80.
const PORT_80: [&str; 2] = ["http", "ws"];

/// An address that the proxy listens on. Examples in messages have `port`.
///
/// # Errors
/// What was expected, and how it is written.
pub(crate) fn listen(text: &str, port: u16) -> Result<BindAddress, String> {
    text.parse()
        .map_err(|error| why_not_listen(text, error, port))
}

/// The address of an admin server.
///
/// # Errors
/// What was expected, and how it is written.
pub(crate) fn admin(text: &str) -> Result<BindAddress, String> {
    listen(text, 9900)
}

/// An address to connect to.
///
/// # Errors
/// What was expected, and how it is written.
pub(crate) fn backend(text: &str) -> Result<BackendAddress, String> {
    text.parse().map_err(|error| why_not_backend(text, error))
}

fn why_not_listen(text: &str, error: AddressError, port: u16) -> String {
    if text.starts_with("unix:") {
        return error.to_string();
    }
    if let Ok(port) = text.parse::<u16>() {
        return format!(
            "expected an address before the port: write \":{port}\" for all addresses, or \"127.0.0.1:{port}\" for this machine alone"
        );
    }
    if let Some((_, rest)) = text.split_once("://") {
        return match rest.trim_end_matches('/').parse::<ListenAddress>() {
            Ok(address) => {
                format!("expected an address without a scheme: write \"{address}\"")
            }
            Err(_) => format!("expected an address without a scheme, such as \":{port}\""),
        };
    }
    match (&error, text.rsplit_once(':')) {
        (AddressError::NameForListener(host), Some((_, port))) => match host.as_str() {
            "*" => format!("\"*\" is not an address: write \":{port}\" for all addresses"),
            "localhost" => format!(
                "expected an IP address, not a name: write \"127.0.0.1:{port}\", or \"[::1]:{port}\" for IPv6"
            ),
            _ => format!(
                "expected an IP address of this machine, not a name: write it as \"10.0.0.5:{port}\", or \":{port}\" for all addresses"
            ),
        },
        (AddressError::MissingPort(_), _) => without_port(text, port),
        _ => other::<ListenAddress>(text, error, 0),
    }
}

fn why_not_backend(text: &str, error: AddressError) -> String {
    if text.starts_with("unix:") {
        return error.to_string();
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return without_scheme(scheme, rest);
    }
    // nginx and HAProxy write the options of a server after its address.
    if let Some(address) = text.split_whitespace().next().and_then(known)
        && text.contains(char::is_whitespace)
    {
        return match text.trim() == text {
            true => format!(
                "expected nothing after the address; its weight is written {{ address = \"{address}\", weight = 3 }}"
            ),
            false => format!("expected no blanks: write \"{address}\""),
        };
    }
    match error {
        AddressError::MissingPort(_) | AddressError::EmptyHost
            if text.trim_start_matches(':').parse::<u16>().is_ok() =>
        {
            let port = text.trim_start_matches(':');
            format!("expected an address or a name before the port, as in \"10.0.0.1:{port}\"")
        }
        AddressError::MissingPort(_) => without_port(text, 8080),
        error => other::<BackendAddress>(text, error, 1),
    }
}

/// The address of a backend, alone or before a path.
fn known(text: &str) -> Option<BackendAddress> {
    text.split('/').next().unwrap_or_default().parse().ok()
}

fn without_scheme(scheme: &str, rest: &str) -> String {
    let scheme = scheme.to_ascii_lowercase();
    if TLS_SCHEMES.contains(&scheme.as_str()) {
        return "TLS to backends is not supported yet; expected the address of a plaintext port, such as \"10.0.0.1:8080\"".to_owned();
    }
    let what = match rest.trim_end_matches('/').contains('/') {
        true => "expected an address without a scheme and a path",
        false => "expected an address without a scheme",
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let with_default = || {
        PORT_80
            .contains(&scheme.as_str())
            .then(|| known(&format!("{authority}:80")))?
    };
    match known(authority).or_else(with_default) {
        Some(address) => format!("{what}: write \"{address}\""),
        None => format!("{what}, such as \"10.0.0.1:8080\""),
    }
}

/// Suggests the text with a port, if that makes it an address.
fn without_port(text: &str, port: u16) -> String {
    let full = format!("{text}:{port}");
    match full.parse::<BackendAddress>() {
        Ok(_) => format!("expected a port, as in \"{full}\""),
        Err(AddressError::MissingPort(_)) => AddressError::BareV6.to_string(),
        Err(_) => format!("expected an address with its port, such as \"127.0.0.1:{port}\""),
    }
}

fn other<A: FromStr + Display>(text: &str, error: AddressError, least: u16) -> String {
    if let Some((Ok(address), _)) = text
        .split_once('/')
        .map(|(address, path)| (address.parse::<A>(), path))
    {
        return format!("expected an address without a path: write \"{address}\"");
    }
    match error {
        AddressError::BadPort(_) => format!("{error}; expected a number from {least} to 65535"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_for_a_listener() {
        for (text, expected) in [
            (
                "8080",
                "expected an address before the port: write \":8080\" for all addresses, or \"127.0.0.1:8080\" for this machine alone",
            ),
            (
                "localhost:8080",
                "expected an IP address, not a name: write \"127.0.0.1:8080\", or \"[::1]:8080\" for IPv6",
            ),
            (
                "*:8080",
                "\"*\" is not an address: write \":8080\" for all addresses",
            ),
            (
                "lb.example.com:80",
                "expected an IP address of this machine, not a name: write it as \"10.0.0.5:80\", or \":80\" for all addresses",
            ),
            (
                "http://0.0.0.0:80/",
                "expected an address without a scheme: write \"0.0.0.0:80\"",
            ),
            (
                "http://:80",
                "expected an address without a scheme: write \":80\"",
            ),
            (
                "https://example.com",
                "expected an address without a scheme, such as \":9900\"",
            ),
            (
                "127.0.0.1:80/",
                "expected an address without a path: write \"127.0.0.1:80\"",
            ),
            ("127.0.0.1", "expected a port, as in \"127.0.0.1:9900\""),
            ("[::1]", "expected a port, as in \"[::1]:9900\""),
            (
                "[::1:80",
                "an IPv6 address is written in brackets, as in \"[::1]:8080\"",
            ),
            (
                "::1",
                "an IPv6 address is written in brackets, as in \"[::1]:8080\"",
            ),
            (
                "",
                "expected an address with its port, such as \"127.0.0.1:9900\"",
            ),
            (
                "a b",
                "expected an address with its port, such as \"127.0.0.1:9900\"",
            ),
            (":", "\"\" is not a port; expected a number from 0 to 65535"),
            (
                ":http",
                "\"http\" is not a port; expected a number from 0 to 65535",
            ),
            (
                ":99999",
                "\"99999\" is not a port; expected a number from 0 to 65535",
            ),
            (
                "99999",
                "expected an address with its port, such as \"127.0.0.1:9900\"",
            ),
            (
                "10.0.0.256:80",
                "\"10.0.0.256\" is neither an IP address nor a host name",
            ),
        ] {
            assert_eq!(listen(text, 9900).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn suggestions_for_a_backend() {
        for (text, expected) in [
            (
                "http://10.0.0.1:8080",
                "expected an address without a scheme: write \"10.0.0.1:8080\"",
            ),
            (
                "http://Web.Internal/",
                "expected an address without a scheme: write \"web.internal:80\"",
            ),
            (
                "HTTP://[::1]/",
                "expected an address without a scheme: write \"[::1]:80\"",
            ),
            (
                "http://10.0.0.1:8080/app/",
                "expected an address without a scheme and a path: write \"10.0.0.1:8080\"",
            ),
            (
                "tcp://10.0.0.1:5432",
                "expected an address without a scheme: write \"10.0.0.1:5432\"",
            ),
            (
                "tcp://10.0.0.1",
                "expected an address without a scheme, such as \"10.0.0.1:8080\"",
            ),
            (
                "http://me:secret@a/",
                "expected an address without a scheme, such as \"10.0.0.1:8080\"",
            ),
            (
                "http://",
                "expected an address without a scheme, such as \"10.0.0.1:8080\"",
            ),
            (
                "https://10.0.0.1",
                "TLS to backends is not supported yet; expected the address of a plaintext port, such as \"10.0.0.1:8080\"",
            ),
            (
                "8080",
                "expected an address or a name before the port, as in \"10.0.0.1:8080\"",
            ),
            (
                ":8080",
                "expected an address or a name before the port, as in \"10.0.0.1:8080\"",
            ),
            ("10.0.0.1", "expected a port, as in \"10.0.0.1:8080\""),
            (
                "web.internal",
                "expected a port, as in \"web.internal:8080\"",
            ),
            (
                "[::1",
                "an IPv6 address is written in brackets, as in \"[::1]:8080\"",
            ),
            (
                "10.0.0.1:80/app",
                "expected an address without a path: write \"10.0.0.1:80\"",
            ),
            (
                "10.0.0.1:80 weight=3",
                "expected nothing after the address; its weight is written { address = \"10.0.0.1:80\", weight = 3 }",
            ),
            (" 10.0.0.1:80", "expected no blanks: write \"10.0.0.1:80\""),
            (
                "10.0.0.1:0",
                "\"0\" is not a port; expected a number from 1 to 65535",
            ),
            (
                "10.0.0.1:80-90",
                "\"80-90\" is not a port; expected a number from 1 to 65535",
            ),
            ("*:80", "\"*\" is neither an IP address nor a host name"),
            (
                "",
                "expected an address with its port, such as \"127.0.0.1:8080\"",
            ),
        ] {
            assert_eq!(backend(text).unwrap_err(), expected, "{text}");
        }
    }

    proptest::proptest! {
        /// A suggested form is an address of the kind that was expected.
        #[test]
        fn a_suggested_form_is_accepted(
            scheme in "(http://|tcp://|https://)?", host in "(\\*|localhost|10.0.0.1|\\[::1\\]|web.internal|)",
            port in "(:?[0-9]{0,5})", rest in "(/|/a/b| weight=3|)",
        ) {
            let text = format!("{scheme}{host}{port}{rest}");
            let suggested = |why: &str| Some(why.split_once("write \"")?.1.split_once('"')?.0.to_owned());
            if let Some(form) = listen(&text, 80).err().and_then(|why| suggested(&why)) {
                proptest::prop_assert!(listen(&form, 80).is_ok(), "{} -> {}", text, form);
            }
            if let Some(form) = backend(&text).err().and_then(|why| suggested(&why)) {
                proptest::prop_assert!(backend(&form).is_ok(), "{} -> {}", text, form);
            }
        }
    }
}
