//! A request as its backend will see it. Routes and hash keys look at this and at nothing else: a field that stays
//! behind is not there for them either, so that no client can meet a rule with what the backend never hears of.

use std::net::IpAddr;

use crate::balance::hash_key;
use crate::http1::field::{FieldName, trim};
use crate::http1::head::Field;
use crate::http1::request::RequestHead;
use crate::model::settings::HashKey;
use crate::proxy::pick::client_key;
use crate::route::Fields;
use crate::snapshot::Cluster;

/// A head that was understood, with its fields.
#[derive(Clone, Copy)]
pub struct ForwardedRequest<'b> {
    /// The head.
    pub head: &'b RequestHead<'b>,
    /// The bytes that it and its fields point into.
    pub buffer: &'b [u8],
    /// Its fields.
    pub fields: &'b [Field],
    /// Whether the peer is a trusted proxy.
    pub trusted: bool,
}

impl<'b> ForwardedRequest<'b> {
    /// The values that go on under `name`, in order.
    fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        let request = *self;
        let host = request
            .head
            .host
            .filter(|_| name.eq_ignore_ascii_case("host"));
        let named = request.fields.iter().filter(move |field| {
            let known = field.name_in(request.buffer);
            known.eq_ignore_ascii_case(name.as_bytes()) && request.goes_on(field)
        });
        host.into_iter()
            .chain(named.map(move |field| field.value_in(request.buffer)))
    }

    /// Whether the backend gets the field, or what we write in its place.
    fn goes_on(&self, field: &Field) -> bool {
        match field.name {
            FieldName::Other => !field.hop_by_hop,
            FieldName::ContentLength | FieldName::TransferEncoding => true,
            FieldName::Expect => self.head.expects_continue,
            FieldName::Upgrade => self.head.wants_upgrade,
            FieldName::ForwardedFor
            | FieldName::ForwardedProto
            | FieldName::ForwardedHost
            | FieldName::RequestId
            | FieldName::OtherForwarding => self.trusted,
            // Host is what is forwarded as such, whichever form of target it came from.
            FieldName::Host
            | FieldName::Connection
            | FieldName::KeepAlive
            | FieldName::HopByHop
            | FieldName::FramingLookalike
            | FieldName::ForwardingLookalike
            | FieldName::Hop
            | FieldName::ProxyInternal => false,
        }
    }

    /// Hash of what the cluster's `hash_key` names; of the client address if the request lacks it.
    pub fn key(&self, cluster: &Cluster, client: Option<IpAddr>) -> u64 {
        let found = match &cluster.settings.hash_key {
            HashKey::ClientIp => None,
            HashKey::Path => Some(self.head.path()),
            HashKey::Uri => Some(self.head.target),
            HashKey::Header(name) => self.values(name).next(),
            HashKey::Cookie(name) => self.cookie(name.as_bytes()),
            HashKey::Query(name) => self
                .head
                .query()
                .and_then(|query| parameter(query, name.as_bytes())),
        };
        match found {
            Some(bytes) => hash_key(cluster.settings.hash_seed, bytes),
            None => client_key(cluster, client),
        }
    }

    /// The first value of a cookie, as it was sent.
    fn cookie(&self, name: &[u8]) -> Option<&'b [u8]> {
        self.values("cookie")
            .flat_map(|value| value.split(|b| *b == b';'))
            .find_map(|pair| trim(pair).strip_prefix(name)?.strip_prefix(b"="))
    }
}

impl Fields for ForwardedRequest<'_> {
    fn any_value(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.values(name).any(each)
    }
}

/// The first value of a parameter, as it was sent.
fn parameter<'b>(query: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    query
        .split(|b| *b == b'&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::HeadLimits;
    use crate::http1::request;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 4096,
        fields: 50,
        target: 1000,
    };

    /// Asks the request in `text` something.
    fn ask<T>(text: &str, trusted: bool, question: impl FnOnce(&ForwardedRequest<'_>) -> T) -> T {
        let mut fields = Vec::new();
        let head = request::parse(text.as_bytes(), &LIMITS, &mut fields)
            .unwrap()
            .unwrap();
        question(&ForwardedRequest {
            head: &head,
            buffer: text.as_bytes(),
            fields: &fields,
            trusted,
        })
    }

    #[test]
    fn what_stays_behind_is_not_there() {
        let text = "GET http://public/ HTTP/1.1\r\nHost: internal\r\nX-Forwarded-Proto: https\r\nX_Forwarded_Proto: http\r\n\
                    X-Tenant: gold\r\nConnection: x-tenant\r\nX-Lbproxy-Canary: 1\r\nTE: trailers\r\nX-A: 1\r\nx-a: 2\r\n\
                    Upgrade: websocket\r\n\r\n";
        let values = |name: &str, trusted| {
            ask(text, trusted, |request| {
                let values = request.values(name);
                values
                    .map(|value| String::from_utf8(value.to_vec()).unwrap())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(values("host", false), ["public"]);
        assert_eq!(values("x-a", false), ["1", "2"]);
        assert_eq!(values("x-forwarded-proto", true), ["https"]);
        for (name, trusted) in [
            ("x-forwarded-proto", false),
            ("x_forwarded_proto", true),
            ("x-tenant", true),
            ("x-lbproxy-canary", true),
            ("te", true),
            ("connection", true),
            ("upgrade", true),
        ] {
            assert_eq!(values(name, trusted), [""; 0], "{name}");
        }
    }

    #[test]
    fn an_upgrade_that_goes_on_is_seen() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        let request = ask(text, false, |request| {
            request.any_value("upgrade", &mut |value| value == b"websocket")
        });
        assert!(request);
    }

    #[test]
    fn cookies_are_found() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; sid=x=y\r\nCookie: sid=z\r\n\r\n";
        let cookie = |text: &str, name: &str| {
            ask(text, false, |request| {
                request.cookie(name.as_bytes()).map(<[u8]>::to_vec)
            })
        };
        assert_eq!(cookie(text, "sid"), Some(b"x=y".to_vec()));
        assert_eq!(cookie(text, "si"), None);
        let hidden = text.replace("Cookie: sid=z", "Connection: cookie");
        assert_eq!(cookie(&hidden, "sid"), None);
    }

    #[test]
    fn parameters_are_found() {
        assert_eq!(parameter(b"a=1&id=x&id=y", b"id"), Some(b"x".as_slice()));
        assert_eq!(parameter(b"a=1&idx=2", b"id"), None);
    }
}
