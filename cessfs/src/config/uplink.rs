//! How fast the network is given what was written: `uplink_max`, `uplink_schedule` and `metered`, made into one rule for this minute.

use crate::moment::Minute;
use crate::units;
use cessfs_sync::UplinkLimit;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Names of the days of a week, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTES_OF_A_DAY: u16 = 24 * 60;
/// The word for a limit of nothing at all.
const PAUSE: &str = "pause";

/// What happens while the connection costs by the byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metered {
    /// It is sent all the same.
    #[default]
    Send,
    /// Nothing is sent.
    Pause,
}

/// A line of `uplink_schedule`: `[DAYS] HH:MM-HH:MM LIMIT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    text: String,
    /// Days on which it begins, Monday first.
    days: [bool; 7],
    /// Minutes of the day; if it ends before it begins, it ends on the next day.
    from: u16,
    to: u16,
    limit: UplinkLimit,
}

/// Everything that decides how fast may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Bytes per second outside of the schedule; 0: any number.
    pub max: u64,
    /// The first line that fits holds.
    pub schedule: Vec<Window>,
    /// What a metered connection means.
    pub metered: Metered,
}

/// What holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// How fast.
    pub limit: UplinkLimit,
    /// Why nothing is sent, if so.
    pub why_paused: Option<String>,
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Window, String> {
        let wrong = |what: &str| format!("`{text}` is no line like \"mon-fri 08:00-18:00 1MiB\": {what}");
        let mut words = text.split_whitespace();
        let mut word = words.next().ok_or_else(|| wrong("it is empty"))?.to_ascii_lowercase();
        let mut days = [true; 7];
        if word.starts_with(|c: char| c.is_ascii_alphabetic()) {
            days =
                parse_days(&word).ok_or_else(|| wrong(&format!("`{word}` are no days such as mon-fri or sat,sun")))?;
            word = words.next().ok_or_else(|| wrong("it has no times"))?.to_owned();
        }
        let times = word.split_once('-');
        let times = times.and_then(|(from, to)| Some((parse_time(from)?, parse_time(to)?)));
        let (from, to) = times.ok_or_else(|| wrong(&format!("`{word}` are no times such as 22:00-06:00")))?;
        if from == to || from == MINUTES_OF_A_DAY {
            return Err(wrong("it ends when it begins"));
        }
        let limit = words.collect::<Vec<_>>().join(" ");
        let limit = match limit.as_str() {
            "" => return Err(wrong("it has no limit: bytes per second, 0 for any number, or pause")),
            PAUSE => UplinkLimit::Paused,
            bytes => UplinkLimit::from(units::parse_bytes(bytes).map_err(|why| wrong(&why))?),
        };
        Ok(Window {
            text: text.to_owned(),
            days,
            from,
            to,
            limit,
        })
    }
}

impl TryFrom<String> for Window {
    type Error = String;

    fn try_from(text: String) -> Result<Window, String> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.text
    }
}

impl Window {
    fn fits(&self, now: Minute) -> bool {
        let yesterday = (now.day + 6) % 7;
        if self.from < self.to {
            return self.days[now.day] && (self.from..self.to).contains(&now.minute);
        }
        (self.days[now.day] && now.minute >= self.from) || (self.days[yesterday] && now.minute < self.to)
    }
}

/// `mon-fri`, `sat,sun`, `fri-mon,wed`.
fn parse_days(text: &str) -> Option<[bool; 7]> {
    let number = |name: &str| DAYS.iter().position(|day| *day == name);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Some(days)
}

/// Minutes of the day, up to `24:00`.
fn parse_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let two = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        two.then(|| digits.parse::<u16>().ok())?
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= MINUTES_OF_A_DAY).then_some(time)
}

impl UplinkConfig {
    /// It may change though the file does not.
    pub fn changes_by_itself(&self) -> bool {
        !self.schedule.is_empty() || self.metered == Metered::Pause
    }

    /// What holds at this time, on a connection that is metered or not.
    pub fn ruling(&self, now: Minute, metered: bool) -> Ruling {
        if metered && self.metered == Metered::Pause {
            return Ruling {
                limit: UplinkLimit::Paused,
                why_paused: Some("the connection is metered (`metered` in volume.toml)".to_owned()),
            };
        }
        let window = self.schedule.iter().find(|window| window.fits(now));
        let limit = window.map_or(UplinkLimit::from(self.max), |window| window.limit);
        let why_paused = window.filter(|_| limit == UplinkLimit::Paused).map(|window| {
            let (hours, minutes) = (window.to / 60, window.to % 60);
            format!("nothing is sent until {hours:02}:{minutes:02} (`uplink_schedule` in volume.toml)")
        });
        Ruling { limit, why_paused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str, time: &str) -> Minute {
        Minute {
            day: DAYS.iter().position(|name| *name == day).unwrap(),
            minute: parse_time(time).unwrap(),
        }
    }

    fn config(lines: &[&str]) -> UplinkConfig {
        UplinkConfig {
            max: 5 << 20,
            schedule: lines.iter().map(|line| line.parse().unwrap()).collect(),
            metered: Metered::Pause,
        }
    }

    const MAX: UplinkLimit = UplinkLimit::BytesPerSecond(5 << 20);

    #[test]
    fn the_first_line_that_fits_holds_and_outside_the_maximum() {
        let config = config(&[
            "mon-fri 08:00-18:00 1 MiB",
            "sat,sun 00:00-24:00 0",
            "17:00-19:00 pause",
        ]);
        for (day, time, limit) in [
            ("mon", "07:59", MAX),
            ("mon", "08:00", UplinkLimit::BytesPerSecond(1 << 20)),
            ("fri", "17:59", UplinkLimit::BytesPerSecond(1 << 20)),
            ("fri", "18:00", UplinkLimit::Paused),
            ("fri", "19:00", MAX),
            ("sat", "18:30", UplinkLimit::Any),
            ("sun", "23:59", UplinkLimit::Any),
        ] {
            assert_eq!(config.ruling(at(day, time), false).limit, limit, "{day} {time}");
        }
        let why = config.ruling(at("fri", "18:00"), false).why_paused.unwrap();
        assert!(why.contains("until 19:00"), "{why}");
        assert_eq!(config.ruling(at("sat", "18:30"), false).why_paused, None);
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let config = config(&["fri 22:00-06:00 pause"]);
        for (day, time, paused) in [
            ("fri", "21:59", false),
            ("fri", "22:00", true),
            ("sat", "05:59", true),
            ("sat", "06:00", false),
            ("fri", "05:00", false),
            ("sat", "23:00", false),
        ] {
            let limit = config.ruling(at(day, time), false).limit;
            assert_eq!(limit == UplinkLimit::Paused, paused, "{day} {time}");
        }
    }

    #[test]
    fn a_metered_connection_pauses_what_nothing_else_does_if_it_is_to() {
        let mut config = config(&["00:00-24:00 0"]);
        let noon = at("wed", "12:00");
        assert_eq!(config.ruling(noon, false).limit, UplinkLimit::Any);
        assert_eq!(config.ruling(noon, true).limit, UplinkLimit::Paused);
        assert!(config.ruling(noon, true).why_paused.unwrap().contains("metered"));
        config.metered = Metered::Send;
        assert_eq!(config.ruling(noon, true).limit, UplinkLimit::Any);
        assert!(config.changes_by_itself());
        config.schedule.clear();
        assert!(!config.changes_by_itself());
    }

    #[test]
    fn days_go_round_and_what_is_no_line_says_what_is_wrong() {
        assert_eq!(
            parse_days("sat-mon"),
            Some([true, false, false, false, false, true, true])
        );
        for (line, told) in [
            ("", "empty"),
            ("mon-fri", "no times"),
            ("never 08:00-09:00 0", "no days"),
            ("mo 08:00-09:00 0", "no days"),
            ("8:00-9:00 0", "no times"),
            ("08:00-24:01 0", "no times"),
            ("08:60-09:00 0", "no times"),
            ("08:00 0", "no times"),
            ("08:00-08:00 0", "ends when it begins"),
            ("24:00-06:00 0", "ends when it begins"),
            ("08:00-09:00", "no limit"),
            ("08:00-09:00 fast", "not a size"),
        ] {
            let why = line.parse::<Window>().unwrap_err();
            assert!(why.contains(told), "{line}: {why}");
        }
    }
}
