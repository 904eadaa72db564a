//! Answers that fit into a line.
//!
//! Names of files and messages are as long as they are, so lists of them are cut to a number of bytes as well, and how many were left
//! out is told. An answer that is too long all the same becomes a failure: a daemon whose answer nobody can read is not taken for none.

use super::{Answer, Event, Reply, Status, encode, too_long};
use crate::exit::Failure;
use crate::limits::{
    CONTROL_LINE_MAX, STATUS_ERRORS_BYTES_MAX, STATUS_FILES_BYTES_MAX, STATUS_HISTORY_BYTES_MAX, STATUS_TEXT_BYTES_MAX,
};
use serde::Serialize;

/// The line of an answer.
pub fn line(mut answer: Answer) -> Vec<u8> {
    match &mut answer {
        Answer::Done(Reply::Status(status)) => fit(status),
        Answer::Failed(failure) => {
            shorten(&mut failure.what);
            failure.hint.iter_mut().for_each(shorten);
        }
        _ => {}
    }
    let line = encode(&answer);
    if line.len() > CONTROL_LINE_MAX {
        return encode(&Answer::Failed(too_long()));
    }
    line
}

/// The line of an event.
///
/// # Errors
/// When it has no room in one.
pub fn event(mut event: Event) -> Result<Vec<u8>, Failure> {
    if let Event::Progress(progress) = &mut event {
        progress.blocked.iter_mut().for_each(shorten);
    }
    let line = encode(&Answer::Event(event));
    if line.len() > CONTROL_LINE_MAX {
        return Err(too_long());
    }
    Ok(line)
}

/// Cuts what has no bound of its own.
fn fit(status: &mut Status) {
    status.blocked.iter_mut().for_each(shorten);
    // Their count is told beside them already.
    keep(&mut status.lost_files, STATUS_FILES_BYTES_MAX);
    status.lost.iter_mut().for_each(shorten);
    status.lost_left_out += keep(&mut status.lost, STATUS_HISTORY_BYTES_MAX);
    status.errors.iter_mut().for_each(shorten);
    // Where there is no room for all, the newest are told.
    status.errors.reverse();
    status.errors_left_out += keep(&mut status.errors, STATUS_ERRORS_BYTES_MAX);
    status.errors.reverse();
}

/// Keeps of a list, in its order, what has room in its JSON form; how many went.
fn keep<T: Serialize>(list: &mut Vec<T>, mut room: usize) -> u64 {
    let before = list.len();
    list.retain(|entry| {
        let left = room.checked_sub(encode(entry).len());
        room = left.unwrap_or(room);
        left.is_some()
    });
    (before - list.len()) as u64
}

fn shorten(text: &mut String) {
    const MARK: &str = "…";
    if text.len() > STATUS_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(STATUS_TEXT_BYTES_MAX - MARK.len()));
        text.push_str(MARK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{LostFile, decode};
    use crate::exit::Exit;

    fn arrives(answer: Answer) -> Answer {
        let line = line(answer);
        assert!(line.len() <= CONTROL_LINE_MAX, "{} bytes", line.len());
        decode(&line).unwrap()
    }

    #[test]
    fn a_status_of_the_longest_names_fits_and_counts_what_is_left_out() {
        let long = |n: usize| format!("{n}{}", "\u{1}\u{fffd}".repeat(2000));
        let file = |n| LostFile {
            path: long(n),
            ..LostFile::default()
        };
        let status = Status {
            state: "mounted".into(),
            mountpoint: Some("\u{1}".repeat(libc::PATH_MAX as usize)),
            lost_files: (0..64).map(file).collect(),
            lost_file_count: 1000,
            errors: (0..64).map(|n| format!("{n} {}", "e".repeat(3000))).collect(),
            errors_left_out: 5,
            lost: (0..64).map(long).collect(),
            blocked: Some("\u{1}".repeat(100_000)),
            ..Status::default()
        };
        let Answer::Done(Reply::Status(told)) = arrives(Answer::Done(Reply::Status(Box::new(status)))) else {
            panic!("no status");
        };
        assert_eq!((told.state.as_str(), told.lost_file_count), ("mounted", 1000));
        assert!(told.errors.last().unwrap().starts_with("63 "), "the newest is there");
        assert_eq!(told.errors_left_out as usize + told.errors.len(), 64 + 5);
        assert_eq!(told.lost_left_out as usize + told.lost.len(), 64);
        assert!(told.lost_files.len() < 64);
    }

    #[test]
    fn what_is_short_is_left_alone() {
        let status = Status {
            errors: vec!["one".into(), "two".into()],
            lost: vec!["pack 7".into()],
            lost_files: vec![LostFile::default(); 64],
            ..Status::default()
        };
        let answer = Answer::Done(Reply::Status(Box::new(status)));
        assert_eq!(arrives(answer.clone()), answer);
    }

    #[test]
    fn a_failure_keeps_its_code() {
        let failure = Failure::new(Exit::Territory, "ü".repeat(100_000)).hint("\u{1}".repeat(100_000));
        let Answer::Failed(told) = arrives(Answer::Failed(failure)) else {
            panic!("no failure");
        };
        assert_eq!(told.exit, Exit::Territory);
        assert!(told.what.ends_with('…'));
    }
}
