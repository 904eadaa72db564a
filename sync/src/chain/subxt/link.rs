//! One connection to the chain's RPC, made when it is needed and made again after it broke.
//!
//! The methods are the long-standing ones that every Substrate node has (`chain_`, `state_`, `author_`), not the newer
//! `chainHead_` ones: those need a subscription kept alive over the whole connection, which public endpoints limit.

use super::fault::{away, fault};
use super::shape;
use crate::chain::{ChainError, Head, Pin};
use crate::fragment_store::Reach;
use crate::limits::{
    CHAIN_ANSWER_BYTES_MAX, CHAIN_CONNECT_TIMEOUT, CHAIN_LAG_MAX, CHAIN_NAME_CHARS_MAX, CHAIN_PAGE_ENTRIES,
    CHAIN_PING_INTERVAL, CHAIN_RECONNECT_PAUSE, CHAIN_REQUEST_TIMEOUT, CHAIN_SILENCE_MAX, TOKEN_CHARS_MAX,
};
use crate::printable::printable;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use subxt::backend::LegacyBackend;
use subxt::client::OnlineClientAtBlock;
use subxt::config::RpcConfigFor;
use subxt::ext::jsonrpsee::async_client::PingConfig;
use subxt::ext::jsonrpsee::ws_client::WsClientBuilder;
use subxt::rpcs::client::{RpcClient, RpcParams};
use subxt::rpcs::methods::legacy::{LegacyRpcMethods, SystemProperties};
use subxt::{OnlineClient, SubstrateConfig};

/// A client at one block.
pub(super) type At = OnlineClientAtBlock<SubstrateConfig>;

/// Statuses of one transaction that may wait to be read.
const SUBSCRIPTION_BUFFER_ITEMS: usize = 64;

/// How far finality was when a node last said so. It never goes back, so who answers with less lags behind: behind one address may be
/// several nodes, and what a node does not have yet must not be taken for what never was, or is no more.
///
/// A height that nothing comes near again was a lie or a mistake, and would make all that is true look late. So it is forgotten
/// once there were only lower answers for [`CHAIN_LAG_MAX`], from a chain that moved on meanwhile.
#[derive(Clone, Default)]
struct Finality(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    height: u64,
    /// When the lower answers began, and with which height; `None` after one that is not lower.
    lower: Option<(Instant, u64)>,
}

impl Finality {
    fn height(&self) -> u64 {
        self.0.lock().height
    }

    /// Takes what a node said at `now` to whoever asked when finality was at `before`.
    fn heard(&self, before: u64, height: u64, now: Instant) -> Result<(), ChainError> {
        let mut heard = self.0.lock();
        if height >= heard.height {
            *heard = Heard { height, lower: None };
            return Ok(());
        }
        if height >= before {
            return Ok(());
        }
        let (since, first) = *heard.lower.get_or_insert((now, height));
        if now.duration_since(since) >= CHAIN_LAG_MAX && height > first {
            tracing::warn!(
                forgotten = heard.height,
                height,
                "no node is near a height that one told: it is forgotten"
            );
            *heard = Heard { height, lower: None };
            return Ok(());
        }
        Err(ChainError::Away(format!(
            "the node lags behind: block {before} was final already, and it is at {height}"
        )))
    }
}

/// Where the RPC is, and the connection to it if there is one.
pub(super) struct Dial {
    url: String,
    pin: Pin,
    finality: Finality,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    failed: Option<(Instant, ChainError)>,
}

impl Dial {
    pub(super) fn new(url: String, pin: Pin) -> Dial {
        Dial {
            url,
            pin,
            finality: Finality::default(),
            state: tokio::sync::Mutex::default(),
        }
    }

    /// Finality was this far in an earlier run.
    pub(super) fn note_final(&self, height: u32) {
        let mut heard = self.finality.0.lock();
        heard.height = heard.height.max(u64::from(height));
    }

    /// The connection, made now if there is none. Tells also whether it was made before.
    pub(super) async fn link(&self) -> Result<(Arc<Link>, bool), ChainError> {
        let mut state = self.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| !link.is_broken()) {
            return Ok((link.clone(), true));
        }
        if let Some((when, error)) = &state.failed
            && when.elapsed() < CHAIN_RECONNECT_PAUSE
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(link) => {
                let link = Arc::new(link);
                *state = State {
                    link: Some(link.clone()),
                    failed: None,
                };
                Ok((link, false))
            }
            Err(error) => {
                *state = State {
                    link: None,
                    failed: Some((Instant::now(), error.clone())),
                };
                Err(error)
            }
        }
    }

    /// Connects to a node of the network that the client belongs to.
    async fn connect(&self) -> Result<Link, ChainError> {
        let link = Link::connect(&self.url, self.finality.clone()).await?;
        self.pin.admit(link.genesis())?;
        Ok(link)
    }
}

/// A connection.
pub(super) struct Link {
    raw: RpcClient,
    /// The long-standing methods.
    pub(super) rpc: LegacyRpcMethods<RpcConfigFor<SubstrateConfig>>,
    client: OnlineClient<SubstrateConfig>,
    finality: Finality,
    /// Where the miners of this node may be.
    pub(super) reach: Reach,
    /// What `system_chain` answers.
    pub(super) name: String,
    /// Verdicts by spec version, because a runtime upgrade changes the metadata under a living connection.
    verdicts: Mutex<BTreeMap<u32, Result<(), ChainError>>>,
    broken: AtomicBool,
}

impl Link {
    async fn connect(url: &str, finality: Finality) -> Result<Link, ChainError> {
        let connect = async {
            let socket = WsClientBuilder::default()
                .connection_timeout(CHAIN_CONNECT_TIMEOUT)
                .request_timeout(CHAIN_REQUEST_TIMEOUT)
                .max_response_size(CHAIN_ANSWER_BYTES_MAX)
                .max_buffer_capacity_per_subscription(SUBSCRIPTION_BUFFER_ITEMS)
                .enable_ws_ping(
                    PingConfig::new()
                        .ping_interval(CHAIN_PING_INTERVAL)
                        .inactive_limit(CHAIN_SILENCE_MAX)
                        .max_failures(1),
                )
                .build(url)
                .await
                .map_err(|e| away(&e))?;
            let raw = RpcClient::new(socket);
            let rpc = LegacyRpcMethods::new(raw.clone());
            let backend = LegacyBackend::builder()
                .storage_page_size(CHAIN_PAGE_ENTRIES)
                .build(raw.clone());
            let client = OnlineClient::from_backend(Arc::new(backend)).await.map_err(fault)?;
            let name = printable(&rpc.system_chain().await.map_err(fault)?, CHAIN_NAME_CHARS_MAX);
            let (verdicts, broken) = Default::default();
            Ok(Link {
                raw,
                rpc,
                client,
                finality,
                reach: Reach::beside(url),
                name,
                verdicts,
                broken,
            })
        };
        // Three answers at most; each has its own limit, and the whole one too.
        limited(CHAIN_CONNECT_TIMEOUT + CHAIN_REQUEST_TIMEOUT, connect).await
    }

    /// Nobody shall use this connection again.
    pub(super) fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// A client at a head, on a chain whose shape is known.
    pub(super) async fn at(&self, head: Head) -> Result<At, ChainError> {
        let at = match head {
            Head::Finalized => {
                let before = self.finality.height();
                let at = self.client.at_current_block().await.map_err(fault)?;
                self.finality.heard(before, at.block_number(), Instant::now())?;
                at
            }
            Head::Best => {
                let best = self.rpc.chain_get_block_hash(None).await.map_err(fault)?;
                let best = best.ok_or_else(|| ChainError::Away("the node has no best block".into()))?;
                self.client.at_block(best).await.map_err(fault)?
            }
        };
        let known = self.verdicts.lock().get(&at.spec_version()).cloned();
        match known {
            Some(verdict) => verdict?,
            None => {
                let verdict = shape::check(&at);
                self.verdicts.lock().insert(at.spec_version(), verdict.clone());
                verdict?;
            }
        }
        Ok(at)
    }

    pub(super) fn genesis(&self) -> [u8; 32] {
        self.client.genesis_hash().0
    }

    /// The first token symbol that `system_properties` tells, or none.
    pub(super) async fn token_symbol(&self) -> Result<Option<String>, ChainError> {
        let properties: SystemProperties = self.rpc.system_properties().await.map_err(fault)?;
        let symbol = properties.get("tokenSymbol");
        let first = symbol.and_then(|symbol| symbol.get(0)).or(symbol);
        let symbol = first.and_then(|symbol| symbol.as_str());
        Ok(symbol.map(|symbol| printable(symbol, TOKEN_CHARS_MAX)))
    }

    /// Calls a method that is not part of Substrate.
    pub(super) async fn request(&self, method: &str, argument: &str) -> Result<serde_json::Value, ChainError> {
        let mut params = RpcParams::new();
        params.push(argument).expect("text is JSON");
        self.raw.request(method, params).await.map_err(fault)
    }
}

/// Runs `work` within a time; late is away.
pub(super) async fn limited<T>(
    time: Duration,
    work: impl Future<Output = Result<T, ChainError>>,
) -> Result<T, ChainError> {
    match tokio::time::timeout(time, work).await {
        Ok(result) => result,
        Err(_) => Err(ChainError::Away(format!("no answer within {time:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finality_never_goes_back() {
        let (finality, now) = (Finality::default(), Instant::now());
        assert!(finality.heard(0, 10, now).is_ok() && finality.heard(10, 10, now).is_ok());
        assert!(finality.heard(10, 12, now).is_ok());
        assert!(finality.heard(10, 11, now).is_ok(), "asked before somebody heard of 12");
        let behind = finality.heard(finality.height(), 11, now);
        assert!(matches!(behind, Err(ChainError::Away(_))));
        assert_eq!(finality.height(), 12);
    }

    #[test]
    fn a_height_that_nothing_comes_near_is_forgotten() {
        let (finality, start) = (Finality::default(), Instant::now());
        let hear = |height, after| finality.heard(finality.height(), height, start + after);
        let (second, late) = (Duration::from_secs(1), CHAIN_LAG_MAX + Duration::from_secs(1));
        assert!(hear(1 << 63, Duration::ZERO).is_ok());
        assert!(hear(100, second).is_err() && hear(150, CHAIN_LAG_MAX).is_err());
        assert!(hear(100, late).is_err(), "a chain that stands still tells nothing");
        assert!(hear(160, late).is_ok());
        assert_eq!(finality.height(), 160);
        // One that is confirmed in between is not.
        assert!(hear(150, late).is_err() && hear(161, late + second).is_ok());
        assert!(hear(155, late * 2).is_err() && hear(156, late * 2 + second).is_err());
    }
}
