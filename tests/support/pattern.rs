//! An endless sequence of bytes that both ends of a large transfer know: what arrives is compared with it place by
//! place, which finds every loss, repetition and swap, and says where it is.

use std::sync::LazyLock;

/// A prime, so that no buffer size fits a whole number of times.
const LENGTH: usize = 1_048_573;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..LENGTH).map(|_| next()).collect()
});

/// The sequence from `offset` on: at least one byte, at most `most`.
pub fn slice(offset: u64, most: u64) -> &'static [u8] {
    let start = (offset % LENGTH as u64) as usize;
    let end = LENGTH.min(start.saturating_add(most as usize));
    &BYTES[start..end]
}

/// Checks that `received` is the sequence from `offset` on.
pub fn check(offset: u64, received: &[u8]) -> Result<(), String> {
    let mut done = 0;
    while done < received.len() {
        let expected = slice(offset + done as u64, (received.len() - done) as u64);
        let got = &received[done..done + expected.len()];
        if got != expected {
            let at = got.iter().zip(expected).position(|(a, b)| a != b).unwrap();
            return Err(format!("byte {} differs", offset + (done + at) as u64));
        }
        done += expected.len();
    }
    Ok(())
}

/// `n` bytes of the sequence.
pub fn bytes(n: usize) -> Vec<u8> {
    BYTES.iter().copied().cycle().take(n).collect()
}
