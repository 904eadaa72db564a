//! The miners' JSON answers: `{code, msg, data}`, where the code counts and the HTTP status does not.

use super::{MinerError, MinerStatus, unreachable};
use crate::limits::{MINER_REPLY_BYTES_MAX, MINER_TEXT_CHARS_MAX};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

/// What a miner answered.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    code: u16,
    #[serde(default)]
    msg: Value,
    #[serde(default)]
    data: Value,
}

impl Reply {
    /// The data of a success.
    pub(super) fn into_result(self) -> Result<Value, MinerError> {
        if self.code == 200 {
            Ok(self.data)
        } else {
            Err(self.into_error())
        }
    }

    /// The error that the code means (facts 3.1); a success where an error or bytes were due is a wrong answer.
    pub(super) fn into_error(self) -> MinerError {
        let text = format!("{} {}", self.code, printable(&self.msg));
        match self.code {
            404 => MinerError::Missing(text),
            // The miner's own trouble (disk, or its RPC node): later it may do what it cannot do now.
            500.. => MinerError::Unreachable(text),
            200 => MinerError::Wrong(format!("an answer without the bytes asked for: {text}")),
            _ => MinerError::Refused(text),
        }
    }
}

/// Whether an answer with these headers is a reply rather than a fragment's bytes.
pub(super) fn is_reply(headers: &HeaderMap) -> bool {
    is_of_type(headers, "application/json")
}

/// Whether it is a page for people, which no miner has.
pub(super) fn is_page(headers: &HeaderMap) -> bool {
    is_of_type(headers, "text/html")
}

fn is_of_type(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with(kind))
}

/// Reads a reply. Anything that is none (a web server that is no miner, a proxy's page) is an answer of nobody.
pub(super) async fn read(mut response: Response) -> Result<Reply, MinerError> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MINER_REPLY_BYTES_MAX {
            return Err(not_a_reply(status));
        }
        body.extend_from_slice(&chunk);
    }
    parse(status, &body)
}

/// Reads a reply's bytes.
pub(super) fn parse(status: StatusCode, body: &[u8]) -> Result<Reply, MinerError> {
    serde_json::from_slice(body).map_err(|_| not_a_reply(status))
}

/// Whatever answered was no miner: between it and us is a login page, a filter or a broken proxy, which says nothing of what it holds.
fn not_a_reply(status: StatusCode) -> MinerError {
    MinerError::Unreachable(format!(
        "HTTP {status} without a miner's answer: something on the way answers in its place"
    ))
}

/// The fields of `/status` that are used; a miner that leaves one out is not refused for it.
pub(super) fn status(data: Value) -> MinerStatus {
    MinerStatus {
        state: data.get("state").map(printable).unwrap_or_default(),
    }
}

/// A stranger's text as it may stand in a log or on a terminal.
fn printable(value: &Value) -> String {
    match value {
        Value::String(text) => crate::printable::printable(text, MINER_TEXT_CHARS_MAX),
        Value::Null => String::new(),
        other => crate::printable::printable(&other.to_string(), MINER_TEXT_CHARS_MAX),
    }
}
