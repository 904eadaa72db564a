#!/usr/bin/env bash
# How fast it is: the parts alone, a mount beside the disk underneath it, and the pipeline to a CESS network on this machine.
# `make bench` is the way in. Root only: it drops the kernel's caches and mounts.
#
#   REPS=3 AT_REST=sealed|plain STORE=sled|redb   what is measured
#   SAVE=DIR        where results go (target/bench): mount.json, pipeline.json, parts.json, report.md
#   BASELINE=DIR    results to compare with; regressions are marked in the tables and named on stderr
#   ONLY=mount,pipeline,parts
set -euo pipefail
cd "$(dirname "$0")/.."

save=${SAVE:-target/bench}
baseline=${BASELINE:-}
only=",${ONLY:-parts,mount,pipeline},"
mkdir -p "$save"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cessfs-bench.XXXXXX")
export CESSFS_HOME=$scratch/home
mount=$scratch/mnt native=$scratch/native
mkdir -p "$mount" "$native"
devnet=

clean_up() {
    cessfs umount "$mount" >/dev/null 2>&1 || true
    [ -z "$devnet" ] || cessfs-devnet down --dir "$scratch/net" >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap clean_up EXIT

now_ms() { echo $(($(date +%s%N) / 1000000)); }
ticks_ms=$((1000 / $(getconf CLK_TCK)))
# Milliseconds of processor time of the daemon.
cpu_ms() { awk -v t="$ticks_ms" '{ sub(/.*\) /, ""); split($0, f, " "); print (f[12] + f[13]) * t }' "/proc/$1/stat"; }

parts() {
    cargo bench -q -p cessfs-bench --bench parts -- --noplot >"$scratch/parts.log" 2>&1 || { cat "$scratch/parts.log" >&2; exit 1; }
    local dir=${CARGO_TARGET_DIR:-target}/criterion
    (cd "$dir" && for f in */*/new/estimates.json; do
        jq -c --arg name "${f%/new/estimates.json}" --slurpfile b "${f%estimates.json}benchmark.json" \
            '{name: $name, ns: .median.point_estimate, bytes: ($b[0].throughput.Bytes // null), elements: ($b[0].throughput.Elements // null)}' "$f"
    done) | jq -s 'map(. + {gib_per_s: (if .bytes then .bytes / .ns * 1e9 / 1073741824 else null end)})' >"$save/parts.json"
    printf '\n### The parts, one core\n\n| part | time | throughput |\n|---|---|---|\n'
    jq -r '.[] | "| \(.name) | \(.ns / 1000 * 10 | round / 10) µs | \(if .gib_per_s then "\(.gib_per_s * 100 | round / 100) GiB/s" elif .elements then "\(.elements / .ns * 1e9 | round)/s" else "–" end) |"' "$save/parts.json"
    # A GiB is named once, sealed at rest once, sealed for its pack once, coded and hashed, and coded again while it is sent.
    sum=$(jq '[.[] | select(.name | IN("gib/chunk_id", "gib/seal_chunk", "gib/encode_and_hash_pack", "gib/encode")) | 1 / .gib_per_s] | add' "$save/parts.json")
    printf '\nSum of the parts: %.2f core-seconds per GiB.\n' "$sum"
}

network() {
    printf 'bench' >"$scratch/passphrase"
    chmod 600 "$scratch/passphrase"
    devnet=$(cessfs-devnet up --dir "$scratch/net" --miners 16 --daemon | tail -n 1)
    cessfs init bench --rpc "$devnet" --new-phrase-file "$scratch/phrase" --passphrase-file "$scratch/passphrase" \
        --territory bench --gib 64 --days 30 --at-rest "${AT_REST:-sealed}" ${STORE:+--store "$STORE"} >/dev/null
    cessfs mount bench "$mount" -o "passphrase-file=$scratch/passphrase"
    pid=$(cessfs status bench --json | jq .pid)
}

mounted() {
    local compare=()
    [ -z "$baseline" ] || [ ! -e "$baseline/mount.json" ] || compare=(--baseline "$baseline/mount.json")
    printf '\n### The mount beside the disk underneath it\n\n'
    cessfs bench "$mount" --beside "$native" --reps "${REPS:-3}" --save "$save/mount.json" "${compare[@]}"
    printf '\nPeak resident set of the daemon: %d MiB.\n' "$(awk '/VmHWM/ { print $2 / 1024 }' "/proc/$pid/status")"
    cessfs metrics bench --json >"$save/stages.json"
}

# Seconds, and the daemon's processor seconds, of a step of the pipeline.
step() {
    local name=$1 t0 c0
    shift
    t0=$(now_ms) c0=$(cpu_ms "$pid")
    "$@" >/dev/null
    took=$(($(now_ms) - t0)) cpu=$(($(cpu_ms "$pid") - c0))
    echo "{\"name\": \"$name\", \"ms\": $took, \"cpu_ms\": $cpu}" >>"$scratch/steps"
}

small_files() {
    mkdir "$mount/small"
    python3 - "$mount/small" 20000 <<'PY'
import os, sys
top, count = sys.argv[1], int(sys.argv[2])
data = os.urandom(1 << 20)
for i in range(count):
    if i % 1000 == 0:
        os.mkdir(f"{top}/{i // 1000}")
    with open(f"{top}/{i // 1000}/{i}", "wb") as f:
        f.write(data[i:i + 4096])
PY
}

cold_reads() {
    python3 - "$mount/large" "$scratch/ttfb" <<'PY'
import os, random, sys, time
r, took = random.Random(1), []
f = os.open(sys.argv[1], os.O_RDONLY)
for _ in range(30):
    t = time.perf_counter()
    assert len(os.pread(f, 4096, r.randrange(os.fstat(f).st_size // 4096) * 4096)) == 4096
    took.append((time.perf_counter() - t) * 1000)
took.sort()
open(sys.argv[2], "w").write(f"{took[len(took) // 2]:.1f} {took[-1]:.1f}")
PY
}

drop_cache() { cessfs evict bench && { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null; }

pipeline() {
    local mib=512
    : >"$scratch/steps"
    cessfs sync bench --wait >/dev/null
    step write_512M dd if=/dev/urandom of="$mount/large" bs=1M count=$mib conv=fsync status=none
    step upload_512M cessfs sync bench --wait
    drop_cache >/dev/null
    step cold_4k cold_reads
    drop_cache >/dev/null
    step cold_read_512M dd if="$mount/large" of=/dev/null bs=1M status=none
    step small_write small_files
    local packs0 packs1
    packs0=$(cessfs status bench --json | jq '[.packs[]] | add')
    step small_upload cessfs sync bench --wait
    packs1=$(cessfs status bench --json | jq '[.packs[]] | add')
    local idle0
    sleep 3
    idle0=$(cpu_ms "$pid")
    sleep 10
    read -r ttfb worst <"$scratch/ttfb"
    jq -s --argjson packs $((packs1 - packs0)) --argjson idle $(($(cpu_ms "$pid") - idle0)) --argjson ttfb "$ttfb" --argjson worst "$worst" \
        '{steps: ., small_packs: $packs, idle_cpu_ms_in_10s: $idle, cold_4k_ms: $ttfb, cold_4k_worst_ms: $worst}' "$scratch/steps" >"$save/pipeline.json"
    printf '\n### The pipeline, to a CESS network on the same machine\n\n| | time | processor of the client |\n|---|---|---|\n'
    jq -r '.steps[] | "| \(.name) | \(.ms / 1000) s | \(.cpu_ms / 1000) s |"' "$save/pipeline.json"
    jq -r '"\nSmall files: 20,000 in \(.small_packs) packs. Cold 4 KiB read: \(.cold_4k_ms) ms, worst of 30 \(.cold_4k_worst_ms) ms. Idle: \(.idle_cpu_ms_in_10s / 100) % of a core."' "$save/pipeline.json"
    [ -z "$baseline" ] || [ ! -e "$baseline/pipeline.json" ] || compare_pipeline
}

compare_pipeline() {
    jq -rn --slurpfile a "$baseline/pipeline.json" --slurpfile b "$save/pipeline.json" '
        [$b[0].steps[] as $now | $a[0].steps[] | select(.name == $now.name) | {name, factor: ($now.ms / .ms)} | select(.factor >= 1.25)][]
        | "\(.name) is \(.factor * 100 | round / 100) times slower than before"' >&2
}

{
    [[ $only != *,parts,* ]] || parts
    if [[ $only == *,mount,* || $only == *,pipeline,* ]]; then network; fi
    [[ $only != *,mount,* ]] || mounted
    [[ $only != *,pipeline,* ]] || pipeline
} | tee "$save/report.md"
