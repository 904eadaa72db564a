//! TCESS as people write them, planck as the chain counts them.

use cessfs_devnet_runtime::cess::TCESS;

const DECIMALS: usize = 18;

/// Planck of a decimal number of TCESS.
///
/// # Errors
/// If it is no number, has more than 18 decimals, or is larger than any balance.
pub fn planck(text: &str) -> Result<u128, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err("not a number of TCESS, such as 12.5".into());
    }
    if fraction.len() > DECIMALS {
        return Err(format!("a TCESS has {DECIMALS} decimals"));
    }
    let too_much = || "more than there can be".to_owned();
    let whole: u128 = whole.parse().map_err(|_| too_much())?;
    let fraction: u128 = format!("{fraction:0<DECIMALS$}").parse().map_err(|_| too_much())?;
    whole
        .checked_mul(TCESS)
        .and_then(|planck| planck.checked_add(fraction))
        .ok_or_else(too_much)
}

/// The shortest decimal text.
pub fn text(planck: u128) -> String {
    let text = format!("{}.{:0DECIMALS$}", planck / TCESS, planck % TCESS);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_round_trip() {
        for (given, expected) in [
            ("12.5", 12_500_000_000_000_000_000),
            ("0.000000000000000001", 1),
            ("100000", 100_000 * TCESS),
        ] {
            assert_eq!(planck(given), Ok(expected));
            assert_eq!(text(expected), given);
        }
        assert_eq!(planck("3."), Ok(3 * TCESS));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            ".5",
            "-1",
            "1e3",
            "1.0000000000000000001",
            "1,5",
            "999999999999999999999999",
        ] {
            assert!(planck(text).is_err(), "{text}");
        }
    }
}
