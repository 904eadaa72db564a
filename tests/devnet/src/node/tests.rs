//! Pool, finality and doors, with blocks made by hand.

use super::*;
use crate::seam::ChainView;
use cessfs_devnet_runtime::{
    AccountId, BalancesConfig, Runtime, RuntimeGenesisConfig, SminerConfig,
    cess::{GIB, TCESS},
    sminer, storage_handler,
};
use codec::Encode;
use pool::PoolError;
use sp_core::{Pair, sr25519};

struct World {
    node: Arc<Node>,
    user: sr25519::Pair,
    clock: u64,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let user = sr25519::Pair::from_seed(&[1; 32]);
        let keys = MinerKeys::derive(&[0; 32], 12);
        let mut accounts: Vec<AccountId> = keys.accounts().collect();
        let miners = accounts
            .iter()
            .map(|a| (a.clone(), "http://127.0.0.1:1".to_owned(), GIB))
            .collect();
        accounts.push(user.public().into());
        let genesis = RuntimeGenesisConfig {
            balances: BalancesConfig {
                balances: accounts.into_iter().map(|a| (a, 10_000 * TCESS)).collect(),
                ..Default::default()
            },
            sminer: SminerConfig {
                miners,
                ..Default::default()
            },
            ..Default::default()
        };
        let chain = Chain::open(&dir.path().join("chain.log"), || genesis).unwrap();
        Self {
            node: Node::new(chain),
            user,
            clock: 1,
            _dir: dir,
        }
    }

    fn block(&mut self) -> H256 {
        self.clock += 1000;
        self.node.make_block(self.clock).unwrap();
        self.node.read().chain().best().hash
    }

    /// A remark, which costs a fee and does nothing.
    fn remark(&self, nonce: u32, text: &[u8]) -> Vec<u8> {
        let call = frame_system::Call::remark { remark: text.to_vec() }.into();
        view::sign(&self.user, call, nonce, self.node.read().chain().genesis_hash()).encode()
    }
}

fn drain(statuses: &mut mpsc::UnboundedReceiver<TransactionStatus>) -> Vec<TransactionStatus> {
    std::iter::from_fn(|| statuses.try_recv().ok()).collect()
}

#[test]
fn a_watcher_hears_in_block_then_final_when_it_is_so() {
    let mut world = World::new();
    let mut statuses = world.node.submit_and_watch(world.remark(0, b"a")).unwrap();
    assert_eq!(drain(&mut statuses), [TransactionStatus::Ready]);
    let hash = world.block();
    assert_eq!(drain(&mut statuses), [TransactionStatus::InBlock(hash)]);
    world.block();
    assert_eq!(drain(&mut statuses), []);
    assert_eq!(world.node.read().finalized(), 0);
    world.block();
    assert_eq!(drain(&mut statuses), [TransactionStatus::Finalized(hash)]);
    assert_eq!(world.node.read().finalized_hash(), hash);
}

#[test]
fn a_future_nonce_waits_for_the_one_before() {
    let mut world = World::new();
    let mut later = world.node.submit_and_watch(world.remark(1, b"later")).unwrap();
    assert_eq!(drain(&mut later), [TransactionStatus::Future]);
    world.block();
    assert_eq!(drain(&mut later), []);
    let mut first = world.node.submit_and_watch(world.remark(0, b"first")).unwrap();
    let hash = world.block();
    assert_eq!(
        drain(&mut first),
        [TransactionStatus::Ready, TransactionStatus::InBlock(hash)]
    );
    assert!(drain(&mut later).contains(&TransactionStatus::InBlock(hash)));
}

#[test]
fn a_used_nonce_is_refused_before_and_after_its_block() {
    let mut world = World::new();
    let first = world.remark(0, b"first");
    world.node.submit(first.clone()).unwrap();
    assert!(matches!(
        world.node.submit(first.clone()),
        Err(PoolError::AlreadyImported(_))
    ));
    assert!(matches!(
        world.node.submit(world.remark(0, b"other")),
        Err(PoolError::TooLowPriority { .. })
    ));
    assert_eq!(world.node.read().next_nonce(&world.user.public().into()), 1);
    world.block();
    let refused = world.node.submit(first).unwrap_err();
    assert!(format!("{refused:?}").contains("Stale"), "{refused:?}");
}

#[test]
fn the_final_head_never_moves_back() {
    let mut world = World::new();
    for _ in 0..5 {
        world.block();
    }
    assert_eq!(world.node.read().finalized(), 3);
    world.node.set_lag(10);
    world.block();
    assert_eq!(world.node.read().finalized(), 3);
    world.node.set_lag(0);
    world.block();
    assert_eq!(world.node.read().finalized(), 7);
}

#[test]
fn a_paused_chain_makes_no_blocks_and_keeps_the_pool() {
    let mut world = World::new();
    world.node.pause(true);
    world.node.submit(world.remark(0, b"a")).unwrap();
    world.block();
    assert_eq!(world.node.read().chain().height(), 0);
    world.node.pause(false);
    world.block();
    assert_eq!(world.node.read().chain().best().body.len(), 2);
}

/// Makes blocks in the background as the author does.
fn authored(world: &World) -> tokio::task::JoinHandle<()> {
    tokio::spawn(world.node.clone().author(Duration::from_millis(5)))
}

#[tokio::test]
async fn doors_open_and_say_why_not() {
    let world = World::new();
    let author = authored(&world);
    let user: AccountId = world.user.public().into();
    let rich = AccountId::from([8; 32]);
    let block = world.node.fund(rich.clone(), 5 * TCESS).await.unwrap();
    let free = world
        .node
        .read()
        .chain()
        .query(Some(block), || cessfs_devnet_runtime::Balances::free_balance(&rich));
    assert_eq!(free.unwrap(), 5 * TCESS);

    let name: cessfs_devnet_runtime::cess::TerrName = b"home".to_vec().try_into().unwrap();
    let unknown = world
        .node
        .freeze_territory(user.clone(), name.clone())
        .await
        .unwrap_err();
    assert!(unknown.to_string().contains("no territory"), "{unknown}");
    let mint = storage_handler::Call::mint_territory {
        gib_count: 1,
        territory_name: name.clone(),
        days: 30,
    };
    let genesis = world.node.read().chain().genesis_hash();
    world
        .node
        .submit(view::sign(&world.user, mint.into(), 0, genesis).encode())
        .unwrap();
    world.node.fund(user.clone(), 1).await.unwrap(); // a block later the mint is through
    world.node.expire_territory(user.clone(), name.clone()).await.unwrap();
    let state = world
        .node
        .read()
        .chain()
        .query(None, || storage_handler::Territory::<Runtime>::get(&user, &name));
    assert_eq!(state.unwrap().unwrap().state, storage_handler::TerritoryState::Expired);

    world
        .node
        .pause_call("FileBank", "upload_declaration", true)
        .await
        .unwrap();
    let twice = world
        .node
        .pause_call("FileBank", "upload_declaration", true)
        .await
        .unwrap_err();
    assert_eq!(twice.to_string(), "the chain refused: TxPause.IsPaused");
    let unknown = world
        .node
        .pause_call("FileBank", "no_such_call", true)
        .await
        .unwrap_err();
    assert_eq!(unknown.to_string(), "the chain refused: TxPause.NotFound");

    let keys = MinerKeys::derive(&[0; 32], 12);
    let miner = keys.accounts().next().unwrap();
    world.node.set_miner_state(miner.clone(), "exit").await.unwrap();
    let info = world
        .node
        .read()
        .chain()
        .query(None, || sminer::MinerItems::<Runtime>::get(&miner));
    assert_eq!(info.unwrap().unwrap().state.as_slice(), b"exit");
    let wrong = world.node.set_miner_state(miner, "asleep").await.unwrap_err();
    assert_eq!(wrong.to_string(), "the chain refused: Sminer.StateError");
    author.abort();
}

#[test]
fn the_view_reports_through_signed_transactions() {
    let mut world = World::new();
    let view = world.node.clone().view(MinerKeys::derive(&[0; 32], 12));
    let fid = "ab".repeat(32);
    assert!(view.deal(&fid).is_none());
    assert!(view.report(99, 1, &fid).is_err());
    // A report without a deal is taken, and fails in its block.
    view.report(0, 1, &fid).unwrap();
    view.report(0, 2, &fid).unwrap();
    world.block();
    assert_eq!(world.node.read().chain().best().body.len(), 3);
    assert!(!view.stored(&fid, 0));
    assert_eq!(view.height(), 1);
}

#[test]
fn what_needs_a_transaction_that_died_is_not_ready() {
    let mut world = World::new();
    // Sent away, the money for the second fee is gone: the first is valid alone, then the second is not.
    let user: AccountId = world.user.public().into();
    let genesis = world.node.read().chain().genesis_hash();
    let leave = pallet_balances::Call::transfer_all {
        dest: AccountId::from([7; 32]).into(),
        keep_alive: false,
    };
    let leave = view::sign(&world.user, leave.into(), 0, genesis).encode();
    let mut left = world.node.submit_and_watch(leave).unwrap();
    let mut second = world.node.submit_and_watch(world.remark(1, b"second")).unwrap();
    let mut third = world.node.submit_and_watch(world.remark(2, b"third")).unwrap();
    let hash = world.block();
    assert_eq!(drain(&mut left).last(), Some(&TransactionStatus::InBlock(hash)));
    assert_eq!(drain(&mut second).last(), Some(&TransactionStatus::Invalid));
    assert!(!drain(&mut third).contains(&TransactionStatus::InBlock(hash)));
    assert_eq!(
        world
            .node
            .read()
            .chain()
            .query(None, || cessfs_devnet_runtime::Balances::free_balance(&user))
            .unwrap(),
        0
    );
}
