//! Whether the machine's connection costs by the byte, as NetworkManager knows it.
//!
//! Where nobody knows (no system bus, no NetworkManager, or it cannot tell) it does not.

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
    told: bool,
}

impl Metering {
    /// Asks; false where nobody knows.
    pub async fn is_metered(&mut self) -> bool {
        let asked = tokio::time::timeout(BUS_TIMEOUT, self.ask()).await;
        let why = match asked {
            Ok(Ok(metered)) => return METERED.contains(&metered),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        self.manager = None;
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("NetworkManager does not say whether the connection is metered, so it counts as not: {why}");
        }
        false
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
