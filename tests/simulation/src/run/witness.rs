//! Somebody who recovers the volume from the phrase now and then, while it lives, and compares: whatever was deleted by then, or
//! is on its way, the phrase gives a tree there was since the last sync, with all its content (I4, I5).

use super::World;
use crate::device::{Device, bury, walk};
use crate::dice::Dice;
use crate::model::Found;
use crate::restorer::{MISTAKES, restore};
use cessfs_sync::Clock;
use std::time::Duration;

/// How long a recovery may be tried again. Packs may go while it reads them, and miners fall ill, but not for ever.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Pause between two attempts.
const RETRY: Duration = Duration::from_secs(60);

impl World {
    /// Goes on until it is dropped.
    pub(super) async fn bears_witness(&self) {
        let clock = &self.outside.clock;
        loop {
            let pause = self.time(Duration::from_secs(300), Duration::from_secs(5400));
            clock.sleep(pause).await;
            let until = clock.monotonic() + PATIENCE;
            let found = loop {
                self.model.borrow_mut().look_begins();
                let stored = self.chain.stored();
                match self.look_from_afar().await {
                    Ok(found) => break Ok(found),
                    // Nothing went meanwhile, and what was read fits together: it will not be better another time.
                    Err(why) if why.starts_with(MISTAKES) && self.chain.stored().is_superset(&stored) => {
                        break Err(why);
                    }
                    Err(why) if clock.monotonic() > until => break Err(why),
                    Err(why) => self.outside.trace.note(format_args!("witness: {why}")),
                }
                clock.sleep(RETRY).await;
            };
            let judged = found.and_then(|found| self.model.borrow_mut().look_ends(&found));
            match judged {
                Ok(()) => self.outside.trace.count("recoveries beside the living volume"),
                Err(why) => self
                    .outside
                    .trace
                    .violation(format_args!("beside the living volume: {why}")),
            }
        }
    }

    /// The tree as the phrase gives it now, contents read from miners.
    async fn look_from_afar(&self) -> Result<Found, String> {
        let (link, root) = (self.link("witness"), self.next_root());
        let mut dice = Dice::new(self.dice.borrow_mut().word(), "witness");
        let (outside, miners) = (&self.outside, self.outside.miners.clone());
        let Some(disk) = restore(outside, link.clone(), miners, &mut dice, root).await? else {
            return Ok(Found::new());
        };
        let life = Device::new(disk, link, outside.clone(), dice).start_idle()?;
        let found = walk(&life.vfs).await;
        life.death.strike();
        bury(life).await;
        found.map_err(|error| format!("a file cannot be read: {error}"))
    }
}
