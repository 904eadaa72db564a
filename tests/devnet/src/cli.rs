//! The command line. Machines read the last line of `up` and `status --json`; everything else is for people.

mod amount;
mod up;

use anyhow::{Context, Result, bail};
use cessfs_devnet::{
    control::{MinerVerb, Request, ask},
    limits::STOP_TIMEOUT,
    network::{self, Wish},
};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A CESS network in one process: a chain with CESS's rules and miners, for tests and demos.
#[derive(Parser)]
#[command(name = "cessfs-devnet", version)]
struct Cli {
    /// The devnet's directory.
    #[arg(long, global = true, env = "CESSFS_DEVNET_DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the devnet in the directory, or a new one. The last line it prints is the URL of its RPC.
    Up(Up),
    /// Stop it. What it holds stays.
    Down,
    /// Show what it is and does.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Do something to miners.
    #[command(subcommand)]
    Miner(Miner),
    /// Make money for an account.
    Fund {
        /// Account, SS58.
        address: String,
        /// TCESS, with up to 18 decimals.
        #[arg(value_parser = amount::planck)]
        amount: u128,
    },
    /// Take an account's money, all but an amount.
    Drain {
        /// Account, SS58.
        address: String,
        /// TCESS that stay.
        #[arg(value_parser = amount::planck)]
        amount: u128,
    },
    /// Do something to the chain.
    #[command(subcommand)]
    Chain(Chain),
    /// Switch a call of the chain off or on.
    #[command(subcommand)]
    Call(Call),
    /// End a territory before its time.
    #[command(subcommand)]
    Territory(Territory),
}

#[derive(Args)]
struct Up {
    /// Miners (16 unless it exists; fixed from then on).
    #[arg(long)]
    miners: Option<usize>,
    /// Idle space of each miner, GiB (64 unless it exists; fixed from then on).
    #[arg(long, value_name = "GIB")]
    miner_space: Option<u32>,
    /// Milliseconds from block to block (500 for a new devnet).
    #[arg(long)]
    block_ms: Option<u64>,
    /// Milliseconds between a miner's looks for files to report (500 for a new devnet).
    #[arg(long)]
    report_ms: Option<u64>,
    /// What the chain calls itself (cess-devnet-local for a new devnet). Under any other name it has no faucet.
    #[arg(long, value_name = "NAME")]
    chain: Option<String>,
    /// Detach, and return when the network answers.
    #[arg(long)]
    daemon: bool,
    /// We are the detached process.
    #[arg(long, hide = true)]
    detached: bool,
}

#[derive(Subcommand)]
enum Miner {
    /// Take them off the network.
    Stop(Indexes),
    /// Put them back on it.
    Start(Indexes),
    /// Damage every fragment they hold now.
    Corrupt(Indexes),
    /// Delete every fragment they hold now.
    Forget(Indexes),
    /// Delay each of their answers; 0 ends it.
    Slow {
        /// Milliseconds.
        #[arg(long, default_value_t = 2000)]
        ms: u64,
        #[command(flatten)]
        indexes: Indexes,
    },
    /// Set the state of their records on the chain: positive, frozen, exit, lock, offline, not ready.
    State {
        /// The state.
        state: String,
        #[command(flatten)]
        indexes: Indexes,
    },
}

#[derive(Args)]
struct Indexes {
    /// Miners, from 0.
    #[arg(required = true, value_name = "INDEX")]
    indexes: Vec<usize>,
}

#[derive(Subcommand)]
enum Chain {
    /// Stop making blocks.
    Pause,
    /// Make blocks again.
    Resume,
    /// Set how many blocks the final head lags behind the best (2 after a start).
    Lag {
        /// Blocks.
        blocks: u32,
    },
    /// Tell another name, of the same length, in the metadata: a runtime that clients don't know. A restart ends it.
    Rename {
        /// The name of a call, say.
        name: String,
        /// What is told instead.
        told: String,
    },
    /// Set the price of territory per GiB and day.
    Price {
        /// TCESS.
        #[arg(value_parser = amount::planck)]
        amount: u128,
    },
}

#[derive(Subcommand)]
enum Call {
    /// Switch it off.
    Pause(CallName),
    /// Switch it on again.
    Resume(CallName),
}

#[derive(Args)]
struct CallName {
    /// Pallet, such as FileBank.
    pallet: String,
    /// Call, such as upload_declaration.
    call: String,
}

#[derive(Subcommand)]
enum Territory {
    /// As if its deadline were now.
    Freeze(TerritoryName),
    /// As if its deadline and its seven days of grace were over: its files go.
    Expire(TerritoryName),
}

#[derive(Args)]
struct TerritoryName {
    /// The owner's account, SS58.
    account: String,
    /// The territory's name.
    name: String,
}

/// Runs the command line.
///
/// # Errors
/// What the user has to know.
pub fn main() -> Result<()> {
    let cli = Cli::parse();
    let dir = cli.dir.context("which devnet? Say --dir DIR")?;
    match cli.command {
        Command::Up(up) => {
            let Up {
                miners,
                miner_space,
                block_ms,
                report_ms,
                chain,
                daemon,
                detached,
            } = up;
            up::up(
                &dir,
                &Wish {
                    miners,
                    miner_space_gib: miner_space,
                    block_ms,
                    report_ms,
                    chain,
                },
                daemon,
                detached,
            )
        }
        Command::Down => down(&dir),
        Command::Status { json } => status(&dir, json),
        Command::Miner(miner) => do_miner(&dir, miner),
        Command::Fund { address, amount } => {
            ask(
                &dir,
                &Request::Fund {
                    address: address.clone(),
                    planck: amount.to_string(),
                },
            )?;
            println!("{address} has {} TCESS more.", amount::text(amount));
            Ok(())
        }
        Command::Drain { address, amount } => tell(
            &dir,
            &Request::Drain {
                address,
                planck: amount.to_string(),
            },
        ),
        Command::Chain(chain) => tell(&dir, &chain_request(&chain)),
        Command::Call(call) => {
            let (CallName { pallet, call }, pause) = match call {
                Call::Pause(name) => (name, true),
                Call::Resume(name) => (name, false),
            };
            tell(&dir, &Request::CallPause { pallet, call, pause })
        }
        Command::Territory(territory) => {
            let (TerritoryName { account, name }, expire) = match territory {
                Territory::Freeze(name) => (name, false),
                Territory::Expire(name) => (name, true),
            };
            tell(&dir, &Request::Territory { account, name, expire })
        }
    }
}

/// Asks for something that has no answer worth printing.
fn tell(dir: &Path, request: &Request) -> Result<()> {
    ask(dir, request).map(drop)
}

fn chain_request(chain: &Chain) -> Request {
    match chain {
        Chain::Pause => Request::ChainPause { pause: true },
        Chain::Resume => Request::ChainPause { pause: false },
        Chain::Rename { name, told } => Request::ChainRename {
            name: name.clone(),
            told: told.clone(),
        },
        Chain::Lag { blocks } => Request::ChainLag { blocks: *blocks },
        Chain::Price { amount } => Request::ChainPrice {
            planck: amount.to_string(),
        },
    }
}

fn do_miner(dir: &Path, miner: Miner) -> Result<()> {
    let (Indexes { indexes }, verb, done) = match miner {
        Miner::Stop(indexes) => (indexes, MinerVerb::Stop, None),
        Miner::Start(indexes) => (indexes, MinerVerb::Start, None),
        Miner::Corrupt(indexes) => (indexes, MinerVerb::Corrupt, Some("damaged")),
        Miner::Forget(indexes) => (indexes, MinerVerb::Forget, Some("deleted")),
        Miner::Slow { ms, indexes } => (indexes, MinerVerb::Slow(ms), None),
        Miner::State { state, indexes } => (indexes, MinerVerb::State(state), None),
    };
    let answer = ask(
        dir,
        &Request::Miner {
            indexes: indexes.clone(),
            verb,
        },
    )?;
    for (index, count) in indexes.iter().zip(answer["fragments"].as_array().into_iter().flatten()) {
        println!("miner {index}: {count} fragments {}", done.unwrap_or_default());
    }
    Ok(())
}

/// Ends the process and waits until it is gone.
fn down(dir: &Path) -> Result<()> {
    if !dir.is_dir() || network::lock(dir)?.is_some() {
        println!("no devnet runs in {}", dir.display());
        return Ok(());
    }
    ask(dir, &Request::Stop)?;
    let deadline = Instant::now() + STOP_TIMEOUT;
    while network::lock(dir)?.is_none() {
        if Instant::now() > deadline {
            bail!("the devnet did not end within {} s", STOP_TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("stopped");
    Ok(())
}

fn status(dir: &Path, json: bool) -> Result<()> {
    let status = ask(dir, &Request::Status)?;
    if json {
        println!("{status}");
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    println!("RPC     {} (pid {})", text(&status["ws"]), status["pid"]);
    let standing = if status["paused"] == true { ", paused" } else { "" };
    println!(
        "Chain   block {}, final {}{standing}",
        status["height"], status["finalized"]
    );
    for (name, count) in status["events"].as_object().into_iter().flatten() {
        println!("        {count} x {name}");
    }
    for miner in status["miners"].as_array().into_iter().flatten() {
        let (state, on_chain) = (text(&miner["state"]), text(&miner["chain_state"]));
        let slow = miner["slow_ms"]
            .as_u64()
            .filter(|ms| *ms > 0)
            .map(|ms| format!(", {ms} ms slow"));
        println!(
            "Miner   {:>3}  {}  {}  {state}, {on_chain}{}, {} fragments",
            miner["index"],
            text(&miner["account"]),
            text(&miner["endpoint"]),
            slow.unwrap_or_default(),
            miner["fragments"],
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
