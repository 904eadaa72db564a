//! `cessfs explain PATH`.

use super::{Context, print_json};
use crate::control::client::unexpected;
use crate::control::serving::{Serving, serving};
use crate::control::{ChunkPlace, Event, Explained, Op, Reply};
use crate::exit::Failure;
use crate::mountpoint;
use crate::output;
use crate::units;
use clap::Args;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Tell where a file's bytes are: chunks, packs, miners
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs explain ~/Photos/cat.jpg
  cessfs explain ~/Photos/cat.jpg --json | jq -r '.chunks[0].pack.miners[].account'")]
pub struct ExplainArgs {
    /// A file inside a mounted volume
    path: PathBuf,
}

/// Chunks of one pack that are all shown to a person; of longer runs the first and the last.
const RUN_SHOWN_MAX: usize = 8;

/// The JSON document.
#[derive(Serialize)]
struct Document {
    #[serde(serialize_with = "output::lossy")]
    path: PathBuf,
    /// The same, hex of its bytes.
    path_hex: String,
    volume: String,
    #[serde(flatten)]
    about: Explained,
    chunks: Vec<ChunkPlace>,
}

/// Asks the daemon of the mount that the path lies in.
///
/// # Errors
/// [`Exit::NotMounted`](crate::exit::Exit::NotMounted) when the path is in no mounted volume of this home.
pub fn run(args: &ExplainArgs, context: &Context) -> Result<(), Failure> {
    let path = mountpoint::resolve(&args.path)?;
    let mount = mountpoint::ours_of(&path)?;
    let Serving { mut client, status } = serving(&mount, &context.home)?;
    let path_hex = hex::encode(mountpoint::path_within(&mount, &path));
    let mut chunks = Vec::new();
    let reply = client.call(Op::Explain { path_hex }, &mut |event| {
        if let Event::Chunk(chunk) = event {
            chunks.push(*chunk);
        }
    });
    let reply = reply.map_err(|failure| failure.about(&path))?;
    let Reply::Explained(about) = reply else {
        return Err(unexpected(&reply));
    };
    if context.json {
        let volume = status.name;
        print_json(&Document {
            path_hex: hex::encode(path.as_os_str().as_bytes()),
            path,
            volume,
            about,
            chunks,
        });
    } else {
        say!(
            "{}: {}, {}, inode {}",
            output::name(&path.display().to_string()),
            about.kind,
            units::bytes(about.size),
            about.inode
        );
        if about.inline {
            say!("  lies in the volume's metadata and travels with it");
        }
        print_by_pack(&chunks);
    }
    Ok(())
}

/// Chunks in file order, the miners once for each run of chunks in the same pack.
fn print_by_pack(chunks: &[ChunkPlace]) {
    for run in chunks.chunk_by(|a, b| seq(a) == seq(b)) {
        let Some(pack) = &run[0].pack else {
            run.iter().for_each(print_chunk);
            continue;
        };
        let fid = pack.fid.as_deref().unwrap_or("not declared yet");
        say!("pack {} ({}), fid {fid}", pack.seq, pack.state);
        for miner in &pack.miners {
            let role = if miner.column < 4 { "data" } else { "parity" };
            let endpoint = output::name(miner.endpoint.as_deref().unwrap_or("endpoint unknown"));
            say!("  column {:>2} {role:6} {} {endpoint}", miner.column, miner.account);
        }
        if run.len() <= RUN_SHOWN_MAX {
            run.iter().for_each(print_chunk);
        } else {
            print_chunk(&run[0]);
            say!(
                "  … {} more chunks of this pack (all of them with --json) …",
                run.len() - 2
            );
            print_chunk(&run[run.len() - 1]);
        }
    }
}

fn seq(chunk: &ChunkPlace) -> Option<u64> {
    chunk.pack.as_ref().map(|pack| pack.seq)
}

fn print_chunk(chunk: &ChunkPlace) {
    let place = match (chunk.resident, chunk.dirty) {
        (true, true) => "in the cache, changed",
        (true, false) => "in the cache",
        (false, true) => "changed in part, the rest is not in the cache",
        (false, false) => "not in the cache",
    };
    let bytes = units::bytes(u64::from(chunk.len));
    say!("  chunk {}: {bytes}, {}, {place}", chunk.index, chunk.standing);
    if let Some(pack) = &chunk.pack {
        say!(
            "    at offset {} of the pack: segments {:?}, data columns {:?}",
            pack.offset,
            pack.segments,
            pack.columns
        );
    }
}
