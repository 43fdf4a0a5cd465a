//! What tells a request or a session that has come back to the process which forwarded it, so that it is refused instead
//! of going round until all descriptors are used.

use crate::balance::Random;

/// The id of a process: 64 random bits in hexadecimal digits.
pub(crate) type ProcessId = [u8; 16];

/// Proxies that a request or a session may pass before this one.
pub(crate) const MAX_HOPS: usize = 8;

/// An id for this process.
pub(crate) fn process_id(random: &Random) -> ProcessId {
    let mut id = [0; 16];
    fill_hexadecimal(&mut id, random);
    id
}

/// Fills `id`, whose length is a multiple of 16, with random hexadecimal digits.
pub(crate) fn fill_hexadecimal(id: &mut [u8], random: &Random) {
    for half in id.chunks_exact_mut(16) {
        let bits = random.next_u64();
        half[..8].copy_from_slice(&hexadecimal(bits as u32));
        half[8..].copy_from_slice(&hexadecimal((bits >> 32) as u32));
    }
}

/// Eight digits, the lowest first, computed at once, one in each byte.
fn hexadecimal(bits: u32) -> [u8; 8] {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let mut digits = u64::from(bits);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // Six more than a digit above 9 carries into the next four bits.
    let letters = (digits + ONES * 6) >> 4 & ONES;
    (digits + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_hexadecimal() {
        assert_eq!(hexadecimal(0x7654_3210), *b"01234567");
        assert_eq!(hexadecimal(0xfedc_ba98), *b"89abcdef");
    }
}
