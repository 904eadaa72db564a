//! What a hostile miner's answer must not do.

use super::{Gathered, checked_length, reply};
use crate::limits::{FRAGMENT_BYTES, MINER_TEXT_CHARS_MAX};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

/// An answer: its status (2 bytes), how many bytes were asked for (2), the length of its content type (1), content type,
/// body. It becomes a reply, the bytes asked for, or an error of printable text.
pub(crate) fn answer(input: &[u8]) {
    let Some((&[low, high, want_low, want_high, kind], rest)) = input.split_first_chunk() else {
        return;
    };
    let status = StatusCode::from_u16(100 + u16::from_le_bytes([low, high]) % 900).expect("100 to 999 are statuses");
    let (kind, body) = rest.split_at(rest.len().min(usize::from(kind)));
    let mut headers = HeaderMap::new();
    if let Ok(kind) = HeaderValue::from_bytes(kind) {
        headers.insert(CONTENT_TYPE, kind);
    }
    if reply::is_reply(&headers) {
        as_reply(status, body);
    }
    as_bytes(usize::from(u16::from_le_bytes([want_low, want_high])), body);
    // The range itself comes from us, but whatever it is, a fragment has it or it is refused.
    if let Some((start, rest)) = body.split_first_chunk()
        && let Some((end, _)) = rest.split_first_chunk()
    {
        let range = u32::from_le_bytes(*start)..u32::from_le_bytes(*end);
        assert!(checked_length(&range).is_ok_and(|length| length <= FRAGMENT_BYTES) || checked_length(&range).is_err());
    }
}

fn as_reply(status: StatusCode, body: &[u8]) {
    let outcome = reply::parse(status, body).and_then(|reply| reply.into_result());
    let text = match outcome {
        Ok(data) => reply::status(data).state,
        Err(error) => error.to_string(),
    };
    assert!(!text.chars().any(char::is_control), "text for a terminal: {text:?}");
    assert!(
        text.chars().count() <= MINER_TEXT_CHARS_MAX + 100,
        "text of bounded length: {text:?}"
    );
    if let Ok(reply) = reply::parse(status, body) {
        let text = reply.into_error().to_string();
        assert!(!text.chars().any(char::is_control), "text for a terminal: {text:?}");
    }
}

fn as_bytes(want: usize, body: &[u8]) {
    let mut gathered = Gathered::of(want);
    let pieces = body.chunks(1 + body.len() / 3);
    for piece in pieces {
        if gathered.push(piece).is_err() {
            assert!(body.len() > want);
            return;
        }
    }
    match gathered.finish() {
        Ok(bytes) => assert_eq!(bytes, body[..want]),
        Err(_) => assert!(body.len() < want),
    }
}
