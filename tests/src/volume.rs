//! A volume in a home of its own, and its mounts.

use crate::process::{command, drop_kernel_caches, output, succeed};
use crate::tree::{self, Manifest};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What `init` is asked for.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// `sealed` or `plain`.
    pub at_rest: &'static str,
    /// GiB of territory.
    pub gib: u32,
    /// What opens it.
    pub opened_by: Opener,
}

/// What opens a volume on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// A key file. It opens at once, so it is what a test takes that is about something else.
    KeyFile,
    /// A passphrase, with its slow hash: what a person takes.
    Passphrase,
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions {
            at_rest: "sealed",
            gib: 16,
            opened_by: Opener::KeyFile,
        }
    }
}

/// A volume and the files a person would keep beside it.
pub struct Volume {
    dir: PathBuf,
    opened_by: Opener,
    environment: Vec<(String, String)>,
    /// Its name.
    pub name: String,
}

impl Volume {
    /// Creates a volume on the network at `ws`, with everything it has in `dir`.
    pub fn init(dir: &Path, ws: &str, options: &InitOptions) -> Result<Volume> {
        Volume::init_with(&[], dir, ws, options)
    }

    /// The same with this database under the metadata store.
    pub fn init_on(store: &str, dir: &Path, ws: &str, options: &InitOptions) -> Result<Volume> {
        Volume::init_with(&["--store", store], dir, ws, options)
    }

    fn init_with(arguments: &[&str], dir: &Path, ws: &str, options: &InitOptions) -> Result<Volume> {
        let volume = Volume {
            dir: dir.to_path_buf(),
            opened_by: options.opened_by,
            environment: Vec::new(),
            name: "home".into(),
        };
        std::fs::create_dir_all(&volume.dir)?;
        // The newline is what an editor leaves behind; of a key file it is a byte like others.
        std::fs::write(volume.secret_file(), "correct horse battery staple correct horse\n")?;
        let mut init = volume.cessfs()?;
        init.args([
            "init",
            &volume.name,
            "--rpc",
            ws,
            "--at-rest",
            options.at_rest,
            "--days",
            "30",
        ]);
        init.args(arguments);
        init.args(["--territory", "docs", "--gib", &options.gib.to_string()]);
        init.arg("--new-phrase-file").arg(volume.phrase_file());
        volume.add_secret(&mut init);
        succeed(&mut init)?;
        Ok(volume)
    }

    /// The same phrase and secret in a home of its own, with nothing in it: another machine.
    pub fn elsewhere(&self, dir: &Path) -> Result<Volume> {
        let volume = Volume {
            dir: dir.to_path_buf(),
            opened_by: self.opened_by,
            environment: self.environment.clone(),
            name: self.name.clone(),
        };
        std::fs::create_dir_all(&volume.dir)?;
        std::fs::copy(self.phrase_file(), volume.phrase_file())?;
        std::fs::copy(self.secret_file(), volume.secret_file())?;
        Ok(volume)
    }

    /// `cessfs recover NAME …` with this volume's phrase and secret, to be given more arguments.
    pub fn recover_command(&self, ws: &str) -> Result<Command> {
        let mut recover = self.cessfs()?;
        recover.args(["recover", &self.name, "--rpc", ws, "--json"]);
        recover.arg("--phrase-file").arg(self.phrase_file());
        self.add_secret(&mut recover);
        Ok(recover)
    }

    /// `recover --json`; everything must come back.
    pub fn recover(&self, ws: &str, arguments: &[&str]) -> Result<Value> {
        let mut recover = self.recover_command(ws)?;
        Ok(serde_json::from_str(&succeed(recover.args(arguments))?)?)
    }

    /// How it rests on this machine: `sealed` or `plain`.
    pub fn at_rest(&self) -> Result<&'static str> {
        let path = self.home().join("volumes").join(&self.name).join("volume.toml");
        let is_plain = std::fs::read_to_string(path)?.contains("at_rest = \"plain\"");
        Ok(if is_plain { "plain" } else { "sealed" })
    }

    /// Where its 24 words are.
    pub fn phrase_file(&self) -> PathBuf {
        self.dir.join("phrase")
    }

    /// Where its passphrase or key is.
    pub fn secret_file(&self) -> PathBuf {
        self.dir.join("secret")
    }

    /// The mount option that opens it.
    pub fn secret_option(&self) -> String {
        let option = match self.opened_by {
            Opener::KeyFile => "key-file",
            Opener::Passphrase => "passphrase-file",
        };
        format!("{option}={}", self.secret_file().display())
    }

    /// Adds the argument that opens it to a verb that takes one.
    pub fn add_secret(&self, verb: &mut Command) {
        verb.arg(format!("--{}", self.secret_option()));
    }

    /// `CESSFS_HOME`.
    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// `cessfs --home …`, to be given a verb.
    pub fn cessfs(&self) -> Result<Command> {
        let mut cessfs = command("cessfs")?;
        cessfs.arg("--home").arg(self.home());
        cessfs.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(cessfs)
    }

    /// The same volume, whose commands, daemons among them, have this in their environment.
    pub fn with_environment(mut self, name: &str, value: &str) -> Volume {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Changes the text of `volume.toml`: each pair is an old text, which must be there, and a new one.
    pub fn configure(&self, changes: &[(&str, &str)]) -> Result<()> {
        let path = self.home().join("volumes").join(&self.name).join("volume.toml");
        let mut text = std::fs::read_to_string(&path)?;
        for (old, new) in changes {
            anyhow::ensure!(text.contains(old), "volume.toml has no `{old}`: {text}");
            text = text.replace(old, new);
        }
        Ok(std::fs::write(&path, text)?)
    }

    /// Mounts on `at`, which is made if need be.
    pub fn mount(&self, at: &Path) -> Result<Mount> {
        self.mount_with(at, &[])
    }

    /// Mounts with further `-o` options.
    pub fn mount_with(&self, at: &Path, options: &[&str]) -> Result<Mount> {
        std::fs::create_dir_all(at)?;
        let mut all = vec![self.secret_option()];
        all.extend(options.iter().map(|option| option.to_string()));
        let mut mount = self.cessfs()?;
        mount.args(["mount", &self.name]).arg(at).args(["-o", &all.join(",")]);
        succeed(&mut mount)?;
        let pid = self.status()?["pid"].as_i64().context("status has no pid")?;
        Ok(Mount {
            at: at.to_path_buf(),
            home: self.home(),
            pid: Pid::from_raw(pid as i32),
            gone: false,
        })
    }

    /// `status --json`.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["status", "--json"])?)?)
    }

    /// Packs that are in a state now (`status --json`, `packs`; names in any case).
    pub fn packs(&self, state: &str) -> Result<u64> {
        let status = self.status()?;
        let packs = status["packs"].as_object().context("status has no packs")?;
        let count = packs.iter().filter(|(name, _)| name.eq_ignore_ascii_case(state));
        Ok(count.filter_map(|(_, count)| count.as_u64()).sum())
    }

    /// Waits until `status --json` as text contains one of `words`.
    pub fn status_says(&self, words: &[&str], patience: Duration) -> Result<()> {
        let said = || {
            let status = self.status()?.to_string().to_lowercase();
            Ok(words.iter().any(|word| status.contains(&word.to_lowercase())))
        };
        crate::network::eventually(&format!("status to say one of {words:?}"), patience, said)
            .with_context(|| format!("status: {}", self.status().unwrap_or_default()))
    }

    /// Runs a verb that takes the volume's name first.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut cessfs = self.cessfs()?;
        cessfs.arg(arguments[0]).arg(&self.name).args(&arguments[1..]);
        succeed(&mut cessfs)
    }

    /// `sync --wait`: everything written before is on the network when this returns.
    pub fn sync(&self, patience: Duration) -> Result<()> {
        self.run(&["sync", "--wait", "--timeout", &patience.as_secs().to_string()])
            .map(drop)
    }

    /// `territory VERB NAME …`.
    pub fn territory(&self, arguments: &[&str]) -> Result<()> {
        let mut territory = self.cessfs()?;
        territory
            .args(["territory", arguments[0], &self.name])
            .args(&arguments[1..]);
        self.add_secret(&mut territory);
        succeed(&mut territory).map(drop)
    }

    /// `evict`.
    pub fn evict(&self) -> Result<()> {
        self.run(&["evict"]).map(drop)
    }

    /// Everything goes to the network, leaves the cache and the kernel's memory, and what is read below `at` then is `expected`.
    pub fn comes_back(&self, at: &Path, expected: &Manifest, patience: Duration) -> Result<()> {
        self.sync(patience)?;
        self.evict()?;
        drop_kernel_caches()?;
        let differences = tree::differences(expected, &tree::manifest(at)?);
        ensure!(differences.is_empty(), "from the network: {differences:?}");
        Ok(())
    }

    /// `explain PATH --json`.
    pub fn explain(&self, path: &Path) -> Result<Value> {
        let mut explain = self.cessfs()?;
        explain.arg("explain").arg(path).arg("--json");
        Ok(serde_json::from_str(&succeed(&mut explain)?)?)
    }
}

/// The accounts of the miners that an `explain --json` names, each once.
pub fn miners_of(explained: &Value) -> Vec<String> {
    let mut accounts = std::collections::BTreeSet::new();
    gather(explained, &mut accounts);
    accounts.into_iter().collect()
}

fn gather(value: &Value, accounts: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            accounts.extend(fields.get("account").and_then(Value::as_str).map(String::from));
            fields.values().for_each(|field| gather(field, accounts));
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, accounts)),
        _ => {}
    }
}

/// A live mount; unmounted when dropped.
pub struct Mount {
    at: PathBuf,
    home: PathBuf,
    /// The daemon.
    pub pid: Pid,
    gone: bool,
}

impl Mount {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// A line of shell that makes `cessfs` this build's, with the home of the mounted volume.
    pub fn shell_function(&self) -> Result<String> {
        let cessfs = command("cessfs")?;
        let (program, home) = (Path::new(cessfs.get_program()).display(), self.home.display());
        Ok(format!("cessfs() {{ '{program}' --home '{home}' \"$@\"; }}\n"))
    }

    /// `cessfs umount DIR`, as a person would.
    pub fn umount(self) -> Result<()> {
        self.umount_with(&[])
    }

    /// The same with options.
    pub fn umount_with(mut self, options: &[&str]) -> Result<()> {
        self.gone = true;
        let mut umount = command("cessfs")?;
        umount
            .arg("--home")
            .arg(&self.home)
            .arg("umount")
            .arg(&self.at)
            .args(options);
        succeed(&mut umount).map(drop)
    }

    /// SIGKILL to the daemon, if it is still there; the dead mount is detached.
    pub fn kill(self) -> Result<()> {
        self.kill_under(|| Ok(()))
    }

    /// The same; `meanwhile` runs while the dead mount still covers its place. Programs that work in it end then: one that knows
    /// its directory by an absolute path, as SQLite does, would go on beneath the mount.
    pub fn kill_under(mut self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        self.gone = true;
        match kill(self.pid, Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(e) => return Err(e.into()),
        }
        let done = meanwhile();
        detach(&self.at)?;
        done?;
        let dead = || Ok(kill(self.pid, None).is_err());
        crate::network::eventually("the killed daemon to be gone", Duration::from_secs(20), dead)
    }

    /// Highest resident set of the daemon so far, in bytes (`VmHWM`).
    pub fn peak_rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let mut umount = command("cessfs").expect("it ran before");
        umount.arg("--home").arg(&self.home).arg("umount").arg(&self.at);
        if !output(&mut umount).is_ok_and(|output| output.status.success()) {
            eprintln!("{} did not unmount; killing its daemon", self.at.display());
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = detach(&self.at);
        }
    }
}

/// Detaches a dead mount (`umount -l`).
fn detach(at: &Path) -> Result<()> {
    nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH).with_context(|| format!("detach {}", at.display()))
}
