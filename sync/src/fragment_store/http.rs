//! Miners over HTTP: the real side of [`FragmentStore`].
//!
//! The dialect is that of the network's miners (facts 3.1) and differs from ordinary HTTP in three ways: errors come with
//! status 200 and a JSON body, ranges end exclusively and name the total (`bytes=0-1024/8388608`), and every request is
//! signed, though with any key: miners check the signature and not the signer. Therefore one random message is signed
//! once, with a key made for it and thrown away, and nothing that names the owner's account goes to a miner.
//!
//! An `https` endpoint is spoken to over TLS, with the certificate authorities of the system: nothing rests on it, since what
//! a miner is given is sealed and what it answers is checked.
//!
//! Promises that a request ends when nothing moves: connecting, probing and every pause in a transfer have their own limit. How
//! long a whole transfer may take is the caller's to say (`miners.rs`). Does not check hashes and does not retry; the caller
//! knows which other miner to ask.

#![expect(
    clippy::disallowed_methods,
    reason = "the real side of a seam: its time is that of its connections"
)]

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod reach;
mod reply;
mod stall;

pub use self::reach::Reach;
use super::{Fid, FragmentBody, FragmentStore, MinerError, MinerStatus, Sha256Hash};
use crate::limits::{
    FRAGMENT_BYTES, MINER_CONNECT_TIMEOUT, MINER_IDLE_CONNECTIONS_MAX, MINER_IDLE_TIMEOUT, MINER_STALL_TIMEOUT,
    MINER_TEXT_CHARS_MAX, PROBE_DEADLINE,
};
use crate::printable::printable;
use bytes::{Bytes, BytesMut};
use cessfs_crypto::{AccountKey, Entropy, SS58_PREFIX};
use futures::FutureExt;
use futures::future::BoxFuture;
use reach::Within;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Client, ClientBuilder, RequestBuilder, Response, StatusCode};
use stall::Progress;
use std::fmt::Display;
use std::ops::Range;
use std::time::Duration;

/// Bytes of randomness in the message that is signed.
const MESSAGE_BYTES: usize = 16;

/// A client of all miners; clones share connections.
#[derive(Clone)]
pub struct HttpFragments {
    client: Client,
    /// Account, message and signature.
    identity: HeaderMap,
    stall: Duration,
}

impl HttpFragments {
    /// A client with an identity of its own, made from `entropy`, of miners within `reach`. Connects to nobody yet.
    ///
    /// # Errors
    /// `Unreachable` if the system lets no HTTP client be made.
    pub fn new(entropy: &mut dyn Entropy, reach: Reach) -> Result<HttpFragments, MinerError> {
        // Fails where another part of the program was first, which chose the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = client(reach).build().or_else(|error| {
            // Most miners speak plain HTTP: a machine without certificates of authorities reaches those.
            tracing::warn!(%error, "no certificate authorities on this machine: miners behind https are not reached");
            client(reach).tls_certs_only([]).build()
        });
        let client = client.map_err(unreachable)?;
        Ok(HttpFragments {
            client,
            identity: identity(entropy),
            stall: MINER_STALL_TIMEOUT,
        })
    }

    async fn put(self, url: String, names: HeaderMap, body: FragmentBody) -> Result<(), MinerError> {
        let progress = Progress::new(self.stall);
        let stream = Body::wrap_stream(progress.watch(body));
        let part = Part::stream_with_length(stream, FRAGMENT_BYTES as u64).file_name("fragment");
        let request = self
            .client
            .put(url)
            .headers(names)
            .multipart(Form::new().part("file", part));
        let response = progress.limit(self.send(request)).await??;
        let reply = progress.limit(reply::read(response)).await??;
        reply.into_result().map(drop)
    }

    async fn get(self, url: String, names: HeaderMap, range: Range<u32>) -> Result<Bytes, MinerError> {
        let want = checked_length(&range)?;
        let mut request = self.client.get(url).headers(names);
        let mut status = StatusCode::OK;
        if want < FRAGMENT_BYTES {
            request = request.header(RANGE, format!("bytes={}-{}/{FRAGMENT_BYTES}", range.start, range.end));
            status = StatusCode::PARTIAL_CONTENT;
        }
        let progress = Progress::new(self.stall);
        let mut response = progress.limit(self.send(request)).await??;
        let headers = response.headers();
        if reply::is_reply(headers) || reply::is_page(headers) || response.status() != status {
            return Err(progress.limit(reply::read(response)).await??.into_error());
        }
        let mut body = Gathered::of(want);
        loop {
            progress.note();
            match progress.limit(response.chunk()).await?.map_err(unreachable)? {
                Some(chunk) => body.push(&chunk)?,
                None => return body.finish(),
            }
        }
    }

    async fn probe(self, url: String) -> Result<MinerStatus, MinerError> {
        let ask = async {
            let reply = reply::read(self.send(self.client.get(url)).await?).await?;
            reply.into_result().map(reply::status)
        };
        tokio::time::timeout(PROBE_DEADLINE, ask)
            .await
            .map_err(|_| MinerError::Unreachable(format!("no status within {PROBE_DEADLINE:?}")))?
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, MinerError> {
        request.headers(self.identity.clone()).send().await.map_err(unreachable)
    }
}

impl FragmentStore for HttpFragments {
    fn put(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        body: FragmentBody,
    ) -> BoxFuture<'static, Result<(), MinerError>> {
        self.clone()
            .put(url(endpoint, "fragment"), names(fid, fragment), body)
            .boxed()
    }

    fn get(
        &self,
        endpoint: &str,
        fid: Fid,
        fragment: Sha256Hash,
        range: Range<u32>,
    ) -> BoxFuture<'static, Result<Bytes, MinerError>> {
        self.clone()
            .get(url(endpoint, "fragment"), names(fid, fragment), range)
            .boxed()
    }

    fn probe(&self, endpoint: &str) -> BoxFuture<'static, Result<MinerStatus, MinerError>> {
        self.clone().probe(url(endpoint, "status")).boxed()
    }
}

/// The bytes of an answer so far: as many as were asked for, or none at all.
struct Gathered {
    bytes: BytesMut,
    want: usize,
}

impl Gathered {
    fn of(want: usize) -> Gathered {
        Gathered {
            bytes: BytesMut::with_capacity(want),
            want,
        }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), MinerError> {
        if chunk.len() > self.want - self.bytes.len() {
            return Err(MinerError::Wrong(format!(
                "more than the {} bytes asked for",
                self.want
            )));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(self) -> Result<Bytes, MinerError> {
        match self.bytes.len() == self.want {
            true => Ok(self.bytes.freeze()),
            false => Err(MinerError::Wrong(format!(
                "{} of {} bytes",
                self.bytes.len(),
                self.want
            ))),
        }
    }
}

fn client(reach: Reach) -> ClientBuilder {
    Client::builder()
        .dns_resolver(Within(reach))
        .connect_timeout(MINER_CONNECT_TIMEOUT)
        .pool_idle_timeout(MINER_IDLE_TIMEOUT)
        .pool_max_idle_per_host(MINER_IDLE_CONNECTIONS_MAX)
        // A miner has no business to send us elsewhere, and a proxy of the environment would see all fragments.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

fn url(endpoint: &str, path: &str) -> String {
    format!("{}/{path}", endpoint.trim_end_matches('/'))
}

fn names(fid: Fid, fragment: Sha256Hash) -> HeaderMap {
    HeaderMap::from_iter([
        header("fid", &hex::encode(fid.0)),
        header("fragment", &hex::encode(fragment.0)),
    ])
}

/// The headers by which a miner knows that somebody signed: a random message by a random account.
fn identity(entropy: &mut dyn Entropy) -> HeaderMap {
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    let key = AccountKey::from_seed(&seed);
    let mut random = [0; MESSAGE_BYTES];
    entropy.fill(&mut random);
    let message = hex::encode(random);
    let signature = key.sign(message.as_bytes(), entropy);
    HeaderMap::from_iter([
        header("account", &key.account_id().to_ss58(SS58_PREFIX)),
        header("message", &message),
        header("signature", &hex::encode(signature)),
    ])
}

fn header(name: &'static str, value: &str) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(value).expect("hex and base58 are header text");
    (HeaderName::from_static(name), value)
}

/// Bytes of a range that a fragment has.
fn checked_length(range: &Range<u32>) -> Result<usize, MinerError> {
    if range.start < range.end && range.end as usize <= FRAGMENT_BYTES {
        Ok((range.end - range.start) as usize)
    } else {
        Err(MinerError::Refused(format!(
            "a fragment has no bytes {}..{}",
            range.start, range.end
        )))
    }
}

/// What a transport error says, with its causes: reqwest's own text stops at "error sending request".
fn unreachable(error: reqwest::Error) -> MinerError {
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        append(&mut text, &error);
        cause = error.source();
    }
    MinerError::Unreachable(printable(&text, MINER_TEXT_CHARS_MAX))
}

fn append(text: &mut String, cause: &impl Display) {
    let cause = cause.to_string();
    if !text.contains(&cause) {
        text.push_str(": ");
        text.push_str(&cause);
    }
}

#[cfg(test)]
mod tests;
