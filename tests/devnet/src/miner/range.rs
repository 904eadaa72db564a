//! The miners' own dialect of the `Range` header.
//!
//! `bytes=START-END/TOTAL`, or a space for the equals sign. END is exclusive and at most the fragment's length, and the
//! slash with its total must be there. The range of RFC 9110 (`bytes=a-b`) is an error to a miner, which is why a client
//! that never met one reads nothing.

use std::ops::Range;

/// The bytes that `header` asks for out of a fragment of `size` bytes, or `None` where a miner would answer 416.
pub fn parse(header: &str, size: u64) -> Option<Range<u64>> {
    let rest = header.strip_prefix("bytes")?;
    let rest = rest.strip_prefix('=').or_else(|| rest.strip_prefix(' '))?;
    let (span, total) = rest.split_once('/')?;
    let (start, end) = span.split_once('-')?;
    decimal(total)?;
    let range = decimal(start)?..decimal(end)?;
    (range.start < range.end && range.end <= size).then_some(range)
}

/// `u64::from_str` would also take a plus sign.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_exclusive_and_the_slash_mandatory() {
        let cases = [
            ("bytes=0-8/8", Some(0..8)),
            ("bytes 2-3/8", Some(2..3)),
            ("bytes=2-3/999", Some(2..3)),
            ("bytes=0-9/8", None),
            ("bytes=3-3/8", None),
            ("bytes=4-3/8", None),
            ("bytes=0-7", None),
            ("bytes=0-", None),
            ("bytes=-3/8", None),
            ("bytes=0-3/", None),
            ("bytes=0-3/*", None),
            ("bytes=+0-3/8", None),
            ("bytes=0-99999999999999999999/8", None),
            ("items=0-3/8", None),
            ("", None),
        ];
        for (header, want) in cases {
            assert_eq!(parse(header, 8), want, "{header}");
        }
    }
}
