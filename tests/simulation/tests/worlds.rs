//! The simulation itself: that it is one, and that it would notice.

use cessfs_simulation::{Options, Rule, simulate};

#[test]
fn the_same_seed_ends_in_the_same_state() {
    for seed in [3, 14, 159] {
        let (first, second) = (simulate(Options::of(seed)), simulate(Options::of(seed)));
        assert_eq!(first, second, "SEED={seed}");
        assert_ne!(first.state, [0; 32], "SEED={seed}: {:?}", first.violations);
    }
    assert_ne!(simulate(Options::of(3)).state, simulate(Options::of(4)).state);
}

/// The first seed from `first` whose world finds out that a rule is broken.
#[track_caller]
fn found(rule: Rule, what: &str, seeds: std::ops::Range<u64>) {
    for seed in seeds.clone() {
        let broken = Options {
            broken: Some(rule),
            ..Options::of(seed)
        };
        let outcome = simulate(broken);
        if let Some(violation) = outcome.violations.iter().find(|violation| violation.contains(what)) {
            println!("{rule:?} broken: found by SEED={seed}: {violation}");
            return;
        }
    }
    panic!("{rule:?} is broken, and none of the seeds {seeds:?} finds it");
}

#[test]
fn a_declaration_without_a_journaled_intent_is_found() {
    found(Rule::Intent, "F4", 1..120);
}

#[test]
fn a_declaration_that_does_not_wait_for_the_fate_of_the_last_is_found() {
    found(Rule::Era, "F4", 1..120);
}

#[test]
fn a_pack_confirmed_without_reading_it_back_is_found() {
    found(Rule::ReadBack, "I1", 1..20);
}

#[test]
fn a_journal_that_speaks_of_a_body_before_it_is_on_the_disk_is_found() {
    found(Rule::BodyFirst, "", 1..120);
}

#[test]
fn a_checkpoint_that_overtakes_what_it_builds_on_is_found() {
    found(Rule::Order, "tree", 1..1000);
}

#[test]
fn a_writer_that_goes_on_after_another_took_over_is_found() {
    found(Rule::Fence, "I10", 1..120);
}

#[test]
fn a_pack_deleted_before_what_lives_in_it_has_moved_is_found() {
    found(Rule::Moved, "", 1..400);
}

#[test]
fn a_pack_deleted_before_who_recovered_it_can_be_known_is_found() {
    found(Rule::Grace, "", 1..400);
}

#[test]
fn a_pack_deleted_before_a_later_checkpoint_is_found() {
    found(Rule::Superseded, "", 1..120);
}
