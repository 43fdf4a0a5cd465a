//! Tokens, credentials and signatures: what is valid, and every way not to be.

use proptest::prelude::*;

use super::*;
use crate::gossip::record::MAX_RECORD;
use crate::gossip::text::TextError;

const EXPIRES: u64 = 2_000_000_000;

fn operator(byte: u8) -> OperatorKey {
    OperatorKey::generate(&[byte; 32])
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn credential() -> AgentCredential {
    let cidrs = nets(&["10.1.0.0/16", "2001:db8::/32"]);
    mint(&operator(1), &[2; 32], "api", &cidrs, 200, EXPIRES).unwrap()
}

fn encoded(token: &Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    token.encode(&mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Made with Python's cryptography package: the operator's seed is 32 × 1, the agent's 32 × 2.
#[test]
fn golden_vectors() {
    let credential = credential();
    assert_eq!(
        operator(1).public().to_text(),
        "lbproxy-operator-public-1.iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"
    );
    assert_eq!(
        hex(&encoded(credential.token())),
        "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394\
         0361706902100a014120010db800c80000000077359400\
         4612edd1acbef1f8ca06732dbaa23c9b163634a619db6226f64802ed0fcae12d\
         ba4eb979f594b7e663c18c884952b6a07a0f0be4d8352b7dbb525dd291f79604"
    );
    assert_eq!(
        credential.to_text(),
        "lbproxy-token-1.AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgKBOXcOqH0XX1ajVGbDTH7My42KkbTuN6Jd9g9bj8mz\
         lANhcGkCEAoBQSABDbgAyAAAAAB3NZQARhLt0ay-8fjKBnMtuqI8mxY2NKYZ22Im9kgC7Q_K4S26Trl59ZS35mPBjIhJUrageg8L5Ng1\
         K327Ul3SkfeWBA"
    );
    assert_eq!(
        hex(&credential.sign("prod", b"record")),
        "b545490926620398f621e8468940beb615920b696fae8b2170393e2158b140a6\
         7a4521f3459dc43fc716ccaad52a3b7fba3bd6cae20a4d1f289b57b9f7a2d804"
    );
}

#[test]
fn a_token_is_small() {
    let mint = |cluster: &str, cidrs: &[IpNet]| {
        mint(&operator(1), &[2; 32], cluster, cidrs, 1, EXPIRES).unwrap()
    };
    let small = encoded(mint("api", &nets(&["10.1.0.0/16"])).token());
    assert_eq!(small.len(), 114);
    let cidrs: Vec<IpNet> = (0..8)
        .map(|i| format!("2001:db8::{i}/128").parse().unwrap())
        .collect();
    let largest = encoded(mint(&"c".repeat(MAX_NAME), &cidrs).token());
    assert_eq!(largest.len(), MAX_TOKEN);
    assert_eq!(Token::decode(&largest).unwrap().cidrs(), cidrs);
    // A record with this token, a signature, and a cluster and a name of full length is still an announcement.
    const { assert!(MAX_TOKEN + SIGNATURE_LEN + MAX_NAME + MAX_NAME <= MAX_RECORD) };
}

/// A credential with these claims.
fn narrow(claims: Claims) -> Result<AgentCredential, TokenError> {
    let cidrs = nets(&["10.1.0.0/16", "2001:db8::/32"]);
    mint_with(&operator(1), &[2; 32], "api", &cidrs, 200, EXPIRES, claims)
}

#[test]
fn optional_claims_restrict_a_token_and_a_plain_one_has_none() {
    let plain = narrow(Claims::default()).unwrap();
    assert_eq!(encoded(plain.token()), encoded(credential().token()));
    assert_eq!(plain.token().permits_label("any"), Ok(()));
    let agent = |token: &Token, ip: &str| token.permits_agent(ip.parse().unwrap());
    assert_eq!(agent(plain.token(), "10.1.2.3"), Ok(()));
    assert_eq!(
        agent(plain.token(), "10.2.0.1"),
        Err(TokenError::OtherNetwork)
    );
    let all = Claims {
        label: Some("prod".to_owned()),
        max_backends: Some(3),
        agent_cidrs: nets(&["10.2.0.0/24", "fd00::/8"]),
    };
    let label = |label: &str| Claims {
        label: Some(label.to_owned()),
        ..Claims::default()
    };
    for claims in [
        all.clone(),
        label(""),
        Claims {
            label: None,
            ..all.clone()
        },
        Claims {
            max_backends: None,
            ..all.clone()
        },
        Claims {
            agent_cidrs: vec![],
            ..all.clone()
        },
    ] {
        let minted = narrow(claims.clone()).unwrap();
        let bytes = encoded(minted.token());
        let read = Token::decode(&bytes).unwrap();
        assert_eq!((&read, read.claims()), (minted.token(), &claims));
        assert_eq!(
            Authority::new(operator(1).public()).verify_token(&read, 0),
            Ok(())
        );
        for end in 0..bytes.len() {
            let cut = Token::decode(&bytes[..end]);
            // Cutting off all claims leaves a token, but one that nobody has signed.
            let forged = cut.map(|cut| Authority::new(operator(1).public()).verify_token(&cut, 0));
            assert!(!matches!(forged, Ok(Ok(()))), "{end}");
        }
    }
    let token = narrow(all).unwrap().token().clone();
    assert_eq!(token.permits_label("prod"), Ok(()));
    assert_eq!(token.permits_label(""), Err(TokenError::OtherLabel));
    assert_eq!(agent(&token, "10.2.0.7"), Ok(()));
    assert_eq!(
        agent(&token, "10.1.2.3"),
        Err(TokenError::OtherAgentNetwork)
    );
    assert_eq!(
        token.permits("api", "10.2.0.7".parse().unwrap(), 1),
        Err(TokenError::OtherNetwork)
    );
    let many = |count: u8| {
        (0..count)
            .map(|i| format!("fd00::{i}/128").parse().unwrap())
            .collect()
    };
    for (claims, error) in [
        (label("a\n"), TokenError::Label),
        (label(&"l".repeat(65)), TokenError::Label),
        (
            Claims {
                max_backends: Some(0),
                ..Claims::default()
            },
            TokenError::Backends,
        ),
        (
            Claims {
                max_backends: Some(MAX_BACKENDS + 1),
                ..Claims::default()
            },
            TokenError::Backends,
        ),
        (
            Claims {
                agent_cidrs: many(9),
                ..Claims::default()
            },
            TokenError::Networks,
        ),
        (
            Claims {
                agent_cidrs: many(8),
                ..label(&"l".repeat(64))
            },
            TokenError::Long,
        ),
    ] {
        assert_eq!(narrow(claims).map(|_| ()), Err(error));
    }
}

#[test]
fn networks_are_sorted() {
    let cidrs = nets(&[
        "fd00::7/8",
        "10.1.2.3/16",
        "0.0.0.0/0",
        "10.1.0.0/16",
        "::/0",
    ]);
    let credential = mint(&operator(1), &[2; 32], "api", &cidrs, 1, EXPIRES).unwrap();
    let expected = nets(&["0.0.0.0/0", "10.1.0.0/16", "::/0", "fd00::/8"]);
    assert_eq!(credential.token().cidrs(), expected);
    let again = Token::decode(&encoded(credential.token())).unwrap();
    assert_eq!(&again, credential.token());
}

#[test]
fn what_cannot_be_minted() {
    let one = nets(&["10.0.0.0/8"]);
    let nine: Vec<IpNet> = (0..9)
        .map(|i| format!("10.{i}.0.0/16").parse().unwrap())
        .collect();
    let long = "é".repeat(33);
    for (cluster, cidrs, weight, error) in [
        ("", &one, 1, TokenError::Cluster),
        (&long, &one, 1, TokenError::Cluster),
        ("a\nb", &one, 1, TokenError::Cluster),
        ("api", &Vec::new(), 1, TokenError::Networks),
        ("api", &nine, 1, TokenError::Networks),
        (
            "api",
            &nets(&["::ffff:10.0.0.0/104"]),
            1,
            TokenError::Networks,
        ),
        ("api", &one, 0, TokenError::Weight),
        ("api", &one, MAX_WEIGHT + 1, TokenError::Weight),
    ] {
        let minted = mint(&operator(1), &[2; 32], cluster, cidrs, weight, EXPIRES);
        assert_eq!(minted.unwrap_err(), error, "{cluster:?} {cidrs:?} {weight}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let authority = Authority::new(operator(1).public());
    let bytes = encoded(credential().token());
    let good = Token::decode(&bytes).unwrap();
    assert_eq!(authority.verify_token(&good, EXPIRES), Ok(()));
    for at in 0..bytes.len() {
        assert_eq!(
            Token::decode(&bytes[..at]),
            Err(TokenError::Length),
            "cut at {at}"
        );
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let verdict = Token::decode(&damaged).and_then(|t| authority.verify_token(&t, 0));
            assert!(verdict.is_err(), "bit {bit} of byte {at}");
        }
    }
    let longer = [&bytes[..], b"\0"].concat();
    assert_eq!(Token::decode(&longer), Err(TokenError::Claims));
}

/// Claims that could be signed, but are not accepted when read.
#[test]
fn a_token_has_one_form() {
    let around = |name: &[u8], networks: &[&[u8]], weight: u16| {
        let count = [networks.len() as u8];
        let length = [name.len() as u8];
        let weight = weight.to_be_bytes();
        let parts: [&[u8]; 8] = [
            &[7; 32],
            &length,
            name,
            &count,
            &networks.concat(),
            &weight,
            &[0; 8],
            &[0; 64],
        ];
        Token::decode(&parts.concat()).map(|_| ())
    };
    let ten: &[u8] = &[8, 10];
    assert_eq!(around(b"api", &[ten], 1), Ok(()));
    for (what, name, networks, weight, error) in [
        ("no name", &b""[..], &[ten][..], 1, TokenError::Cluster),
        ("a long name", &[b'a'; 65], &[ten], 1, TokenError::Cluster),
        ("no UTF-8", b"\xff", &[ten], 1, TokenError::Cluster),
        (
            "a control character",
            b"a\x7f",
            &[ten],
            1,
            TokenError::Cluster,
        ),
        ("no network", b"api", &[], 1, TokenError::Networks),
        ("nine networks", b"api", &[ten; 9], 1, TokenError::Networks),
        ("one twice", b"api", &[ten, ten], 1, TokenError::Networks),
        ("order", b"api", &[&[8, 11], ten], 1, TokenError::Networks),
        (
            "bits behind the prefix",
            b"api",
            &[&[7, 11]],
            1,
            TokenError::Networks,
        ),
        (
            "prefix 129",
            b"api",
            &[&[IPV6 + 129; 18]],
            1,
            TokenError::Networks,
        ),
        ("prefix 222", b"api", &[&[255; 29]], 1, TokenError::Networks),
        (
            "IPv4 as IPv6",
            b"api",
            &[&[IPV6 + 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]],
            1,
            TokenError::Networks,
        ),
        ("weight 0", b"api", &[ten], 0, TokenError::Weight),
        ("weight 1001", b"api", &[ten], 1001, TokenError::Weight),
    ] {
        assert_eq!(around(name, networks, weight), Err(error), "{what}");
    }
}

#[test]
fn who_signed_and_until_when() {
    let credential = credential();
    let token = credential.token();
    let ours = Authority::new(operator(1).public());
    let other = Authority::new(operator(3).public());
    for (authority, now, verdict) in [
        (&ours, 0, Ok(())),
        (&ours, EXPIRES, Ok(())),
        (&ours, EXPIRES + GRACE, Ok(())),
        (&ours, EXPIRES + GRACE + 1, Err(TokenError::Expired)),
        (&ours, u64::MAX, Err(TokenError::Expired)),
        (&other, 0, Err(TokenError::Forged)),
    ] {
        assert_eq!(authority.verify_token(token, now), verdict, "{now}");
    }
    let cidrs = nets(&["10.0.0.0/8"]);
    let for_ever = mint(&operator(1), &[2; 32], "api", &cidrs, 1, u64::MAX).unwrap();
    assert_eq!(ours.verify_token(for_ever.token(), u64::MAX), Ok(()));
}

#[test]
fn an_announcement_is_one_agents_in_one_set() {
    let ours = credential();
    let cidrs = nets(&["10.0.0.0/8"]);
    let other = mint(&operator(1), &[4; 32], "api", &cidrs, 1, EXPIRES).unwrap();
    let authority = Authority::new(operator(1).public());
    let signature = ours.sign("prod", b"record");
    let verify = |token: &Token, label: &str, record: &[u8], signature: &[u8; SIGNATURE_LEN]| {
        authority.verify_record(token, label, record, signature)
    };
    assert_eq!(verify(ours.token(), "prod", b"record", &signature), Ok(()));
    let refused = Err(TokenError::RecordForged);
    for (what, token, label, record) in [
        ("another agent", other.token(), "prod", &b"record"[..]),
        ("another set", ours.token(), "test", b"record"),
        ("no label", ours.token(), "", b"prodrecord"),
        ("another border", ours.token(), "prodr", b"ecord"),
        ("another record", ours.token(), "prod", b"recorD"),
    ] {
        assert_eq!(verify(token, label, record, &signature), refused, "{what}");
    }
    for at in 0..SIGNATURE_LEN {
        let mut damaged = signature;
        damaged[at] ^= 1;
        let found = verify(ours.token(), "prod", b"record", &damaged);
        assert_eq!(found, refused, "byte {at}");
    }
}

#[test]
fn what_a_token_permits() {
    let credential = credential();
    for (cluster, address, weight, verdict) in [
        ("api", "10.1.255.255", 200, Ok(())),
        ("api", "10.1.0.0", 0, Ok(())),
        ("api", "::ffff:10.1.2.3", 1, Ok(())),
        ("api", "2001:db8:ffff::1", 1, Ok(())),
        ("API", "10.1.0.1", 1, Err(TokenError::OtherCluster)),
        ("ap", "10.1.0.1", 1, Err(TokenError::OtherCluster)),
        ("api", "10.2.0.0", 1, Err(TokenError::OtherNetwork)),
        ("api", "2001:db9::1", 1, Err(TokenError::OtherNetwork)),
        ("api", "127.0.0.1", 1, Err(TokenError::OtherNetwork)),
        ("api", "10.1.0.1", 201, Err(TokenError::TooHeavy)),
    ] {
        let found = credential
            .token()
            .permits(cluster, address.parse().unwrap(), weight);
        assert_eq!(found, verdict, "{cluster} {address} {weight}");
    }
}

#[test]
fn texts() {
    let (operator, credential) = (operator(1), credential());
    let again = OperatorKey::parse(&format!("{}\n", operator.to_text())).unwrap();
    assert_eq!(again.public(), operator.public());
    let public = OperatorPublic::parse(&operator.public().to_text());
    assert_eq!(public, Ok(operator.public()));
    let again = AgentCredential::parse(&format!(" {}\r\n", credential.to_text())).unwrap();
    assert_eq!(again.token(), credential.token());
    assert_eq!(again.sign("", b"x"), credential.sign("", b"x"));

    let private = OperatorPublic::parse(&operator.to_text()).unwrap_err();
    assert_eq!(private, TextError::Prefix("lbproxy-operator-public-1."));
    let public = OperatorKey::parse(&operator.public().to_text()).unwrap_err();
    assert_eq!(public, TextError::Prefix("lbproxy-operator-1."));

    // Another agent's private key before the token.
    let foreign = credential.to_text().replacen("AgIC", "AwIC", 1);
    for (text, error) in [
        (foreign, CredentialError::OtherKey),
        ("lbproxy-token-1.AgIC".to_owned(), TokenError::Length.into()),
        (
            format!("{}=", credential.to_text()),
            TextError::Base64("lbproxy-token-1.").into(),
        ),
        (
            operator.to_text(),
            TextError::Prefix("lbproxy-token-1.").into(),
        ),
    ] {
        assert_eq!(AgentCredential::parse(&text).unwrap_err(), error);
    }
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", operator(1), credential());
    for secret in [
        "AgIC",
        "AQEB",
        "1, 1, 1, 1",
        "2, 2, 2, 2",
        "02020202",
        "01010101",
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("api"), "{shown}");
}

#[test]
fn every_error_has_its_own_name() {
    for (i, error) in TokenError::ALL.iter().enumerate() {
        let first = TokenError::ALL
            .iter()
            .position(|e| e.reason() == error.reason());
        assert_eq!(first, Some(i), "{error}");
    }
}

fn network() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(a, p)| IpNet::new(a.into(), p));
    let v6 = (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(a, p)| IpNet::new(a.into(), p));
    prop_oneof![v4, v6].prop_map(Result::unwrap)
}

proptest! {
    #[test]
    fn what_is_minted_is_read_as_written(
        cluster in "[a-zé]{1,32}",
        cidrs in proptest::collection::vec(network(), 1..=MAX_CIDRS),
        weight in 1..=MAX_WEIGHT,
        expires in any::<u64>(),
    ) {
        let minted = mint(&operator(1), &[2; 32], &cluster, &cidrs, weight, expires).unwrap();
        let bytes = encoded(minted.token());
        prop_assert!(bytes.len() <= MAX_TOKEN);
        prop_assert_eq!(&Token::decode(&bytes).unwrap(), minted.token());
        for cidr in cidrs {
            prop_assert_eq!(minted.token().permits(&cluster, cidr.addr(), weight), Ok(()));
        }
    }

    #[test]
    fn what_is_read_would_be_written_so(
        damage in proptest::collection::vec((0..200_usize, any::<u8>()), 0..4),
        end in 100..200_usize,
    ) {
        let mut bytes = encoded(credential().token());
        for (at, byte) in damage {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(end);
        if let Ok(token) = Token::decode(&bytes) {
            prop_assert_eq!(encoded(&token), bytes);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..MAX_TOKEN + 10)) {
        if let Ok(token) = Token::decode(&bytes) {
            prop_assert_eq!(encoded(&token), bytes);
        }
    }
}
