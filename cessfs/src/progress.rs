//! Progress for people: bars on stderr when it is a terminal, nothing otherwise.

use crate::control::{Event, Progress};
use crate::limits::{WAIT_TOLD_AFTER, WAIT_TOLD_AGAIN};
use crate::output;
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Why something waits, for those who see no bar: in a script, in systemd's journal. Each reason is told once, and not at once: most
/// pass.
#[derive(Default)]
struct Reasons {
    since: Option<Instant>,
    told: Option<(Instant, String)>,
}

impl Reasons {
    /// What is to be told now, given what is waited for.
    fn hear(&mut self, blocked: Option<&str>, now: Instant) -> Option<String> {
        let Some(why) = blocked else {
            self.since = None;
            return None;
        };
        let since = *self.since.get_or_insert(now);
        let is_news = match &self.told {
            None => true,
            Some((at, told)) => told != why && now.saturating_duration_since(*at) >= WAIT_TOLD_AGAIN,
        };
        if !is_news || now.saturating_duration_since(since) < WAIT_TOLD_AFTER {
            return None;
        }
        self.told = Some((now, why.to_owned()));
        Some(format!("waiting: {}", output::sentence(why)))
    }

    fn tell(&mut self, progress: &Progress, bar: &ProgressBar) {
        let news = self.hear(progress.blocked.as_deref(), Instant::now());
        if let Some(news) = news.filter(|_| bar.is_hidden()) {
            tell!("{news}");
        }
    }
}

/// A bar that follows a sync: what is left shrinks, what is done is the most that was ever left minus that.
pub struct SyncProgress {
    bar: ProgressBar,
    last: Option<Progress>,
    reasons: Reasons,
}

impl SyncProgress {
    /// Starts the bar.
    pub fn start() -> SyncProgress {
        let bar = ProgressBar::with_draw_target(Some(0), target());
        let style = "{spinner} {bar:30} {binary_bytes}/{binary_total_bytes} {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        bar.enable_steady_tick(TICK);
        SyncProgress {
            bar,
            last: None,
            reasons: Reasons::default(),
        }
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
            self.reasons.tell(progress, &self.bar);
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
    what: String,
    reasons: Reasons,
}

impl Waiting {
    /// Starts turning.
    pub fn on(what: impl Into<String>) -> Waiting {
        let what = what.into();
        let bar = ProgressBar::with_draw_target(None, target());
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is constant"));
        bar.set_message(what.clone());
        bar.enable_steady_tick(TICK);
        Waiting {
            bar,
            what,
            reasons: Reasons::default(),
        }
    }

    /// Takes in what the daemon told: what has to be sent for it may wait.
    pub fn event(&mut self, event: &Event) {
        if let Event::Progress(progress) = event {
            let what = &self.what;
            self.bar.set_message(match &progress.blocked {
                Some(why) => format!("{what}; waiting: {}", output::tame(why)),
                None => what.clone(),
            });
            self.reasons.tell(progress, &self.bar);
        }
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
    fn a_reason_is_told_once_it_has_lasted() {
        let (mut reasons, start) = (Reasons::default(), Instant::now());
        let mut told = |blocked: Option<&str>, second: u64| {
            let news = reasons.hear(blocked, start + Duration::from_secs(second));
            news.unwrap_or_default()
        };
        for (blocked, second, news) in [
            (Some("a"), 0, ""),
            (None, 1, ""),
            (Some("a"), 2, ""),
            (Some("a"), 11, ""),
            (Some("a"), 12, "waiting: a"),
            (Some("a"), 100, ""),
            (Some("b\nc"), 101, "waiting: b\\nc"),
            (Some("a"), 102, ""),
            (Some("a"), 161, "waiting: a"),
            (None, 162, ""),
            (Some("b"), 240, ""),
            (Some("b"), 250, "waiting: b"),
        ] {
            assert_eq!(told(blocked, second), news, "{second} s");
        }
    }

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
