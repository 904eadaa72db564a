//! Numbers as people write and read them: bytes, durations, TCESS.

use std::time::Duration;

/// Planck of one TCESS.
pub const PLANCK_PER_TCESS: u128 = 1_000_000_000_000_000_000;

/// `1536` as `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Reads `10GiB`, `10G`, `512 MiB`, `4096`; powers of 1024.
///
/// # Errors
/// A sentence that names what was not understood.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(split);
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a size like 10GiB"))?;
    let shift = match unit
        .trim()
        .to_ascii_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => {
            return Err(format!(
                "`{text}` is not a size like 10GiB: the units are KiB, MiB, GiB, TiB"
            ));
        }
    };
    number
        .checked_shl(shift)
        .filter(|n| n >> shift == number)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// Reads `5s`, `500ms`, `2m`, `7d`, `5` (seconds).
///
/// # Errors
/// A sentence that names what was not understood.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(split);
    let wrong = || format!("`{text}` is not a time like 5s, 500ms or 2m");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let millis = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

/// Planck as TCESS with up to four decimals, rounded up so that it is enough to pay with.
pub fn tcess_up(planck: u128, symbol: &str) -> String {
    let step = PLANCK_PER_TCESS / 10_000;
    tcess_steps(planck.div_ceil(step), symbol)
}

/// Planck as TCESS with up to four decimals, rounded down: what is surely there.
pub fn tcess_down(planck: u128, symbol: &str) -> String {
    let step = PLANCK_PER_TCESS / 10_000;
    tcess_steps(planck / step, symbol)
}

fn tcess_steps(steps: u128, symbol: &str) -> String {
    let (whole, part) = (steps / 10_000, steps % 10_000);
    let digits = format!("{part:04}");
    match digits.trim_end_matches('0') {
        "" => format!("{whole} {symbol}"),
        digits => format!("{whole}.{digits} {symbol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_write() {
        for (text, n) in [
            ("0", 0),
            ("4096", 4096),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("512 MiB", 512 << 20),
            ("1tb", 1 << 40),
            ("3k", 3072),
        ] {
            assert_eq!(parse_bytes(text), Ok(n), "{text}");
        }
        for text in ["", "GiB", "10X", "-1", "1.5G", "99999999999T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn durations_read() {
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("18446744073709551615h").is_err());
    }

    #[test]
    fn money_is_rounded_to_the_safe_side() {
        assert_eq!(tcess_up(1, "TCESS"), "0.0001 TCESS");
        assert_eq!(tcess_down(1, "TCESS"), "0 TCESS");
        assert_eq!(tcess_up(15 * PLANCK_PER_TCESS / 10, "TCESS"), "1.5 TCESS");
        assert_eq!(tcess_down(PLANCK_PER_TCESS - 1, "TCESS"), "0.9999 TCESS");
    }
}
