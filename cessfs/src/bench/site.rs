//! One directory that is measured: where the work is done, and what it is done with.

use super::workloads::{Step, Workload, large};
use super::{Plan, Taken};
use crate::exit::Failure;
use crate::wiring::OsEntropy;
use cessfs_crypto::Entropy;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of the pool that written content comes from. Incompressible, and no MiB of it is like another.
const POOL_BYTES: usize = 16 << 20;

/// A directory at work. What was made in it goes when this is dropped.
pub struct Site {
    /// A directory of our own in the measured one.
    pub dir: PathBuf,
    /// See [`Plan::mib`].
    pub mib: usize,
    /// See [`Plan::files`].
    pub files: usize,
    pool: Vec<u8>,
}

impl Site {
    pub fn open(parent: &Path, plan: &Plan) -> Result<Site, Failure> {
        let dir = parent.join(format!("cessfs-bench.{}", std::process::id()));
        fs::create_dir(&dir).map_err(|e| Failure::disk(format!("cannot make {}", dir.display()), &e))?;
        let mut pool = vec![0; POOL_BYTES];
        OsEntropy.fill(&mut pool);
        Ok(Site {
            dir,
            mib: plan.mib,
            files: plan.files,
            pool,
        })
    }

    /// `len` bytes, different for different `seed`s.
    pub fn bytes(&self, seed: usize, len: usize) -> &[u8] {
        let start = seed.wrapping_mul(4099) % (self.pool.len() - len + 1);
        &self.pool[start..start + len]
    }

    /// Does a workload once, and tells how long the part of it took that counts.
    pub fn measure(&mut self, workload: &Workload, rep: usize) -> Result<Taken, Failure> {
        let failed = |e: io::Error| Failure::disk(format!("{} in {}", workload.name, self.dir.display()), &e);
        for step in workload.before {
            if !self.prepare(*step).map_err(failed)? {
                return Ok(None);
            }
        }
        let began = Instant::now();
        let done = (workload.work)(self, rep).map_err(failed)?;
        Ok(done.then(|| began.elapsed()))
    }

    /// False where it cannot be done.
    fn prepare(&self, step: Step) -> io::Result<bool> {
        match step {
            Step::Quiet => {
                nix::unistd::syncfs(fs::File::open(&self.dir)?)?;
                Ok(true)
            }
            Step::Cold => {
                nix::unistd::sync();
                Ok(fs::write("/proc/sys/vm/drop_caches", "3").is_ok())
            }
            Step::Warm => large(self),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            tell!("{} stays: {e}", self.dir.display());
        }
    }
}
