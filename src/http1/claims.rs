//! Fields with which a client could claim an address, a user, a certificate, a scheme, a host, a path or a method,
//! where a server or a framework trusts the field more than the connection and the request line.
//!
//! The list is compiled from what reads or writes such fields: CDNs and clouds (Akamai, Alibaba, AWS, Azure,
//! Cloudflare, DigitalOcean, EdgeOne, Fastly, Fly, Google, Imperva, Netlify, Shopify, Sucuri, Vercel), proxies and
//! their authenticators (Envoy, nginx and its ingress, IIS with ARR, NetScaler, Traefik, Zeus, oauth2-proxy, Authelia,
//! authentik, Pomerium, Vouch, SiteMinder, Tailscale), and the servers and frameworks that read them (ASP.NET, Django,
//! Flask, gunicorn, Grafana, Kubernetes, Next.js, Rack, Rails, Slim, Symfony, Tomcat, WebLogic, WebSphere).
//!
//! Fields that a client may set itself are not listed: credentials (`Authorization`, `Cookie`, `CF-Access-Client-Id`),
//! trace and request ids, `X-Requested-With`, `X-Client-Data`, `CDN-Loop`, `Via`.

/// The names in lower case. A final `*` stands for at least one more byte. A name that has `_` or `$` in place of `-`
/// is commonly spelled that way.
pub(super) const CLAIMS: &[&str] = &[
    // Addresses of clients.
    "akamai-client-ip",
    "ali-cdn-real-*",
    "cdn-client-ip",
    "cdn-real-ip",
    "cdn-src-ip",
    "cf-connecting-*",
    "cf-ip*",
    "cf-pseudo-ipv4",
    "client-ip",
    "cloudfront-*",
    "do-connecting-ip",
    "eo-client-ip",
    "eo-connecting-ip",
    "fastly-client",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded-*",
    "http-client-ip",
    "http-x-forwarded-*",
    "incap-client-ip",
    "ns-client-ip",
    "oxygen-buyer-ip",
    "proxy-client-ip",
    "remote-*",
    "true-client-ip",
    "wl-proxy-*",
    "x-appengine-*",
    "x-azure-*",
    "x-cdn-real-ip",
    "x-cdn-src-ip",
    "x-client-ip",
    "x-client-port",
    "x-cluster-client-ip",
    "x-envoy-*",
    "x-forward-*",
    "x-forwarded",
    "x-nf-client-connection-ip",
    "x-ns-client-ip",
    "x-original-client-ip",
    "x-original-for",
    "x-original-forwarded-*",
    "x-original-remote-*",
    "x-originating-ip",
    "x-proxy-client-ip",
    "x-proxyuser-ip",
    "x-real-*",
    "x-remote-*",
    "x-sucuri-*",
    "x-vercel-forwarded-for",
    "x-vercel-ip-*",
    "x-vercel-proxied-for",
    // Users, as set by an authenticating proxy.
    "cf-access-authenticated-*",
    "sm_universalid",
    "sm_user",
    "sm_userdn",
    "tailscale-user-*",
    "x-amzn-oidc-*",
    "x-auth-request-*",
    "x-authenticated-*",
    "x-authentik-*",
    "x-goog-authenticated-user-*",
    "x-ms-client-principal",
    "x-ms-client-principal-*",
    "x-ms-token-*",
    "x-pomerium-claim-*",
    "x-proxy-remote-*",
    "x-proxy-user",
    "x-vouch-*",
    "x-webauth-*",
    // Certificates and TLS.
    "$ws*",
    "cf-client-cert-*",
    "client-cert",
    "client-cert-chain",
    "ssl_*",
    "tls-client-*",
    "x-amzn-mtls-*",
    "x-amzn-tls-*",
    "x-arr-*",
    "x-client-cert",
    "x-client-cert-*",
    "x-client-certificate",
    "x-client-dn",
    "x-client-fingerprint",
    "x-client-i-dn",
    "x-client-issuer",
    "x-client-issuer-*",
    "x-client-s-dn",
    "x-client-serial",
    "x-client-subject",
    "x-client-subject-*",
    "x-client-verified",
    "x-client-verify",
    "x-ssl",
    "x-ssl-*",
    "x-tls-*",
    // Schemes.
    "cf-visitor",
    "fastly-ssl",
    "fly-forwarded-*",
    "front-end-https",
    "https",
    "x-appservice-proto",
    "x-https",
    "x-original-port",
    "x-original-proto",
    "x-original-scheme",
    "x-proto",
    "x-scheme",
    "x-url-scheme",
    // Hosts.
    "disguised-host",
    "x-host",
    "x-host-override",
    "x-http-host-override",
    "x-original-host",
    // Paths and their handling.
    "path_info",
    "script_name",
    "unencoded_url",
    "x-accel-mapping",
    "x-http-path-override",
    "x-invoke-*",
    "x-matched-path",
    "x-middleware-subrequest",
    "x-middleware-subrequest-id",
    "x-original-path",
    "x-original-prefix",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-replaced-path",
    "x-rewrite-uri",
    "x-rewrite-url",
    "x-script-name",
    "x-sendfile-type",
    "x-waws-unencoded-url",
    // Methods.
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
];

/// How a name matches the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// The name is on the list, in its usual spelling.
    Known,
    /// The name is on the list except that it has other token characters in place of `-`.
    Lookalike,
}

/// Looks `name` up in the list, in any case and with any token character for `-`. Its first two letters (after `x-`,
/// the next two) leave at most a handful of entries to compare with, and for ordinary fields nearly always none.
#[inline]
pub(super) fn claim(name: &[u8]) -> Option<Claim> {
    let (first, last) = STARTS[slot(name)?];
    if first == last {
        return None;
    }
    find(name, &SORTED[usize::from(first)..usize::from(last)])
}

#[cold]
fn find(name: &[u8], entries: &[&str]) -> Option<Claim> {
    let mut entries = entries.iter().map(|entry| entry.as_bytes());
    let entry = entries.find(|entry| matches(name, entry))?;
    Some(match has_usual_spelling(name, entry) {
        true => Claim::Known,
        false => Claim::Lookalike,
    })
}

/// Whether `name` is `entry`, in any case and with any token character for `-`.
fn matches(name: &[u8], entry: &[u8]) -> bool {
    let start = match entry {
        [start @ .., b'*'] if name.len() > start.len() => start,
        whole if name.len() == whole.len() => whole,
        _ => return false,
    };
    // Entries of one slot begin alike, so a comparison from the end stops sooner.
    let mut pairs = name[..start.len()].iter().zip(start).rev();
    pairs.all(|(a, b)| fold(*a) == fold(*b))
}

/// Whether the characters of `name` that are neither letters nor digits are all `-`, or all the one that `entry` has.
fn has_usual_spelling(name: &[u8], entry: &[u8]) -> bool {
    let separator = match entry.iter().find(|b| matches!(b, b'_' | b'$')) {
        Some(&byte) => byte,
        None => b'-',
    };
    let all = |wanted: u8| {
        let mut others = name.iter().filter(|b| !b.is_ascii_alphanumeric());
        others.all(|b| *b == wanted)
    };
    all(b'-') || all(separator)
}

fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// Slots of the index: two letters of 5 bits each, once for names that begin with `x-` and once for all others.
const SLOTS: usize = 2 * 1024;

const fn slot(name: &[u8]) -> Option<usize> {
    let (base, a, b) = match name {
        [b'x' | b'X', _, a, b, ..] => (1024, *a, *b),
        [a, b, ..] => (0, *a, *b),
        _ => return None,
    };
    Some(base | ((a & 31) as usize) << 5 | (b & 31) as usize)
}

const fn slot_of(place: usize) -> usize {
    match slot(CLAIMS[place].as_bytes()) {
        Some(slot) => slot,
        None => panic!("a name has at least two bytes"),
    }
}

/// [`CLAIMS`] ordered by slot.
static SORTED: [&str; CLAIMS.len()] = {
    let mut order = [0; CLAIMS.len()];
    let mut place = 0;
    while place < order.len() {
        let mut at = place;
        while at > 0 && slot_of(order[at - 1]) > slot_of(place) {
            order[at] = order[at - 1];
            at -= 1;
        }
        order[at] = place;
        place += 1;
    }
    let mut sorted = [""; CLAIMS.len()];
    let mut at = 0;
    while at < order.len() {
        sorted[at] = CLAIMS[order[at]];
        at += 1;
    }
    sorted
};

/// The range of each slot in [`SORTED`]: first entry, and one past the last.
static STARTS: [(u8, u8); SLOTS] = {
    assert!(CLAIMS.len() <= u8::MAX as usize);
    let mut starts = [(0, 0); SLOTS];
    let mut at = 0;
    while at < CLAIMS.len() {
        let slot = match slot(SORTED[at].as_bytes()) {
            Some(slot) => slot,
            None => panic!("a name has at least two bytes"),
        };
        if starts[slot].1 == 0 {
            starts[slot].0 = at as u8;
        }
        at += 1;
        starts[slot].1 = at as u8;
    }
    starts
};

#[cfg(test)]
mod tests {
    use super::super::field::{TrailerAction, is_token_byte, trailer_action};
    use super::*;

    fn example(entry: &str) -> String {
        entry.replace('*', "a-b")
    }

    #[test]
    fn every_entry_is_found_in_every_spelling() {
        let tokens = (0..=u8::MAX).filter(|b| is_token_byte(*b) && !b.is_ascii_alphanumeric());
        let tokens: Vec<char> = tokens.map(char::from).collect();
        // WebSphere wants its `$` and accepts nothing in its place.
        let (dollar, others): (Vec<_>, Vec<_>) = CLAIMS.iter().partition(|e| e.starts_with('$'));
        assert_eq!(dollar.len(), 1);
        assert_eq!(claim(b"$WSRA"), Some(Claim::Known));
        for entry in others {
            let name = example(entry);
            let spelled = |by: char| name.replace(['-', '_'], &by.to_string());
            let plain = spelled('-');
            assert_eq!(claim(plain.as_bytes()), Some(Claim::Known), "{plain}");
            assert_eq!(claim(plain.to_uppercase().as_bytes()), Some(Claim::Known));
            for &by in &tokens {
                let odd = spelled(by);
                let known = if odd == plain || entry.contains(by) && by != '*' && by != '-' {
                    Claim::Known
                } else {
                    Claim::Lookalike
                };
                assert_eq!(claim(odd.as_bytes()), Some(known), "{odd}");
            }
            for other in [format!("a{plain}"), plain[..plain.len() - 4].to_owned()] {
                let is_other = !CLAIMS.contains(&other.as_str());
                assert!(
                    !is_other || claim(other.as_bytes()).is_none() || entry.contains('*'),
                    "{other}"
                );
            }
            assert_eq!(
                trailer_action(plain.as_bytes()),
                TrailerAction::Drop,
                "{plain}"
            );
        }
        assert_eq!(claim(b"ssl_client-cert"), Some(Claim::Lookalike));
        assert_eq!(claim(b"SSL_CLIENT_CERT"), Some(Claim::Known));
    }

    #[test]
    fn a_prefix_alone_does_not_match() {
        for entry in CLAIMS.iter().filter_map(|entry| entry.strip_suffix('*')) {
            let found = claim(entry.as_bytes());
            assert!(found.is_none() || CLAIMS.contains(&entry), "{entry}");
        }
    }

    #[test]
    fn fields_that_a_client_may_set_do_not_match() {
        for name in [
            "Accept",
            "Accept-Encoding",
            "Accept-Language",
            "Authorization",
            "Baggage",
            "Cache-Control",
            "CDN-Loop",
            "CF-Access-Client-Id",
            "CF-Access-Client-Secret",
            "CF-Access-Jwt-Assertion",
            "CF-Ray",
            "Client-Version",
            "Content-Type",
            "Cookie",
            "DNT",
            "Destination",
            "Forwarded-",
            "Front-End",
            "HTTPS-Only",
            "Idempotency-Key",
            "If-Match",
            "Last-Event-ID",
            "Max-Forwards",
            "Origin",
            "Pragma",
            "Priority",
            "Range",
            "Referer",
            "Remote",
            "SOAPAction",
            "SSL",
            "Sec-Fetch-Mode",
            "Sec-WebSocket-Key",
            "Traceparent",
            "Upgrade-Insecure-Requests",
            "User-Agent",
            "Via",
            "X",
            "X-",
            "X-Amz-Date",
            "X-Amzn-Trace-Id",
            "X-API-Key",
            "X-Auth-Token",
            "X-B3-TraceId",
            "X-Client",
            "X-Client-Data",
            "X-Client-Request-Id",
            "X-Client-Version",
            "X-Correlation-Id",
            "X-CSRF-Token",
            "X-Forward",
            "X-GitHub-Event",
            "X-Hub-Signature-256",
            "X-Middleware-Prefetch",
            "X-MS-Client-Request-Id",
            "X-Original-Filename",
            "X-Original",
            "X-Requested-With",
            "X-Request-Start",
            "X-Socket-Id",
            "X-SSLx",
            "X-Upload-Content-Type",
            "X-Vercel-Protection-Bypass",
            "XClient-IP",
            "_",
            "$",
            "",
        ] {
            assert_eq!(claim(name.as_bytes()), None, "{name}");
        }
    }
}
