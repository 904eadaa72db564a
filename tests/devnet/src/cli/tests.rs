use super::*;
use clap::CommandFactory;

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

/// The forms that scripts may rely on.
#[test]
fn the_contract_parses() {
    for line in [
        "up --dir D --miners 16 --daemon",
        "up --dir D --block-ms 500",
        "down --dir D",
        "status --json --dir D",
        "miner stop 0 1 --dir D",
        "miner start 0 --dir D",
        "miner corrupt 0 --dir D",
        "miner forget 0 --dir D",
        "miner slow 0 15 --dir D",
        "miner slow --ms 100 0 --dir D",
        "fund cXaddress 12.5 --dir D",
    ] {
        let words = std::iter::once("cessfs-devnet").chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{line}");
    }
    assert!(Cli::try_parse_from(["cessfs-devnet", "miner", "slow"]).is_err());
}
