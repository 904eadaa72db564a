use super::*;
use crate::attr::Caller;
use crate::core::VfsConfig;
use crate::fakes::bench::{scratch, wait};
use crate::fakes::{FakeChunks, FakeClock, FakeEntropy, FakeTrees, volume_keys};
use crate::inode::ROOT_INO;
use crate::records::{QuotaPhase, QuotaRecord};
use crate::request::OpenFlags;
use cessfs_sync::store::MemStore;
use cessfs_sync::{CutCause, MetaStore};
use parking_lot::Mutex;
use std::os::unix::fs::FileExt;

const WHO: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 1,
    umask: 0,
};

struct Scene {
    store: Arc<MemStore>,
    chunks: FakeChunks,
    dir: tempfile::TempDir,
    ino: u64,
}

impl Scene {
    /// A closed volume with one file of two chunks; `sent`: a pack has them.
    fn new(sent: bool) -> Scene {
        let mut scene = Scene {
            store: Arc::new(MemStore::new()),
            chunks: FakeChunks::new(),
            dir: scratch(),
            ino: 0,
        };
        let vfs = Vfs::open(scene.parts()).unwrap();
        let flags = OpenFlags {
            read: true,
            write: true,
            ..OpenFlags::default()
        };
        let (attr, handle) = vfs.create(ROOT_INO, b"file", 0o644, flags, WHO).unwrap();
        for offset in [0, 1 << 20] {
            wait(vfs.write(attr.ino, handle, offset, &[7; 10_000], false).unwrap()).unwrap();
        }
        vfs.release(attr.ino, handle).unwrap();
        if sent {
            vfs.write_back_all().unwrap();
            scene
                .chunks
                .seal(&*vfs.delta_source(), &*scene.store, CutCause::Forced)
                .unwrap();
            scene.chunks.confirm();
        }
        vfs.close().unwrap();
        scene.ino = attr.ino;
        scene
    }

    fn parts(&self) -> VfsParts {
        VfsParts {
            store: self.store.clone(),
            clock: Arc::new(FakeClock::new()),
            chunks: Arc::new(self.chunks.clone()),
            keys: volume_keys(),
            config: VfsConfig::new(self.dir.path().to_path_buf()),
            entropy: Arc::new(Mutex::new(FakeEntropy::new(self.store.progress().0 as u64 + 1))),
            trees: Arc::new(FakeTrees::default()),
        }
    }

    fn run(&self, repair: bool) -> Vec<Finding> {
        let report = fsck(self.parts(), repair).unwrap();
        assert!(report.closed);
        report.findings
    }

    fn change(&self, change: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new();
        change(&mut batch);
        self.store.commit(batch).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir
            .path()
            .join(format!("{:02x}/{:016x}", self.ino % 256, self.ino))
    }

    /// Exactly one thing is wrong, in words that have `word`; it can be put right, and stays so.
    #[track_caller]
    fn is_put_right(&self, word: &str) {
        let before = self.store.progress().0;
        let found = self.run(false);
        assert_eq!(self.store.progress().0, before, "a check changes nothing");
        assert!(found.len() == 1 && found[0].what.contains(word), "{found:?}");
        assert_eq!(found[0].remedy, Remedy::Repairable);
        assert_eq!(self.run(true)[0].remedy, Remedy::Repaired);
        assert_eq!(self.run(false), []);
    }
}

#[test]
fn a_sound_volume_has_no_findings() {
    for sent in [false, true] {
        assert_eq!(Scene::new(sent).run(false), []);
        assert_eq!(Scene::new(sent).run(true), []);
    }
}

#[test]
fn what_the_records_prove_is_put_right() {
    let scene = Scene::new(false);
    scene.change(|batch| batch.delete(dirty_key(scene.ino, 1)));
    scene.is_put_right("nothing notes");

    let scene = Scene::new(true);
    scene.change(|batch| batch.put(dirty_key(scene.ino, 0), records::encode_counter(0)));
    scene.is_put_right("noted as not sent");

    let key = records::inode_key(scene.ino);
    let record = InodeRecord::decode(&scene.store.get(&key).unwrap().unwrap()).unwrap();
    let miscounted = InodeRecord {
        blocks: 1,
        ..record.clone()
    };
    scene.change(|batch| batch.put(key.clone(), miscounted.encode()));
    scene.is_put_right("blocks");

    let miscounted = InodeRecord { nlink: 3, ..record };
    scene.change(|batch| batch.put(key, miscounted.encode()));
    let found = scene.run(false);
    assert!(found.iter().any(|finding| finding.what.contains("links")), "{found:?}");
    scene.run(true);
    assert_eq!(scene.run(false), []);

    scene.change(|batch| batch.put(records::FILES_KEY, records::encode_counter(77)));
    scene.is_put_right("77 inodes");

    let quota = QuotaRecord {
        phase: QuotaPhase::Active,
        bytes_max: 1,
        inodes_max: 1,
    };
    scene.change(|batch| batch.put(records::quota_key(999), quota.encode()));
    scene.is_put_right("directory 999");

    std::fs::write(scene.dir.path().join("05/0000000000000f05"), [1; 5000]).unwrap();
    scene.is_put_right("no more");
}

#[test]
fn a_counter_that_the_trash_has_reached_is_put_right() {
    let scene = Scene::new(false);
    let mut parts = scene.parts();
    parts.config.trash_keep = std::time::Duration::from_secs(1000);
    let vfs = Vfs::open(parts).unwrap();
    vfs.unlink(ROOT_INO, b"file").unwrap();
    let id = vfs.trash_list(0, 1).unwrap()[0].id;
    vfs.close().unwrap();
    assert_eq!(scene.run(false), []);
    scene.change(|batch| batch.put(records::NEXT_INO_KEY, records::encode_counter(id)));
    scene.is_put_right(&format!("{id} is taken"));
}

#[test]
fn a_damaged_block_is_dropped_only_if_a_pack_has_the_chunk() {
    for sent in [false, true] {
        let scene = Scene::new(sent);
        let file = std::fs::File::options().write(true).open(scene.file()).unwrap();
        file.write_all_at(&[0xEE; 64], 16 * 1024 + 4096).unwrap();
        if sent {
            scene.is_put_right("damaged in the cache");
            continue;
        }
        for repair in [false, true] {
            let found = scene.run(repair);
            assert!(
                found.len() == 1 && found[0].what.contains("no pack has it"),
                "{found:?}"
            );
            assert_eq!(found[0].remedy, Remedy::Told);
        }
    }
}

#[test]
fn a_volume_that_was_not_closed_is_left_to_the_repair_of_a_mount() {
    let scene = Scene::new(false);
    scene.change(|batch| batch.delete(records::CLEAN_KEY));
    let report = fsck(scene.parts(), false).unwrap();
    assert!(!report.closed && report.findings.is_empty(), "{report:?}");
    let report = fsck(scene.parts(), true).unwrap();
    assert!(report.closed && report.findings.is_empty(), "{report:?}");
    assert_eq!(scene.run(false), []);
}
