//! The chain by itself: what it keeps, and what a crash may cost.

use super::*;
use cessfs_devnet_runtime::{AccountId, Balances, RuntimeCall, cess::TCESS, devnet};

fn fund(n: u8) -> RuntimeCall {
    devnet::Call::fund {
        who: AccountId::from([n; 32]),
        amount: TCESS * u128::from(n),
    }
    .into()
}

fn open(path: &Path) -> Chain {
    Chain::open(path, RuntimeGenesisConfig::default).unwrap()
}

fn free(chain: &Chain, at: Option<H256>, n: u8) -> u128 {
    chain
        .query(at, || Balances::free_balance(AccountId::from([n; 32])))
        .unwrap()
}

#[test]
fn every_state_is_kept_and_a_restart_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.log");
    let mut chain = open(&path);
    let first = chain.seal(&[fund(1)], &[], 1000).unwrap().hash;
    let second = chain.seal(&[fund(1), fund(2)], &[], 2000).unwrap().hash;
    let check = |chain: &Chain| {
        assert_eq!((chain.height(), chain.best().hash), (2, second));
        assert_eq!((free(chain, Some(first), 1), free(chain, Some(first), 2)), (TCESS, 0));
        assert_eq!((free(chain, None, 1), free(chain, None, 2)), (2 * TCESS, 2 * TCESS));
        assert_eq!(chain.block(Some(first)).unwrap().header.number, 1);
    };
    check(&chain);
    drop(chain);
    check(&open(&path));
}

#[test]
fn a_torn_block_is_forgotten_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.log");
    let mut chain = open(&path);
    let first = chain.seal(&[fund(1)], &[], 1000).unwrap().hash;
    let whole = std::fs::metadata(&path).unwrap().len();
    chain.seal(&[fund(2)], &[], 2000).unwrap();
    drop(chain);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(whole + 100).unwrap();
    let mut chain = open(&path);
    assert_eq!((chain.best().hash, free(&chain, None, 2)), (first, 0));
    chain.seal(&[fund(3)], &[], 3000).unwrap();
    drop(chain);
    assert_eq!(free(&open(&path), None, 3), 3 * TCESS);
}

#[test]
fn the_clock_never_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir.path().join("chain.log"));
    let now = |chain: &Chain| {
        chain
            .query(None, pallet_timestamp::Now::<cessfs_devnet_runtime::Runtime>::get)
            .unwrap()
    };
    chain.seal(&[], &[], 5000).unwrap();
    assert_eq!(now(&chain), 5000);
    chain.seal(&[], &[], 4000).unwrap();
    assert_eq!(now(&chain), 5001);
}

#[test]
fn a_refused_call_of_the_author_is_told_and_stays_in_the_block() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = open(&dir.path().join("chain.log"));
    let nobody = devnet::Call::set_miner_state {
        miner: AccountId::from([9; 32]),
        state: b"exit".to_vec(),
    };
    let sealed = chain.seal(&[nobody.into(), fund(1)], &[], 1000).unwrap();
    assert!(sealed.forced[0].is_err() && sealed.forced[1].is_ok());
    assert_eq!(chain.best().body.len(), 3);
    assert_eq!(free(&chain, None, 1), TCESS);
}

#[test]
fn the_pool_takes_nothing_unsigned() {
    let dir = tempfile::tempdir().unwrap();
    let chain = open(&dir.path().join("chain.log"));
    let forged = cessfs_devnet_runtime::UncheckedExtrinsic::new_bare(fund(1)).encode();
    assert!(matches!(chain.validate(&forged), Err(Refused::Invalid(_))));
    assert!(matches!(chain.validate(b"no extrinsic"), Err(Refused::Malformed(_))));
}
