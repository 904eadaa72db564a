//! Every limit of the devnet, by name.

use std::time::Duration;

/// Blocks that the finalized head lags behind the best one, unless told otherwise.
pub const FINALITY_LAG: u32 = 2;
/// Largest record of the chain's log, bytes. A block holds 5 MiB of transactions; its changes are of the same order.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Transactions in the pool, ready and future together.
pub const POOL_TRANSACTIONS_MAX: usize = 8192;
/// Bytes of a transaction. A declaration of 1000 segments takes 833,000.
pub const TRANSACTION_BYTES_MAX: usize = 5 << 20;
/// Bytes of a JSON-RPC request: the largest transaction in hex, and air.
pub const RPC_REQUEST_BYTES_MAX: u32 = 16 << 20;
/// Bytes of a JSON-RPC reply: a block of the largest transactions, and metadata.
pub const RPC_RESPONSE_BYTES_MAX: u32 = 64 << 20;
/// Clients at the same time.
pub const RPC_CONNECTIONS_MAX: u32 = 1024;
/// Keys that one `state_getKeysPaged` may ask for.
pub const KEYS_PER_PAGE_MAX: u32 = 1000;
/// Heads that a slow subscriber may fall behind before it misses some.
pub const HEADS_QUEUE: usize = 1024;
/// Miners of a devnet.
pub const MINERS_MAX: usize = 256;
/// Bytes of a request at the control socket.
pub const CONTROL_REQUEST_BYTES_MAX: u64 = 1 << 20;
/// Longest a client waits for the control socket's answer.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(150);
/// Longest an effect asked for at the control socket may take, blocks.
pub const EFFECT_BLOCKS_MAX: u32 = 20;
/// Longest such an effect may take on a chain that stands still.
pub const EFFECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest `up --daemon` waits for the network to answer.
pub const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest a devnet that was stopped waits for its own threads.
pub const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest `down` waits for the process to end.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// TCP ports are taken from here, below those the kernel gives to outgoing connections, so that a restart finds its own
/// ports free.
pub const PORTS: std::ops::Range<u16> = 18_000..32_000;
/// TCESS that the faucet gives.
pub const FAUCET_TCESS: u128 = 100_000;
/// TCESS a miner starts with, for the fees of its reports.
pub const MINER_TCESS: u128 = 1_000_000;

// Expiring a territory takes four effects: freeze, wait, expire, wait.
const _: () = assert!(CONTROL_TIMEOUT.as_secs() > 4 * EFFECT_TIMEOUT.as_secs());
const _: () = assert!(TRANSACTION_BYTES_MAX * 2 < RPC_REQUEST_BYTES_MAX as usize);
const _: () = assert!(PORTS.end as usize - PORTS.start as usize > 8 * MINERS_MAX);
