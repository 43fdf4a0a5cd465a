//! Which packets open, and which must not.

use proptest::prelude::*;

use super::*;

const DATAGRAM: u8 = 1;
const FRAME: u8 = 2;
const BODY: &[u8] = b"a body of more than one block of AES";

fn key(byte: u8) -> SecretKey {
    SecretKey::generate(&[byte; 32])
}

fn ring(keys: &[u8], label: &str) -> Keyring {
    let keys: Vec<SecretKey> = keys.iter().copied().map(key).collect();
    Keyring::new(&keys, label, false)
}

fn sealed(ring: &Keyring, kind: u8, context: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    ring.seal(kind, context, [9; 12], BODY, &mut packet);
    packet
}

/// Opens a copy of the packet.
fn opened(ring: &Keyring, kind: u8, context: &[u8], packet: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut packet = packet.to_vec();
    ring.open(kind, context, &mut packet).map(<[u8]>::to_vec)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_opened_packet_has_the_body_that_was_sealed() {
    for (keys, overhead) in [(&[1][..], OVERHEAD), (&[1, 2], OVERHEAD), (&[], PLAIN_HEAD)] {
        let ring = ring(keys, "prod");
        assert_eq!(ring.overhead(), overhead);
        for length in [0, 1, 15, 16, 17, 1198] {
            let body = vec![length as u8; length];
            let mut packet = b"in front".to_vec();
            ring.seal(DATAGRAM, b"context", [3; 12], &body, &mut packet);
            assert!(packet.starts_with(b"in front"));
            let mut packet = packet.split_off(8);
            assert_eq!(packet.len(), length + overhead);
            let hidden = length < 15 || !packet.windows(length).any(|part| part == body);
            assert_eq!(hidden, !keys.is_empty() || length < 15, "{length}");
            assert_eq!(ring.open(DATAGRAM, b"context", &mut packet), Ok(&body[..]));
        }
    }
}

/// The format is what other versions of the program speak: this packet opens for ever, or the version byte changes.
#[test]
fn golden_packets() {
    let ring = ring(&[1, 2], "prod");
    assert_eq!(ring.key_ids(), GOLDEN_IDS);
    let packet = sealed(&ring, DATAGRAM, b"context");
    assert_eq!(hex(&packet), GOLDEN_SEALED);
    let plain = Keyring::new(&[], "prod", false);
    let packet = sealed(&plain, DATAGRAM, b"context");
    assert_eq!(hex(&packet), GOLDEN_PLAIN);
}

// Made with Python: hashlib, hmac, and AESGCMSIV of the cryptography package.
const GOLDEN_IDS: [&str; 2] = ["ef6e408d", "8e2fd681"];
const GOLDEN_SEALED: &str = "0101ef6e408d0909090909090909090909091dba2096d3d3e82235984e1a4b9692fe\
    fbfa567cbe732decb9c4ebe9cb42ff006b695b33cd930e07878460a2f180823ef190d914";
const GOLDEN_PLAIN: &str = "010100000000bc789696\
    6120626f6479206f66206d6f7265207468616e206f6e6520626c6f636b206f6620414553";

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let ring = ring(&[1, 2], "prod");
    let packet = sealed(&ring, DATAGRAM, b"context");
    for at in 0..packet.len() {
        for bit in 0..8 {
            let mut damaged = packet.clone();
            damaged[at] ^= 1 << bit;
            let expected = match at {
                0 => OpenError::Version,
                1 => OpenError::Kind,
                2..COMMON_HEAD => OpenError::UnknownKey,
                _ => OpenError::Forged,
            };
            let found = opened(&ring, DATAGRAM, b"context", &damaged);
            assert_eq!(found, Err(expected), "bit {bit} of byte {at}");
        }
    }
    for end in 0..packet.len() {
        let expected = if end < OVERHEAD {
            OpenError::Truncated
        } else {
            OpenError::Forged
        };
        let found = opened(&ring, DATAGRAM, b"context", &packet[..end]);
        assert_eq!(found, Err(expected), "cut at {end}");
    }
    let longer = [&packet[..], b"x"].concat();
    let found = opened(&ring, DATAGRAM, b"context", &longer);
    assert_eq!(found, Err(OpenError::Forged));
}

#[test]
fn what_was_sealed_for_others_is_refused() {
    let ours = ring(&[1, 2], "prod");
    for (what, theirs, kind, context, refusal) in [
        (
            "key",
            ring(&[3], "prod"),
            DATAGRAM,
            &b"c"[..],
            OpenError::UnknownKey,
        ),
        (
            "label",
            ring(&[1], "test"),
            DATAGRAM,
            b"c",
            OpenError::UnknownKey,
        ),
        (
            "no label",
            ring(&[1], ""),
            DATAGRAM,
            b"c",
            OpenError::UnknownKey,
        ),
        ("kind", ring(&[1], "prod"), FRAME, b"c", OpenError::Kind),
        (
            "context",
            ring(&[1], "prod"),
            DATAGRAM,
            b"d",
            OpenError::Forged,
        ),
        (
            "longer context",
            ring(&[1], "prod"),
            DATAGRAM,
            b"c\0",
            OpenError::Forged,
        ),
        (
            "no context",
            ring(&[1], "prod"),
            DATAGRAM,
            b"",
            OpenError::Forged,
        ),
        (
            "plain",
            ring(&[], "prod"),
            DATAGRAM,
            b"c",
            OpenError::Unsealed,
        ),
        (
            "plain, label",
            ring(&[], "test"),
            DATAGRAM,
            b"c",
            OpenError::Unsealed,
        ),
    ] {
        let packet = sealed(&theirs, kind, context);
        let found = opened(&ours, DATAGRAM, b"c", &packet);
        assert_eq!(found, Err(refusal), "{what}");
    }
    // The kind is sealed too: neither it nor the key id can be rewritten to the expected one.
    let mut rewritten = sealed(&ours, FRAME, b"c");
    rewritten[1] = DATAGRAM;
    assert_eq!(
        opened(&ours, DATAGRAM, b"c", &rewritten),
        Err(OpenError::Forged)
    );
    let mut rewritten = sealed(&ring(&[1], "test"), DATAGRAM, b"c");
    rewritten[2..6].copy_from_slice(&ours.keys[0].0);
    assert_eq!(
        opened(&ours, DATAGRAM, b"c", &rewritten),
        Err(OpenError::Forged)
    );
}

/// The new key is added after the old one, then moved to the front, then the old one is removed. At each moment every
/// member opens what any other seals, although they change one after the other.
#[test]
fn a_rotation_loses_nothing() {
    let steps = [&[1][..], &[1, 2], &[2, 1], &[2]].map(|keys| ring(keys, "prod"));
    for pair in steps.windows(2) {
        for (from, to) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            let packet = sealed(&pair[from], DATAGRAM, b"");
            assert_eq!(
                opened(&pair[to], DATAGRAM, b"", &packet).as_deref(),
                Ok(BODY)
            );
        }
    }
    let late = sealed(&steps[0], DATAGRAM, b"");
    let found = opened(&steps[3], DATAGRAM, b"", &late);
    assert_eq!(found, Err(OpenError::UnknownKey));
    assert_eq!(steps[1].key_ids()[0], steps[0].key_ids()[0]);
    assert_eq!(steps[2].key_ids()[0], steps[3].key_ids()[0]);
}

#[test]
fn without_keys_and_during_their_introduction() {
    let plain = ring(&[], "prod");
    let strict = ring(&[1], "prod");
    let lenient = Keyring::new(&[key(1)], "prod", true);
    for (what, from, to, expected) in [
        ("plain to plain", &plain, &plain, Ok(BODY)),
        ("plain to lenient", &plain, &lenient, Ok(BODY)),
        ("lenient to strict", &lenient, &strict, Ok(BODY)),
        ("strict to lenient", &strict, &lenient, Ok(BODY)),
        ("plain to strict", &plain, &strict, Err(OpenError::Unsealed)),
        (
            "strict to plain",
            &strict,
            &plain,
            Err(OpenError::UnknownKey),
        ),
        (
            "another label",
            &ring(&[], "test"),
            &plain,
            Err(OpenError::WrongLabel),
        ),
        (
            "another label, lenient",
            &ring(&[], ""),
            &lenient,
            Err(OpenError::WrongLabel),
        ),
    ] {
        let packet = sealed(from, DATAGRAM, b"");
        let found = opened(to, DATAGRAM, b"", &packet);
        assert_eq!(
            found.as_deref().map_err(|refusal| *refusal),
            expected,
            "{what}"
        );
    }
    let packet = sealed(&plain, DATAGRAM, b"");
    for end in 0..PLAIN_HEAD {
        let found = opened(&plain, DATAGRAM, b"", &packet[..end]);
        assert_eq!(found, Err(OpenError::Truncated), "cut at {end}");
    }
    assert_eq!(opened(&plain, FRAME, b"", &packet), Err(OpenError::Kind));
    assert!(plain.key_ids().is_empty());
}

#[test]
fn sealing_into_a_buffer_with_room_does_not_move_it() {
    let ring = ring(&[1], "prod");
    let mut out = Vec::with_capacity(BODY.len() + OVERHEAD);
    let (at, room) = (out.as_ptr(), out.capacity());
    ring.seal(DATAGRAM, b"", [0; 12], BODY, &mut out);
    assert_eq!((out.as_ptr(), out.capacity(), out.len()), (at, room, room));
}

#[test]
fn every_error_has_its_own_name() {
    for (i, refusal) in OpenError::ALL.iter().enumerate() {
        let first = OpenError::ALL
            .iter()
            .position(|r| r.reason() == refusal.reason());
        assert_eq!(first, Some(i), "{refusal}");
    }
}

#[test]
fn key_files() {
    let text = key(7).to_text();
    assert_eq!(
        text,
        format!("lbproxy-key-1.BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc")
    );
    for around in ["", "\n", " \r\n"] {
        let parsed = SecretKey::parse(&format!("{around}{text}{around}")).unwrap();
        assert_eq!(parsed.to_text(), text);
    }
    let short = &text[..text.len() - 2];
    for wrong in [
        "",
        "x",
        short,
        &format!("{text}\n{text}"),
        &format!("{text}="),
    ] {
        let error = SecretKey::parse(wrong).unwrap_err();
        assert!(!error.to_string().contains("BwcH"), "{error}");
    }
    let shown = format!("{:?} {:?}", key(7), ring(&[7], "prod"));
    assert!(
        !shown.contains("BwcH") && !shown.contains("7, 7"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn no_bytes_open_that_were_not_sealed(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        known in any::<bool>(),
    ) {
        let ring = ring(&[1, 2], "prod");
        let mut bytes = bytes;
        // Half of them look like our packets up to the nonce.
        if known && bytes.len() >= COMMON_HEAD {
            bytes[..2].copy_from_slice(&[VERSION, DATAGRAM]);
            bytes[2..COMMON_HEAD].copy_from_slice(&ring.keys[1].0);
        }
        prop_assert!(ring.open(DATAGRAM, b"", &mut bytes).is_err());
    }
}
