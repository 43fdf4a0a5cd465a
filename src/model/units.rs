//! Durations and sizes as the configuration writes them: `"250ms"`, `"10s"`, `"1m30s"`, `"64KiB"`, `"1TiB"`.
//!
//! They are integers with a unit, never bare numbers. A duration may be a sum from the largest unit to the smallest,
//! each at most once. Binary units (`KiB`) are powers of 1024, decimal ones (`KB`) of 1000. Callers check ranges. The
//! functions that show a value write it as the configuration would.

use std::time::Duration;

use thiserror::Error;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum UnitError {
    /// It is empty, or has no digit where a number should begin.
    #[error("it does not begin with a number")]
    NoNumber,
    /// Nothing follows a number.
    #[error("it has no unit")]
    NoUnit,
    /// It has a fraction.
    #[error("fractions are not allowed; use a smaller unit")]
    Fraction,
    /// What follows a number is not a known unit.
    #[error("\"{0}\" is not a unit")]
    UnknownUnit(String),
    /// The parts of a sum are not in order, or a unit is repeated.
    #[error("its parts are not ordered from the largest unit to the smallest")]
    Order,
    /// It does not fit the type.
    #[error("it is too large")]
    TooLarge,
}

/// Units of durations, largest first; the factor is in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of sizes, largest binary unit first, so that a value is shown in the largest that fits; the factor is in
/// bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Parses a duration: `"250ms"`, `"10s"`, `"5m"`, `"1h"`, `"1d"`, and sums such as `"1m30s"`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text;
    let mut allowed = &DURATION_UNITS[..];
    let mut total: u64 = 0;
    loop {
        let (number, unit, following) = split_part(rest)?;
        let at = allowed
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(|| misplaced(unit))?;
        let part = number.checked_mul(allowed[at].1);
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or(UnitError::TooLarge)?;
        if following.is_empty() {
            return Ok(Duration::from_millis(total));
        }
        allowed = &allowed[at + 1..];
        rest = following;
    }
}

/// Parses a size in bytes: `"512B"`, `"64KiB"`, `"10MiB"`, `"1TiB"`; also decimal, `"64KB"`.
pub(crate) fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit, following) = split_part(text)?;
    let (_, factor) = SIZE_UNITS
        .iter()
        .find(|(name, _)| following.is_empty() && *name == unit)
        .ok_or_else(|| {
            UnitError::UnknownUnit(text[text.len() - unit.len() - following.len()..].to_owned())
        })?;
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

/// Writes a duration as the configuration would, in whole milliseconds: `1m30s`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut shown = String::new();
    for (unit, factor) in DURATION_UNITS {
        if rest >= factor {
            shown.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    shown
}

/// Writes a size as the configuration would, in the largest binary unit that needs no fraction: `64KiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS[..4]
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// Splits `"1m30s"` into 1, `"m"` and `"30s"`.
fn split_part(text: &str) -> Result<(u64, &str, &str), UnitError> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    if digits == 0 {
        return Err(UnitError::NoNumber);
    }
    let number = text[..digits].parse().map_err(|_| UnitError::TooLarge)?;
    let rest = &text[digits..];
    if rest.is_empty() {
        return Err(UnitError::NoUnit);
    }
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::Fraction);
    }
    let unit = rest
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(rest.len());
    Ok((number, &rest[..unit], &rest[unit..]))
}

/// Tells a unit in the wrong position from an unknown unit.
fn misplaced(unit: &str) -> UnitError {
    if DURATION_UNITS.iter().any(|(name, _)| *name == unit) {
        UnitError::Order
    } else {
        UnitError::UnknownUnit(unit.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_parsed() {
        for (text, ms) in [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1m30s", 90_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_durations_are_refused() {
        for (text, error) in [
            ("", UnitError::NoNumber),
            ("s", UnitError::NoNumber),
            ("-5s", UnitError::NoNumber),
            ("10", UnitError::NoUnit),
            ("1m30", UnitError::NoUnit),
            ("1.5s", UnitError::Fraction),
            ("10 s", UnitError::UnknownUnit(" s".to_owned())),
            ("10S", UnitError::UnknownUnit("S".to_owned())),
            ("10sec", UnitError::UnknownUnit("sec".to_owned())),
            ("1s1m", UnitError::Order),
            ("1s1s", UnitError::Order),
            ("99999999999999999999s", UnitError::TooLarge),
            ("18446744073709551615d", UnitError::TooLarge),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sizes_are_parsed() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("10MiB", 10 << 20),
            ("1GiB", 1 << 30),
            ("1TiB", 1 << 40),
            ("64KB", 64_000),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, error) in [
            ("", UnitError::NoNumber),
            ("64", UnitError::NoUnit),
            ("64K", UnitError::UnknownUnit("K".to_owned())),
            ("64kib", UnitError::UnknownUnit("kib".to_owned())),
            ("1MiB1KiB", UnitError::UnknownUnit("MiB1KiB".to_owned())),
            ("1.5MiB", UnitError::Fraction),
            ("18446744073709551615TiB", UnitError::TooLarge),
        ] {
            assert_eq!(parse_size(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(value in 0..u64::MAX / 2) {
            let duration = Duration::from_millis(value);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&show_size(value)), Ok(value));
            prop_assert_eq!(parse_size(&show_size(value << 10 >> 10)), Ok(value << 10 >> 10));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
