//! Whether the machine's connection costs by the byte, as NetworkManager knows it.
//!
//! Where nobody knows (no system bus, no NetworkManager, or it cannot tell) it does not. Where somebody knew and does not answer any more, as
//! while NetworkManager is restarted, what was said last holds: a moment's silence must not cost anything.

use crate::limits::BUS_TIMEOUT;
use zbus::proxy::{Builder, CacheProperties};
use zbus::{Connection, Proxy};

const SERVICE: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";
/// A connection that costs, and one that looks like it: a phone's, for example (NetworkManager's `NMMetered`).
const METERED: [u32; 2] = [1, 3];

/// The way to NetworkManager; made when it is first asked, and again after it failed.
#[derive(Default)]
pub struct Metering {
    manager: Option<Proxy<'static>>,
    last: bool,
    told: bool,
}

impl Metering {
    /// Asks; see the module head for where nobody answers.
    pub async fn is_metered(&mut self) -> bool {
        let asked = tokio::time::timeout(BUS_TIMEOUT, self.ask()).await;
        let why = match asked {
            Ok(Ok(metered)) => return self.heard(metered),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        self.manager = None;
        self.silence(&why)
    }

    /// Nobody answered.
    fn silence(&mut self, why: &str) -> bool {
        if !std::mem::replace(&mut self.told, true) {
            let holds = if self.last { "metered, as it was" } else { "not metered" };
            tracing::warn!(
                "NetworkManager does not say whether the connection is metered, so it counts as {holds}: {why}"
            );
        }
        self.last
    }

    fn heard(&mut self, metered: u32) -> bool {
        self.told = false;
        self.last = METERED.contains(&metered);
        self.last
    }

    async fn ask(&mut self) -> zbus::Result<u32> {
        let manager = match &self.manager {
            Some(manager) => manager,
            None => {
                let bus = Connection::system().await?;
                let manager = Builder::new(&bus)
                    .destination(SERVICE)?
                    .path(PATH)?
                    .interface(SERVICE)?
                    // It is asked seldom: nothing has to be kept up to date for that.
                    .cache_properties(CacheProperties::No)
                    .build()
                    .await?;
                self.manager.insert(manager)
            }
        };
        manager.get_property("Metered").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_holds_while_nobody_answers() {
        let mut metering = Metering::default();
        // NetworkManager's numbers: unknown, yes, no, guessed yes, guessed no.
        for (number, metered) in [(0, false), (1, true), (2, false), (3, true), (4, false)] {
            assert_eq!(metering.heard(number), metered, "{number}");
            assert_eq!(metering.silence("nobody"), metered, "{number}");
        }
    }
}
