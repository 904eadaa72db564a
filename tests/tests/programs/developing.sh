# git with all its house-keeping, two backups, and a build.
export HOME=$PWD GIT_CONFIG_GLOBAL=/dev/null
mkdir repo; cd repo; git init -q; git config user.email a@b; git config user.name n
for i in $(seq 300); do echo "line $i" >"f$i"; done
git add -A; git commit -qm one; git gc -q; git fsck --strict
git checkout -qb side; sed -i s/line/LINE/ f1*; git commit -qam two; git checkout -q -; git merge -q side; git stash list
git worktree add -q ../tree side~1; git repack -adq; git prune; git fsck --strict --full
git clone -q --no-local . ../clone; git -C ../clone fsck; cd ..
restic init -q -r backup --password-command 'echo pw' --no-cache
restic backup -q -r backup --password-command 'echo pw' --no-cache repo
restic check -q -r backup --password-command 'echo pw' --no-cache --read-data
restic restore -q -r backup --password-command 'echo pw' --no-cache latest --target restored
diff -r repo restored/repo
export BORG_PASSPHRASE=pw BORG_BASE_DIR=$PWD/borg-home
borg init -e repokey archive; borg create archive::one repo; echo more >>repo/f1; borg create archive::two repo
borg check --verify-data archive; borg prune --keep-last 1 archive; borg compact archive; borg check archive
mkdir extracted; (cd extracted; borg extract ../archive::two); diff -r repo extracted/repo; git -C repo checkout -q f1
env HOME="$REAL_HOME" CARGO_TARGET_DIR="$PWD/crate/target" cargo init -q --vcs none --name hello crate
(cd crate; env HOME="$REAL_HOME" CARGO_TARGET_DIR="$PWD/target" cargo build -q --offline; ./target/debug/hello
    touch src/main.rs; env HOME="$REAL_HOME" CARGO_TARGET_DIR="$PWD/target" cargo build -q --offline)
