//! The long lists of a reply, in pages that go ahead of it as events.
//!
//! How many packs a report names is up to the volume, and a line has a bound. So the server takes such lists out of a reply, and the
//! client puts them back: who asks and who answers see one reply. What a client gathers has a bound, too: [`REPORT_ENTRIES_MAX`].

use super::{Damaged, Reply, too_long};
use crate::exit::Failure;
use crate::limits::{CONTROL_PAGE, REPORT_ENTRIES_MAX};
use serde::{Deserialize, Serialize};

/// A part of a list of the reply that comes later; at most [`CONTROL_PAGE`] entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Page {
    /// Of `Scrubbed`.
    Damaged(Vec<Damaged>),
    /// Of `Repaired`.
    Rewritten(Vec<u64>),
    /// Of `Repaired` and `Collected`.
    Deleted(Vec<u64>),
    /// Of `Repaired`.
    Lost(Vec<u64>),
    /// Of `Collected`.
    Chosen(Vec<u64>),
    /// Of `Collected`.
    Kept(Vec<u64>),
}

impl Page {
    fn len(&self) -> usize {
        match self {
            Page::Damaged(list) => list.len(),
            Page::Rewritten(list) | Page::Deleted(list) | Page::Lost(list) | Page::Chosen(list) | Page::Kept(list) => {
                list.len()
            }
        }
    }
}

type Pages = Box<dyn Iterator<Item = Page> + Send>;

/// Takes the lists out of a reply.
pub fn take_from(reply: &mut Reply) -> Pages {
    match reply {
        Reply::Scrubbed(scrubbed) => cut(&mut scrubbed.damaged, Page::Damaged),
        Reply::Repaired(repaired) => Box::new(
            cut(&mut repaired.rewritten, Page::Rewritten)
                .chain(cut(&mut repaired.deleted, Page::Deleted))
                .chain(cut(&mut repaired.lost, Page::Lost)),
        ),
        Reply::Collected(collected) => Box::new(
            cut(&mut collected.chosen, Page::Chosen)
                .chain(cut(&mut collected.deleted, Page::Deleted))
                .chain(cut(&mut collected.kept, Page::Kept)),
        ),
        _ => Box::new(std::iter::empty()),
    }
}

fn cut<T: Send + 'static>(list: &mut Vec<T>, page: fn(Vec<T>) -> Page) -> Pages {
    let mut rest = std::mem::take(list).into_iter();
    Box::new(std::iter::from_fn(move || {
        let some: Vec<T> = rest.by_ref().take(CONTROL_PAGE).collect();
        (!some.is_empty()).then(|| page(some))
    }))
}

/// Pages that have come, until their reply does.
#[derive(Debug, Default)]
pub struct Gathered {
    pages: Vec<Page>,
    entries: usize,
}

impl Gathered {
    /// One more.
    ///
    /// # Errors
    /// When there were too many.
    pub fn add(&mut self, page: Page) -> Result<(), Failure> {
        self.entries += page.len();
        if self.entries > REPORT_ENTRIES_MAX {
            return Err(too_long());
        }
        self.pages.push(page);
        Ok(())
    }

    /// Puts them where they were taken from; what does not belong there is dropped.
    pub fn give_back(self, reply: &mut Reply) {
        for page in self.pages {
            match (&mut *reply, page) {
                (Reply::Scrubbed(told), Page::Damaged(list)) => told.damaged.extend(list),
                (Reply::Repaired(told), Page::Rewritten(list)) => told.rewritten.extend(list),
                (Reply::Repaired(told), Page::Deleted(list)) => told.deleted.extend(list),
                (Reply::Repaired(told), Page::Lost(list)) => told.lost.extend(list),
                (Reply::Collected(told), Page::Chosen(list)) => told.chosen.extend(list),
                (Reply::Collected(told), Page::Deleted(list)) => told.deleted.extend(list),
                (Reply::Collected(told), Page::Kept(list)) => told.kept.extend(list),
                _ => {}
            }
        }
    }
}
