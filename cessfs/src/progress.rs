//! Progress for people: bars on stderr when it is a terminal, nothing otherwise.

use crate::control::{Event, Progress};
use crate::output;
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// A bar that follows a sync: what is left shrinks, what is done is the most that was ever left minus that.
pub struct SyncProgress {
    bar: ProgressBar,
    last: Option<Progress>,
}

impl SyncProgress {
    /// Starts the bar.
    pub fn start() -> SyncProgress {
        let bar = ProgressBar::with_draw_target(Some(0), target());
        let style = "{spinner} {bar:30} {binary_bytes}/{binary_total_bytes} {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        bar.enable_steady_tick(TICK);
        SyncProgress { bar, last: None }
    }

    /// Takes in what the daemon told.
    pub fn event(&mut self, event: &Event) {
        if let Event::Progress(progress) = event {
            let left = progress.dirty_bytes + progress.unsent_bytes;
            let total = self.bar.length().unwrap_or(0).max(left);
            self.bar.set_length(total);
            self.bar.set_position(total - left);
            self.bar.set_message(match &progress.blocked {
                Some(why) => format!("waiting: {}", output::tame(why)),
                None => "sending".to_owned(),
            });
            self.last = Some(progress.clone());
        }
    }

    /// Takes the bar away; what was told last.
    pub fn finish(self) -> Option<Progress> {
        self.bar.finish_and_clear();
        self.last
    }
}

/// A spinner beside a sentence, while something takes its time.
pub struct Waiting {
    bar: ProgressBar,
}

impl Waiting {
    /// Starts turning.
    pub fn on(what: impl Into<String>) -> Waiting {
        let bar = ProgressBar::with_draw_target(None, target());
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is constant"));
        bar.set_message(what.into());
        bar.enable_steady_tick(TICK);
        Waiting { bar }
    }

    /// Another sentence.
    pub fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// What is left to send, as a sentence; none when nothing is. `goes_on`: not if another machine has taken the volume over.
pub fn left_to_send(unsent_bytes: u64, volume: &str, goes_on: bool) -> Option<String> {
    (unsent_bytes > 0).then(|| {
        let left = units::bytes(unsent_bytes);
        match goes_on {
            true => format!(
                "{left} not yet on the network; it rests on this disk and goes on when `{volume}` is mounted again"
            ),
            false => format!(
                "{left} not on the network: it rests on this disk only, and nothing more is sent from here; `cessfs unsent {volume}` \
                 lists it while mounted"
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_on_or_not() {
        assert_eq!(left_to_send(0, "v", true), None);
        assert!(
            left_to_send(1, "v", true)
                .unwrap()
                .contains("when `v` is mounted again")
        );
        assert!(!left_to_send(1, "v", false).unwrap().contains("mounted again"));
    }
}
