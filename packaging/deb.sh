#!/usr/bin/env bash
# Builds cessfs_VERSION_ARCH.deb and, where cessfs-devnet is built, cessfs-devnet_VERSION_ARCH.deb.
#
#   packaging/deb.sh OUTDIR
#
# CESSFS_BIN_DIR     directory of built binaries [default: the dev profile in $CARGO_TARGET_DIR or target/]
# CESSFS_DEVNET_DIR  where cessfs-devnet is built, if not there
# DEB_COMPRESSION    what dpkg-deb compresses with [default: xz]
set -euo pipefail

[ $# = 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
repository=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$repository"

bins=${CESSFS_BIN_DIR:-${CARGO_TARGET_DIR:-target}/debug}
for binary in cessfs mount-cessfs; do
    [ -x "$bins/$binary" ] || { echo "deb.sh: $bins/$binary is not built; run \`cargo build --workspace --bins\`" >&2; exit 1; }
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
arch=$(dpkg --print-architecture)
# Files carry the commit's time, so that the same sources give the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# control NAME DEPENDS DESCRIPTION LONG
control() {
    local root=$work/$1
    mkdir -p "$root/DEBIAN"
    cat > "$root/DEBIAN/control" <<CONTROL
Package: $1
Version: $version
Architecture: $arch
Maintainer: The cessfs authors <cessfs@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: $2
Section: utils
Priority: optional
Description: $3
 $4
CONTROL
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
    dpkg-deb --root-owner-group "-Z${DEB_COMPRESSION:-xz}" --build "$root" "$out/$1_${version}_$arch.deb" >&2
    echo "$out/$1_${version}_$arch.deb"
}

# program FILE TO
program() {
    install -D -m 0755 "$1" "$2"
    strip --strip-unneeded "$2"
}

copyright() {
    install -D -m 0644 packaging/copyright "$work/$1/usr/share/doc/$1/copyright"
    if [ -f CHANGELOG.md ]; then
        gzip -9nc CHANGELOG.md > "$work/$1/usr/share/doc/$1/changelog.gz"
    fi
}

# The glibc that the binaries were linked against is the oldest they run with.
libc="libc6 (>= $(ldd --version | sed -n '1s/.* //p'))"

root=$work/cessfs
program "$bins/cessfs" "$root/usr/bin/cessfs"
# /sbin is /usr/sbin on every release with merged /usr (Debian 12, Ubuntu 20.04 and later): mount(8) finds it there.
program "$bins/mount-cessfs" "$root/usr/sbin/mount.cessfs"
# What is mounted has the type fuse.cessfs: for a remount mount(8) looks for that.
ln -s mount.cessfs "$root/usr/sbin/mount.fuse.cessfs"
install -D -m 0644 packaging/systemd/cessfs@.service "$root/usr/lib/systemd/system/cessfs@.service"
install -D -m 0644 packaging/systemd/cessfs-user@.service "$root/usr/lib/systemd/user/cessfs@.service"
mkdir -p "$root"/usr/share/{man/man1,man/man8,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
"$bins/cessfs" man "$root/usr/share/man/man1"
printf '.so man1/cessfs-mount.1\n' > "$root/usr/share/man/man8/mount.cessfs.8"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
"$bins/cessfs" completions bash > "$root/usr/share/bash-completion/completions/cessfs"
"$bins/cessfs" completions zsh > "$root/usr/share/zsh/vendor-completions/_cessfs"
"$bins/cessfs" completions fish > "$root/usr/share/fish/vendor_completions.d/cessfs.fish"
# Those that are named by the program, and what they name in turn for people who use it.
for page in CLI_ABI CONFIGURATION SEMANTICS THREATS; do
    install -D -m 0644 "docs/$page.md" "$root/usr/share/doc/cessfs/$page.md"
done
copyright cessfs
control cessfs "fuse3, $libc" "encrypted filesystem on the storage network CESS" \
    "Mounts volumes whose content is encrypted on this machine, erasure-coded and stored
 with twelve independent miners. The recovery phrase alone restores a volume."

devnet=${CESSFS_DEVNET_DIR:-$bins}
if [ -x "$devnet/cessfs-devnet" ]; then
    program "$devnet/cessfs-devnet" "$work/cessfs-devnet/usr/bin/cessfs-devnet"
    copyright cessfs-devnet
    control cessfs-devnet "$libc" "a CESS network on this machine, for tests of cessfs" \
        "Runs a chain and storage miners in one process."
else
    echo "deb.sh: $devnet/cessfs-devnet is not built; its package is left out" >&2
fi
