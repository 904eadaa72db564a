#!/usr/bin/env bash
# The mount beside the disk underneath it: the same workloads on both, interleaved, medians of three, as ratios.
# `make bench` is the way in. Root only (it drops the kernel's caches and mounts). Uploading goes on in the background.
set -euo pipefail

reps=${REPS:-3}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cessfs-bench.XXXXXX")
export CESSFS_HOME=$scratch/home
mount=$scratch/mnt native=$scratch/native
mkdir -p "$mount" "$native"

clean_up() {
    cessfs umount "$mount" >/dev/null 2>&1 || true
    cessfs-devnet down --dir "$scratch/net" >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap clean_up EXIT

printf 'bench' >"$scratch/passphrase"
chmod 600 "$scratch/passphrase"
ws=$(cessfs-devnet up --dir "$scratch/net" --miners 16 --daemon | tail -n 1)
cessfs init bench --rpc "$ws" --new-phrase-file "$scratch/phrase" --passphrase-file "$scratch/passphrase" \
    --territory bench --gib 64 --days 30 --at-rest "${AT_REST:-sealed}" >/dev/null
cessfs mount bench "$mount" -o "passphrase-file=$scratch/passphrase"

drop() { sync; echo 3 >/proc/sys/vm/drop_caches; }

# Inputs, in memory, so that reading them costs both sides the same.
tar=/dev/shm/cessfs-bench-$$.tar
trap 'rm -f "$tar"; clean_up' EXIT
mkdir "$scratch/tree"
for i in $(seq 40); do
    mkdir "$scratch/tree/$i"
    for k in $(seq 50); do head -c $((RANDOM % 16384)) /dev/urandom >"$scratch/tree/$i/file-$k"; done
done
tar cf "$tar" -C "$scratch/tree" .

# Each takes a directory of its own.
seq_write_512M() { dd if=/dev/zero of="$1/seq" bs=1M count=512 conv=fsync status=none; }
seq_read_cold() { drop; dd if="$1/seq" of=/dev/null bs=1M status=none; }
seq_read_warm() { dd if="$1/seq" of=/dev/null bs=1M status=none; }
untar_2000() { mkdir -p "$1/tree" && tar xf "$tar" -C "$1/tree"; }
list_2000() { ls -lR "$1/tree" >/dev/null; }
grep_cold() { drop; grep -rq zzqqxy_none "$1/tree" || true; }
rm_2000() { rm -rf "$1/tree"; }
sqlite_500() {
    rm -f "$1"/db*
    { echo 'pragma journal_mode=wal; pragma synchronous=full; create table t(a);'
      for i in $(seq 500); do echo "insert into t values($i);"; done; } | sqlite3 "$1/db" >/dev/null
}
workloads=(seq_write_512M seq_read_cold seq_read_warm untar_2000 list_2000 grep_cold rm_2000 sqlite_500)

now() { date +%s%N; }
declare -A taken
for _ in $(seq "$reps"); do
    for work in "${workloads[@]}"; do
        for side in native mount; do
            dir=${!side}
            start=$(now)
            "$work" "$dir"
            taken[$work.$side]+="$((($(now) - start) / 1000)) "
        done
    done
done

median() { tr ' ' '\n' <<<"$1" | grep . | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
printf '| workload | native disk | cessfs | ratio |\n|---|---|---|---|\n'
for work in "${workloads[@]}"; do
    a=$(median "${taken[$work.native]}") b=$(median "${taken[$work.mount]}")
    awk -v w="$work" -v a="$a" -v b="$b" 'BEGIN { printf "| %s | %.3f s | %.3f s | %.2f |\n", w, a / 1e6, b / 1e6, b / a }'
done
pid=$(cessfs status bench --json | jq .pid)
printf '\npeak resident set of the daemon: %d MiB\n' "$(awk '/VmHWM/ { print $2 / 1024 }' "/proc/$pid/status")"
