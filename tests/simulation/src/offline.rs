//! An hour without network, between two in which all is well.

use crate::chain::{Link, RpcFaults, SimChain};
use crate::clock::SimClock;
use crate::death::Death;
use crate::device::{Device, Life, Outside, Secrets, Settings, bury, patiently, read, walk};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::miners::{SimMiners, Toxic};
use crate::restorer::restore;
use crate::run::FRAGMENT_BYTES;
use crate::trace::Trace;
use cessfs_sync::erasure::geometry::{segment_bytes, simulate};
use cessfs_sync::limits::PACKS_IN_FLIGHT;
use cessfs_sync::upkeep::UpkeepConfig;
use cessfs_sync::{ChunkStore, Clock};
use cessfs_vfs::{Caller, OpenFlags};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const SEED: u64 = 137;
const MINUTES: u32 = 60;
const BACKLOG_PACKS: u64 = 4;
/// So many bytes a minute: more in an hour than the backlog may hold.
const FILE_BYTES: usize = 10_000;
const ROOT: u64 = 1;
const WHO: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 1,
    umask: 0,
};

/// What was written, by path.
type Written = BTreeMap<String, (u64, Vec<u8>)>;

async fn write(life: &Life, dice: &mut Dice, written: &mut Written) {
    let name = format!("file-{}", written.len());
    let content = dice.bytes(FILE_BYTES);
    let flags = OpenFlags {
        write: true,
        ..OpenFlags::default()
    };
    let made = life.vfs.create(ROOT, name.as_bytes(), 0o600, flags, WHO);
    let (attr, handle) = made.expect("a file can be made, network or not");
    let done = life.vfs.write(attr.ino, handle, 0, &content, false).expect("write");
    assert_eq!(done.settled().await.expect("the cache has room") as usize, FILE_BYTES);
    life.vfs.fsync(attr.ino, handle, false).expect("fsync");
    life.vfs.release(attr.ino, handle).expect("release");
    written.insert(format!("/{name}"), (attr.ino, content));
}

/// Everything that was written can be read at once: time stands still meanwhile.
async fn all_is_here(life: &Life, clock: &SimClock, written: &Written) {
    let before = clock.monotonic();
    for (path, (ino, content)) in written {
        let found = read(&life.vfs, *ino).await.expect("what is resident can be read");
        assert!(found == *content, "{path} is not what was written");
    }
    assert_eq!(clock.monotonic(), before, "reading what is here waited for something");
}

async fn sync(life: &Life, clock: &SimClock) {
    let all = async {
        while life.vfs.write_back_all().is_err() {
            clock.sleep(Duration::from_secs(1)).await;
        }
        life.engine.settle().await.expect("settle");
    };
    patiently(clock, "everything drains", all).await.expect("in time");
}

/// Numbers of packs in the order in which the chain came to hold them, beginning with what it holds first.
async fn arrivals(chain: &SimChain, secrets: &Secrets, clock: &SimClock, numbers: &RefCell<Vec<u64>>) {
    let mut known = BTreeSet::new();
    loop {
        for (fid, file) in &chain.finalized().1.files {
            if known.insert(*fid) {
                let label = secrets.labels.open(&file.owners[0].1).expect("a label of this volume");
                numbers.borrow_mut().push(label.seq.0);
            }
        }
        clock.sleep(Duration::from_secs(1)).await;
    }
}

/// The oldest went first: only packs that are in flight together, or wait for their last reports, overtake each other.
fn assert_in_order(numbers: &[u64]) {
    for (index, number) in numbers.iter().enumerate() {
        let overtook = numbers[..index].iter().filter(|earlier| *earlier > number).count();
        assert!(
            overtook <= 2 * PACKS_IN_FLIGHT,
            "pack {number} was overtaken by {overtook}: {numbers:?}"
        );
    }
}

fn set_network(link: &Link, miners: &SimMiners, away: bool) {
    link.set_faults(RpcFaults {
        away,
        ..RpcFaults::default()
    });
    for number in 0..miners.count() {
        miners.set_toxic(number, away.then_some(Toxic::Gone));
    }
}

/// Writes a file every minute, and reads all of them.
async fn an_hour_of_writes(life: &Life, clock: &SimClock, dice: &mut Dice, written: &mut Written) {
    let bound = BACKLOG_PACKS * segment_bytes() as u64;
    let (mut refused, mut most) = (0, 0);
    for _ in 0..MINUTES {
        write(life, dice, written).await;
        for _ in 0..20 {
            clock.sleep(Duration::from_secs(3)).await;
            refused += u32::from(life.vfs.work().is_err());
        }
        // What waits to be sent has a bound; the rest stays in the cache.
        refused += u32::from(life.vfs.write_back_all().is_err());
        most = most.max(life.engine.backlog().unsent_bytes);
        all_is_here(life, clock, written).await;
    }
    assert!(refused > 0, "an hour of writes never came to the bound");
    assert!(
        most > bound / 2 && most <= bound + segment_bytes() as u64,
        "{most} of {bound} bytes"
    );
}

async fn script(clock: SimClock) {
    let trace = Trace::new(clock.clone(), false);
    let secrets = Arc::new(Secrets::new(SEED));
    let chain = SimChain::new(SEED, clock.clone(), trace.clone(), secrets.clone());
    let miners = SimMiners::new(SEED, 20, chain.clone(), clock.clone(), trace.clone());
    let outside = Outside {
        clock: clock.clone(),
        trace: trace.clone(),
        miners: miners.clone(),
        secrets,
        settings: Settings {
            pack_segments: 1,
            pack_age: Duration::from_secs(20),
            writeback_delay: Duration::from_millis(200),
            sealed: true,
            backlog_packs: BACKLOG_PACKS,
            upkeep: UpkeepConfig::by_hand(),
            second_machine: false,
        },
    };
    let mut dice = Dice::new(SEED, "offline");
    let node = |purpose| {
        Link::new(
            chain.clone(),
            clock.clone(),
            trace.clone(),
            Dice::new(SEED, purpose),
            Death::default(),
        )
    };
    let root = tempfile::tempdir().expect("a temporary directory");
    let disk = Disk::new(root.path().join("disk"));
    let mut device = Device::new(disk, node("node"), outside.clone(), Dice::new(SEED, "device"));
    let life = device.start(None).expect("the volume opens").expect("nobody dies");
    let mut written = Written::new();
    write(&life, &mut dice, &mut written).await;
    sync(&life, &clock).await;

    let sent = chain.stored().len();
    set_network(&device.link, &miners, true);
    an_hour_of_writes(&life, &clock, &mut dice, &mut written).await;
    assert_eq!(chain.stored().len(), sent, "without network nothing is sent");

    let numbers = RefCell::default();
    set_network(&device.link, &miners, false);
    tokio::select! {
        biased;
        () = sync(&life, &clock) => {}
        () = arrivals(&chain, &outside.secrets, &clock, &numbers) => {}
    }
    let numbers = numbers.into_inner();
    assert!(
        numbers.len() > sent + PACKS_IN_FLIGHT,
        "too few to show an order: {numbers:?}"
    );
    assert_in_order(&numbers[sent..]);
    assert_eq!(life.engine.backlog().unsent_bytes, 0);
    assert!(chain.stored().len() > sent);
    life.death.strike();
    bury(life).await;

    // Through an empty cache, from the network alone.
    let there = root.path().join("again");
    let disk = restore(&outside, node("restorer"), miners, &mut dice, there)
        .await
        .expect("recovered");
    let disk = disk.expect("there is a volume");
    let life = Device::new(disk, node("reader"), outside, dice)
        .start_idle()
        .expect("it opens");
    let found = walk(&life.vfs).await.expect("everything can be read");
    assert_eq!(found.len(), written.len());
    for (path, (_, content)) in &written {
        let file = found[path].as_ref().expect("it is a file");
        assert!(file.1 == *content, "{path} came back as something else");
    }
    assert_eq!(trace.violations(), Vec::<String>::new());
    life.death.strike();
    bury(life).await;
}

#[test]
fn an_hour_without_network_stops_at_the_bound_and_loses_nothing() {
    simulate(FRAGMENT_BYTES);
    let clock = SimClock::new(SEED);
    let (ticking, stuck) = (clock.clone(), clock.stuck());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || ticking.step())
        .build()
        .expect("a runtime of this thread");
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = stuck => panic!("nobody has anything to do, and nobody waits for a time"),
            () = script(clock) => {}
        }
    });
}
