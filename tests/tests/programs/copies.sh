# A tree with everything in it goes onto the mount and comes back by tar, rsync and cp: no difference either way.
export RSYNC_RSH=false
source=$(mktemp -d); trap 'cat said 2>/dev/null || true; rm -rf "$source"' EXIT
(
    cd "$source"; mkdir -p tree/deep/er; cd tree
    echo content >file; ln file deep/hard; ln -s ../file deep/link; ln -s nowhere dangling; mkfifo deep/pipe
    mknod null c 1 3; mknod disk b 7 200
    head -c 3000000 /dev/urandom >big; truncate -s 40M sparse; printf x | dd of=sparse bs=1 seek=20M conv=notrunc status=none
    touch "$(printf %255s | tr ' ' n)" $'odd \n\xff\t*?' -- -dash
    chmod 6755 big; chmod 1777 deep; chown -R 1000:1001 deep; chown -h 5:6 dangling; chmod 000 "$(printf %255s | tr ' ' n)"
    setfattr -n user.comment -v 'any bytes' file; setfattr -n trusted.t -v 0x00ff deep; setfattr -n user.empty file
    setfacl -m u:1002:rwx,g:1003:r file deep; setfacl -d -m u:1002:rx deep/er
    touch -d '1969-12-31 23:59:58.123456789 UTC' file; touch -d '2400-01-01 00:00:00.5 UTC' big
    # rsync looks at seconds only of what is no file.
    find . ! -type f -print0 | xargs -0 touch -h -d '2001-02-03 04:05:06 UTC'
)
same() {
    local told
    told=$(rsync -aHAXSn --delete --itemize-changes "$1/" "$2/")
    test -z "$told" || { echo "$1 and $2 differ: $told"; exit 1; }
    diff <(describe "$1") <(describe "$2")
}
each() { find . "${@:2}" -print0 | sort -z | xargs -0 $1; }
describe() (
    cd "$1"
    each 'stat -c %F:%a:%u:%g:%h:%.9Y:%t,%T:%n'; each 'stat -c %s:%n' -type f
    each 'getfattr -h -d -m- -e hex'; each 'getfacl -n' ! -type l
)

tar() { command tar --warning=no-timestamp "$@"; }
exec 3>&2 2>said # a copier that complains has failed
mkdir here back
rsync -aHAXS --inplace "$source/tree/" here/rsync/; same "$source/tree" here/rsync
rsync -aHAXS --inplace here/rsync/ "$source/back/"; same "$source/tree" "$source/back"
rsync -aHAXS here/rsync/ here/again/; same here/rsync here/again
tar -C "$source" --acls --xattrs --xattrs-include='*' -S -cf here/tree.tar tree
tar -C here --acls --xattrs --xattrs-include='*' -xpf here/tree.tar; same "$source/tree" here/tree
tar -C here --acls --xattrs --xattrs-include='*' -S -cf back/tree.tar tree; mkdir "$source/tar"
tar -C "$source/tar" --acls --xattrs --xattrs-include='*' -xpf back/tree.tar; same "$source/tree" "$source/tar/tree"
cp -a --sparse=auto here/tree here/copy; same "$source/tree" here/copy
cp --reflink=auto here/tree/big back/big; cmp here/tree/big back/big
# find sees what is there.
count() { find here/tree \( "$@" \) -printf x | wc -c; }
test "$(count -type f)" = 7; test "$(count -type l)" = 2; test "$(count -type p -o -type b -o -type c)" = 3
test "$(count -samefile here/tree/file)" = 2; test "$(count -perm -4000)" = 1; test "$(count -newermt 2399-01-01)" = 1
exec 2>&3; test ! -s said
rm -rf here back said
