//! Where the chunks of a file are, for `explain`.

use crate::control::{ChunkPlace, MinerPlace, PackPlace};
use crate::exit::Failure;
use crate::wiring::Volume;
use cessfs_crypto::SS58_PREFIX;
use cessfs_sync::engine::ChunkLocation;
use cessfs_sync::{ChunkStore, Standing};
use cessfs_vfs::ExtentInfo;

/// Where one of them is.
pub(super) fn chunk_place(volume: &Volume, extent: &ExtentInfo) -> Result<ChunkPlace, Failure> {
    let mut place = ChunkPlace {
        index: extent.index,
        len: extent.len,
        id: extent.stored.map(|id| hex::encode(id.0)),
        standing: standing_name(Standing::Unknown).to_owned(),
        resident: extent.resident,
        dirty: extent.dirty,
        pack: None,
    };
    if let Some(id) = extent.stored {
        place.standing = standing_name(volume.engine.standing(id)).to_owned();
        place.pack = volume.engine.locate(id)?.map(|location| pack_place(&location));
    }
    Ok(place)
}

fn pack_place(location: &ChunkLocation) -> PackPlace {
    let mut segments: Vec<u32> = location.pieces.iter().map(|piece| piece.segment).collect();
    segments.dedup();
    let mut columns: Vec<u8> = location.pieces.iter().map(|piece| piece.column).collect();
    columns.dedup();
    let miners = location.miners.iter().enumerate().filter_map(|(column, holder)| {
        let (account, endpoint) = holder.as_ref()?;
        Some(MinerPlace {
            column: column as u8,
            account: account.to_ss58(SS58_PREFIX),
            endpoint: endpoint.clone(),
        })
    });
    PackPlace {
        seq: location.seq.0,
        fid: location.fid.map(|fid| hex::encode(fid.0)),
        state: location
            .state
            .map_or_else(|| "open".to_owned(), |state| state.to_string()),
        offset: location.offset,
        segments,
        columns,
        miners: miners.collect(),
    }
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Unknown => "unknown",
        Standing::Open => "open",
        Standing::Sealed => "sealed",
        Standing::Stored => "stored",
        Standing::Confirmed => "confirmed",
    }
}
