#!/usr/bin/env bash
# How fast it is: the parts alone, a mount beside the disk underneath it, and the pipeline to a CESS network on this machine.
# `make bench` is the way in. Root only: it drops the kernel's caches and mounts.
#
#   REPS=3 AT_REST=sealed|plain STORE=sled|redb   what is measured
#   SAVE=DIR        where results go (target/bench): mount.json, pipeline.json, parts.json, report.md
#   BASELINE=DIR    results to compare with; regressions are marked in the tables and named on stderr
#   ONLY=mount,pipeline,parts
#   FILES=20000     how many small files the pipeline takes
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

clean_up() {
    cessfs umount "$mount" >/dev/null 2>&1 || true
    [ ! -d "$scratch/net" ] || cessfs-devnet down --dir "$scratch/net" >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap clean_up EXIT

parts() {
    cargo bench -q -p cessfs-bench --bench parts -- --noplot >"$scratch/parts.log" 2>&1 || { cat "$scratch/parts.log" >&2; exit 1; }
    local dir=${CARGO_TARGET_DIR:-target}/criterion
    (cd "$dir" && for f in */*/new/estimates.json; do
        jq -c --arg name "${f%/new/estimates.json}" --slurpfile b "${f%estimates.json}benchmark.json" \
            '{name: $name, ns: .median.point_estimate, bytes: ($b[0].throughput.Bytes // null), elements: ($b[0].throughput.Elements // null)}' "$f"
    done) | jq -s 'map(. + {gib_per_s: (if .bytes then .bytes / .ns * 1e9 / 1073741824 else null end)})' >"$save/parts.json"
    printf '\n### The parts, one core\n\n| part | time | throughput |\n|---|---|---|\n'
    jq -r '.[] | "| \(.name) | \(.ns / 1000 * 10 | round / 10) µs | \(if .gib_per_s then "\(.gib_per_s * 100 | round / 100) GiB/s" elif .elements then "\(.elements / .ns * 1e9 | round)/s" else "–" end) |"' "$save/parts.json"
    printf '\nSum of the parts: %.2f core-seconds per GiB.\n' "$(sum_of_parts)"
}

# A GiB is named once, sealed at rest once, sealed for its pack once, coded and hashed, and coded again while it is sent.
sum_of_parts() {
    jq '[.[] | select(.name | IN("gib/chunk_id", "gib/seal_blocks", "gib/seal_chunk", "gib/encode_and_hash_pack", "gib/encode")) | 1 / .gib_per_s] | add' \
        "$save/parts.json"
}

network() {
    printf 'bench' >"$scratch/passphrase"
    chmod 600 "$scratch/passphrase"
    local devnet
    # A network is elsewhere: what it costs here gives way.
    devnet=$(chrt --idle 0 cessfs-devnet up --dir "$scratch/net" --miners 16 --daemon | tail -n 1)
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
    printf '\nPeak resident set of the daemon: %d MiB.\n' "$(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status")"
    cessfs metrics bench --json >"$save/stages.json"
}

pipeline() {
    local more=()
    [ ! -e "$save/parts.json" ] || more+=(--parts "$(sum_of_parts)")
    [ -z "$baseline" ] || [ ! -e "$baseline/pipeline.json" ] || more+=(--baseline "$baseline/pipeline.json")
    bench/pipeline "$mount" bench "$scratch/net" "$save/pipeline.json" --files "${FILES:-20000}" "${more[@]}"
}

# Not `asked parts || …`: within a condition bash goes on after errors.
{
    if [[ $only == *,parts,* ]]; then parts; fi
    if [[ $only == *,mount,* || $only == *,pipeline,* ]]; then network; fi
    if [[ $only == *,mount,* ]]; then mounted; fi
    if [[ $only == *,pipeline,* ]]; then pipeline; fi
} | tee "$save/report.md"
