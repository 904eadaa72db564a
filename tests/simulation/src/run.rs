//! One seed: a world is made, lives, ends, and is judged.

mod witness;

use crate::actors::Stage;
use crate::chain::{Link, SimChain};
use crate::chaos::{Chaos, Outsiders, Weather};
use crate::clock::SimClock;
use crate::death::Death;
use crate::device::{Device, GRACE_MIN, Life, Outside, Secrets, Settings, bury, patiently, walk};
use crate::dice::Dice;
use crate::disk::{Crash, Disk, dump};
use crate::miners::SimMiners;
use crate::model::{Found, Model};
use crate::panics;
use crate::restorer::restore;
use crate::trace::Trace;
use cessfs_sync::Clock;
use cessfs_sync::erasure::{geometry, sha256};
use cessfs_sync::rules::{Rule, forget_persisted, switch_off};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a fragment in simulated networks.
pub const FRAGMENT_BYTES: usize = 16 << 10;
/// Columns of every pack that are destroyed before the last recovery.
const DESTROYED_COLUMNS: usize = 8;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Print what happens.
    pub aloud: bool,
    /// A rule that does not hold in this world.
    pub broken: Option<Rule>,
}

impl Options {
    /// A seed in a world where every rule holds.
    pub fn of(seed: u64) -> Options {
        Options {
            seed,
            aloud: false,
            broken: None,
        }
    }
}

/// What became of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Promises broken; empty when all is well.
    pub violations: Vec<String>,
    /// Everything counted.
    pub counts: BTreeMap<&'static str, u64>,
    /// Hash of journals, chain, miners, the next random numbers, the clock, and of all that happened on the way.
    pub state: [u8; 32],
    /// How long it lasted by its own clock.
    pub lasted: Duration,
}

struct World {
    outside: Outside,
    chain: SimChain,
    model: RefCell<Model>,
    dice: RefCell<Dice>,
    root: tempfile::TempDir,
    devices: Vec<Device>,
    /// Machines that others took over from, still on.
    older: Vec<Life>,
    /// Nodes may leave things out.
    omits: Rc<Cell<bool>>,
    pace: Duration,
    disks: Cell<u32>,
}

/// Runs a seed from beginning to end, in a thread of its own.
pub fn simulate(options: Options) -> Outcome {
    geometry::simulate(FRAGMENT_BYTES);
    #[expect(
        clippy::disallowed_methods,
        reason = "a world has a thread to itself, and no other in it"
    )]
    let thread = std::thread::spawn(move || in_this_thread(options));
    thread.join().unwrap_or_else(|panic| {
        let told = panic.downcast_ref::<String>().cloned();
        let told = told.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        Outcome {
            seed: options.seed,
            violations: vec![format!("panic: {}", told.unwrap_or_default())],
            counts: BTreeMap::new(),
            state: [0; 32],
            lasted: Duration::ZERO,
        }
    })
}

fn in_this_thread(options: Options) -> Outcome {
    panics::note();
    forget_persisted();
    switch_off(options.broken);
    let clock = SimClock::new(options.seed);
    let trace = Trace::new(clock.clone(), options.aloud);
    let ticking = clock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || ticking.step())
        .build()
        .expect("a runtime of this thread");
    let stuck = clock.stuck();
    let state = runtime.block_on(async {
        let mut world = World::new(options, clock.clone(), trace.clone());
        let verdict = tokio::select! {
            biased;
            () = stuck => Err("nobody has anything to do, and nobody waits for a time".into()),
            verdict = world.script() => verdict,
        };
        if let Err(loss) = verdict {
            trace.violation(loss);
        }
        world.fingerprint()
    });
    drop(runtime);
    Outcome {
        seed: options.seed,
        violations: trace.violations().into_iter().chain(panics::take()).collect(),
        counts: trace.counts(),
        state,
        lasted: clock.monotonic(),
    }
}

/// Files of simulated disks: in memory where there is such a place, for nothing here is about real disks.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::Builder::new().prefix("cessfs-sim-").tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a directory for simulated disks")
}

impl World {
    fn new(options: Options, clock: SimClock, trace: Trace) -> World {
        let seed = options.seed;
        let mut dice = Dice::new(seed, "world");
        let secrets = Arc::new(Secrets::new(seed));
        let chain = SimChain::new(seed, clock.clone(), trace.clone(), secrets.clone());
        let count = 20 + dice.below(21) as u8;
        let miners = SimMiners::new(seed, count, chain.clone(), clock.clone(), trace.clone());
        // What guards two machines from each other shows only where there are two.
        let taken_over = matches!(options.broken, Some(Rule::Fence | Rule::Grace));
        let settings = Settings::new(&mut dice, taken_over);
        let pace = dice.time(Duration::from_secs(5), Duration::from_secs(300));
        trace.note(format_args!(
            "world {seed}: {count} miners, {settings:?}, pace {pace:?}"
        ));
        World {
            outside: Outside {
                clock,
                trace,
                miners,
                secrets,
                settings,
            },
            chain,
            model: RefCell::new(Model::new(0)),
            dice: RefCell::new(dice),
            root: scratch(),
            devices: Vec::new(),
            older: Vec::new(),
            omits: Rc::new(Cell::new(true)),
            pace,
            disks: Cell::new(0),
        }
    }

    fn link(&self, purpose: &str) -> Link {
        let dice = Dice::new(self.dice.borrow_mut().word(), purpose);
        let Outside { clock, trace, .. } = self.outside.clone();
        Link::new(self.chain.clone(), clock, trace, dice, Death::default())
    }

    fn below(&self, bound: u64) -> u64 {
        self.dice.borrow_mut().below(bound)
    }

    fn time(&self, from: Duration, to: Duration) -> Duration {
        self.dice.borrow_mut().time(from, to)
    }

    fn next_root(&self) -> std::path::PathBuf {
        self.disks.set(self.disks.get() + 1);
        self.root.path().join(self.disks.get().to_string())
    }

    fn machine(&mut self, disk: Disk, link: Link) {
        let dice = Dice::new(self.dice.borrow_mut().word(), "machine");
        self.devices.push(Device::new(disk, link, self.outside.clone(), dice));
    }

    fn device(&mut self) -> &mut Device {
        self.devices.last_mut().expect("there is one from the start")
    }

    async fn script(&mut self) -> Result<(), String> {
        let links = vec![self.link("first node"), self.link("second node")];
        let root = self.next_root();
        self.machine(Disk::new(root), links[0].clone());
        let weather = match self.below(5) {
            0 => Weather::Fair,
            1 | 2 => Weather::Mixed,
            _ => Weather::Storm,
        };
        let outsiders = Outsiders {
            trace: self.outside.trace.clone(),
            chain: self.chain.clone(),
            miners: self.outside.miners.clone(),
            links: links.clone(),
            calm: Rc::default(),
        };
        let mut chaos = Chaos {
            weather,
            clock: self.outside.clock.clone(),
            outsiders: outsiders.clone(),
            rots: !self.outside.settings.second_machine && self.below(2) == 0,
            omits: self.omits.clone(),
            dice: Dice::new(self.dice.borrow_mut().word(), "chaos"),
        };
        let lived = tokio::select! {
            biased;
            lived = self.lives(links[1].clone(), &outsiders) => lived,
            () = chaos.rage() => unreachable!("it goes on"),
        };
        let life = lived?;
        outsiders.calm_down();
        self.end(life).await
    }

    /// Lives of the machine, and perhaps of a second one, until it is time; the last is still on.
    async fn lives(&mut self, second: Link, outsiders: &Outsiders) -> Result<Life, String> {
        let clock = self.outside.clock.clone();
        let end = self.time(Duration::from_secs(600), Duration::from_secs(2 * 3600));
        let mut takeover = self
            .outside
            .settings
            .second_machine
            .then(|| self.time(Duration::from_secs(300), end));
        let mut crashed = false;
        loop {
            let fuse = (self.below(3) == 0).then(|| 1 + self.below(80));
            let Some(life) = self.device().start(fuse)? else {
                self.fall(None).await;
                crashed = true;
                continue;
            };
            if crashed && !self.look(&life).await? {
                self.fall(Some(life)).await;
                continue;
            }
            let left = end.saturating_sub(clock.monotonic());
            let mut span = self.time(Duration::from_secs(5), Duration::from_secs(3600)).min(left);
            if let Some(at) = takeover {
                span = span.min(at.saturating_sub(clock.monotonic()));
            }
            // A crash comes in the middle of things; whoever stops gently ends what was begun.
            let until = clock.monotonic() + span;
            let crashes = until < end && takeover.is_none_or(|at| until < at) && self.below(5) > 0;
            let stage = self.stage(&life);
            let goes_on = if crashes { Duration::MAX } else { until };
            tokio::select! {
                biased;
                () = stage.everybody(goes_on) => {}
                () = clock.sleep(span), if crashes => {}
                () = self.bears_witness() => unreachable!("it goes on"),
            }
            drop(stage);
            if crashes || life.death.has_come() {
                self.fall(Some(life)).await;
                crashed = true;
            } else if takeover.is_some_and(|at| until >= at) {
                takeover = None;
                // Who takes over looks to it that his first pack gets through.
                outsiders.calm_down();
                crashed = !self.take_over(life, second.clone()).await?;
                outsiders.calm.set(false);
            } else if until >= end {
                return Ok(life);
            } else {
                crashed = !self.close(life).await?;
            }
        }
    }

    fn stage<'a>(&'a self, life: &'a Life) -> Stage<'a> {
        Stage {
            life,
            model: &self.model,
            dice: &self.dice,
            journal: self.devices.last().expect("there is one from the start").disk.journal(),
            clock: self.outside.clock.clone(),
            trace: self.outside.trace.clone(),
            pace: self.pace,
        }
    }

    /// The process is killed, or the power is cut.
    async fn fall(&mut self, life: Option<Life>) {
        let crash = match self.below(2) {
            0 => Crash::Kill,
            _ => Crash::PowerCut,
        };
        self.outside.trace.count(match crash {
            Crash::Kill => "processes killed",
            Crash::PowerCut => "power cuts",
        });
        if let Some(life) = &life {
            life.death.strike();
        }
        let kept = self.device().crash(crash);
        self.model.borrow_mut().crashed(kept);
        if let Some(life) = life {
            bury(life).await;
        }
        let off = self.time(Duration::from_millis(100), Duration::from_secs(600));
        self.outside.clock.sleep(off).await;
    }

    /// What a crash has left; false if the process died again meanwhile.
    async fn look(&mut self, life: &Life) -> Result<bool, String> {
        let found = self.see(life).await?;
        let Some(found) = found else { return Ok(false) };
        let records = self.device().disk.journal().progress().0;
        let survived = self.model.borrow_mut().survived(&found, records);
        survived.map_err(|why| format!("after a crash: {why}"))?;
        Ok(true)
    }

    /// The whole tree, however often the network has to be asked; `None` if the process died meanwhile.
    async fn see(&self, life: &Life) -> Result<Option<Found>, String> {
        let clock = &self.outside.clock;
        let looking = async {
            loop {
                match walk(&life.vfs).await {
                    Ok(found) => return Some(found),
                    Err(_) if life.death.has_come() => return None,
                    Err(error) => self.outside.trace.note(format_args!("a look at the tree: {error}")),
                }
                clock.sleep(Duration::from_secs(60)).await;
            }
        };
        // What the dead wait for never comes.
        let looking = async {
            tokio::select! {
                biased;
                () = life.death.wait() => None,
                found = looking => found,
            }
        };
        patiently(clock, "the tree can be read", looking).await
    }

    /// A clean end: what is unsent stays on the disk. False if it became a crash.
    async fn close(&mut self, life: Life) -> Result<bool, String> {
        let closed = life.vfs.close().map_err(|error| format!("close: {error}"));
        let closed = match closed {
            Ok(()) => {
                let stopped = life.engine.shutdown().await;
                stopped.map_err(|error| format!("shutdown: {error}"))
            }
            failed => failed,
        };
        if life.death.has_come() {
            self.fall(Some(life)).await;
            return Ok(false);
        }
        closed?;
        self.outside.trace.count("clean ends");
        life.death.strike();
        bury(life).await;
        Ok(true)
    }

    /// A second machine recovers the volume, and goes on; the first stays on and does not know. Unless nothing of the volume can
    /// be recovered yet: then there is no second machine. Whoever goes on was ended, false if that became a crash.
    async fn take_over(&mut self, life: Life, link: Link) -> Result<bool, String> {
        if self.below(2) == 0 {
            // Most of it is not needed any more; only the first machine knows.
            self.stage(&life).removes_most();
        }
        let mut dice = Dice::new(self.dice.borrow_mut().word(), "second machine");
        let root = self.next_root();
        let clock = self.outside.clock.clone();
        // Of nodes that lie it asks another; miners are what they are.
        let restoring = async {
            loop {
                let node = self.link("honest node");
                match restore(
                    &self.outside,
                    node,
                    self.outside.miners.clone(),
                    &mut dice,
                    root.clone(),
                )
                .await
                {
                    Ok(disk) => return disk,
                    Err(why) => self.outside.trace.note(format_args!("recovery: {why}")),
                }
                clock.sleep(Duration::from_secs(60)).await;
            }
        };
        let disk = patiently(&clock, "a recovery while the world rages", restoring).await?;
        let Some(disk) = disk else {
            self.outside.trace.count("second machines that found nothing");
            return self.close(life).await;
        };
        self.outside.trace.count("second machines");
        self.omits.set(false);
        let trace = self.outside.trace.clone();
        let (tidies, pause) = (self.below(2) == 0, self.time(Duration::from_secs(5), GRACE_MIN / 8));
        let (vfs, engine) = (life.vfs.clone(), life.engine.clone());
        self.older.push(life);
        self.machine(disk, link);
        // The first machine does not know: it goes on with its housekeeping, and perhaps collects what is dead.
        let (working, ticking) = (clock.clone(), clock.clone());
        let housekeeping = async move {
            loop {
                working.sleep(Duration::from_millis(500)).await;
                if let Err(error) = vfs.work() {
                    trace.note(format_args!("housekeeping of the older machine: {error}"));
                }
            }
        };
        let told = self.outside.trace.clone();
        let collecting = async move {
            if !tidies {
                std::future::pending::<()>().await;
            }
            loop {
                let collected = engine.collect(false).await;
                told.note(format_args!("the older machine collected: {collected:?}"));
                ticking.sleep(pause).await;
            }
        };
        tokio::select! {
            biased;
            () = housekeeping => unreachable!("it goes on"),
            () = collecting => unreachable!("it goes on"),
            taken = self.goes_on(clock) => taken,
        }
    }

    /// The second machine is used for the first time, and left on until it has made itself known.
    async fn goes_on(&mut self, clock: SimClock) -> Result<bool, String> {
        let epochs = self.chain.epochs();
        // Whoever recovered it mounts it a little later.
        clock.sleep(self.time(Duration::ZERO, GRACE_MIN / 3)).await;
        let second = self
            .device()
            .start(None)?
            .ok_or("nothing kills a process without a fuse")?;
        let known_by = clock.monotonic() + GRACE_MIN / 2;
        let found = self
            .see(&second)
            .await?
            .ok_or("nothing kills a process without a fuse")?;
        let records = self.device().disk.journal().progress().0;
        self.model.borrow_mut().recovered(&found, records)?;
        while self.chain.epochs() == epochs && clock.monotonic() < known_by {
            clock.sleep(Duration::from_secs(10)).await;
        }
        if self.chain.epochs() == epochs {
            return Err("the second machine has not made itself known in time".into());
        }
        // What the first one may still do of what it began has happened by then.
        clock.sleep(GRACE_MIN / 4).await;
        if let Err(error) = second.vfs.evict_all() {
            self.outside.trace.note(format_args!("eviction: {error}"));
        }
        let found = self
            .see(&second)
            .await?
            .ok_or("nothing kills a process without a fuse")?;
        self.model.borrow().compare(&found)?;
        self.close(second).await
    }

    /// The world is calm. Perhaps everything goes to the network; then everything here is lost, and two thirds of what is there.
    async fn end(&mut self, life: Life) -> Result<(), String> {
        let clock = self.outside.clock.clone();
        if self.below(4) > 0 {
            self.last_sync(&life).await?;
        }
        life.death.strike();
        bury(life).await;
        for life in std::mem::take(&mut self.older) {
            life.death.strike();
            bury(life).await;
        }
        clock.sleep(Duration::from_secs(1200)).await;
        self.outside.miners.destroy_what_nobody_relies_on();
        self.outside.miners.destroy_columns(DESTROYED_COLUMNS);
        let mut dice = Dice::new(self.dice.borrow_mut().word(), "restorer");
        let (node, root) = (self.link("last node"), self.next_root());
        let restoring = restore(
            &self.outside,
            node.clone(),
            self.outside.miners.clone(),
            &mut dice,
            root.clone(),
        );
        let disk = patiently(&clock, "the last recovery", restoring).await??;
        // Nothing: as good as an empty tree, which is judged like any other.
        let disk = disk.unwrap_or_else(|| Disk::new(root));
        self.machine(disk, node);
        let life = self
            .device()
            .start(None)?
            .ok_or("nothing kills a process without a fuse")?;
        let found = self.see(&life).await?.ok_or("nothing kills a process without a fuse")?;
        if self.model.borrow().candidates() == 1 {
            self.outside.trace.count("recoveries with exactly one right answer");
        }
        self.model.borrow_mut().recovered(&found, 0)?;
        self.outside.trace.add("files recovered", found.len() as u64);
        life.death.strike();
        bury(life).await;
        Ok(())
    }

    /// Everything goes to the network. Perhaps it is tidied there, too: then nothing that the phrase needs may be gone.
    async fn last_sync(&self, life: &Life) -> Result<(), String> {
        let (clock, trace) = (&self.outside.clock, &self.outside.trace);
        let stage = self.stage(life);
        let tidies = self.below(2) == 0;
        let syncing = async {
            stage.sync().await?;
            trace.count("worlds that ended with a sync");
            if tidies {
                trace.note(stage.tidy().await?);
                trace.count("worlds that were tidied at their end");
            }
            Ok::<(), String>(())
        };
        let syncing = async {
            tokio::select! {
                biased;
                () = life.death.wait() => Err("died".into()),
                synced = syncing => synced,
                () = stage.keeps_house() => unreachable!("it goes on"),
            }
        };
        let synced = patiently(clock, "the last network sync", syncing).await;
        let status = || {
            let status = life.engine.status();
            let underway = status.underway.iter();
            let stuck: Vec<_> = underway.map(|pack| (pack.seq, pack.state, &pack.blocked)).collect();
            format!("{stuck:?}")
        };
        match synced.map_err(|why| format!("{why}: {}", status()))? {
            Ok(()) => {}
            // A fuse was still burning.
            Err(_) if life.death.has_come() => {}
            Err(why) => return Err(format!("the last network sync failed: {why}")),
        }
        if let Some(found) = self.see(life).await? {
            self.model.borrow().compare(&found)?;
        }
        Ok(())
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut all = Vec::new();
        for device in &self.devices {
            for (key, value) in dump(&device.disk.journal()) {
                all.extend_from_slice(&sha256(&key).0);
                all.extend_from_slice(&sha256(&value).0);
            }
        }
        let next = self.dice.borrow_mut().word();
        let rest = (
            self.chain.fingerprint(),
            self.outside.miners.fingerprint(),
            self.outside.clock.fingerprint(),
            next,
        );
        all.extend_from_slice(format!("{rest:?}").as_bytes());
        all.extend_from_slice(&self.outside.trace.hash().to_le_bytes());
        sha256(&all).0
    }
}
