//! Access control lists and the privileges of files, as other users meet them through a real mount.

use anyhow::Result;
use cessfs_tests::modes::{bash, on_each_kernel_mode, on_each_mode, on_each_mount};

#[test]
fn lists_are_enforced_and_follow_the_mode() -> Result<()> {
    on_each_mode(
        |at| {
            let said = bash(
                at,
                "echo secret >f; chmod 600 f; chown 1000:1000 f
                 no as 1001 cat f
                 setfacl -m u:1001:r,g:1005:rw f
                 as 1001 cat f; no as 1002 cat f; no as 1001 sh -c 'echo more >>f'
                 as 1002:1005 sh -c 'echo more >>f'
                 getfacl -cn f; stat -c %a f
                 as 1000 chmod g=r f; as 1001 cat f >/dev/null; no as 1002:1005 sh -c 'echo never >>f'
                 as 1000 chmod g= f; no as 1001 cat f; getfacl -cnE f
                 as 1000 chmod g=rw f
                 no as 1001 setfacl -m u:1001:rwx f
                 wc -l <f",
            )?;
            let denied: Vec<&str> = said.lines().filter(|line| line.contains("denied")).collect();
            assert_eq!(denied.len(), 5, "{said}");
            let told: Vec<&str> = said
                .lines()
                .filter(|line| !line.contains("denied") && !line.is_empty())
                .collect();
            assert_eq!(
                told,
                [
                    "secret",
                    "user::rw-",
                    "user:1001:r--",
                    "group::---",
                    "group:1005:rw-",
                    "mask::rw-",
                    "other::---",
                    "660",
                    "user::rw-",
                    "user:1001:r--",
                    "group::---",
                    "group:1005:rw-",
                    "mask::---",
                    "other::---",
                    "setfacl: f: Operation not permitted",
                    "2"
                ]
            );
            Ok(())
        },
        |at| {
            bash(
                at,
                "as 1001 cat f; no as 1002 cat f
                 setfacl -b f; test $(stat -c %a f) = 600; no as 1001 cat f; test -z \"$(getfattr -m- f)\"",
            )
            .map(drop)
        },
    )
}

#[test]
fn what_is_made_inherits() -> Result<()> {
    on_each_mode(
        |at| {
            let said = bash(
                at,
                "mkdir d; setfacl -d -m u::rwx,u:1001:rwx,g::rx,o::- d
                 umask 077
                 touch d/file; mkdir -p d/e/deep; mkfifo d/fifo; ln -s file d/link; mknod d/null c 1 3
                 python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"d/socket\")'
                 stat -c '%A %n' d/*
                 getfacl -cnE d/file; getfacl -cnE d/e/deep
                 setfacl -k d; touch d/masked; stat -c %a d/masked; getfacl -cn d/masked",
            )?;
            let told: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
            assert_eq!(
                told,
                [
                    "drwxrwx--- d/e",
                    "prw-rw---- d/fifo",
                    "-rw-rw---- d/file",
                    "lrwxrwxrwx d/link",
                    "crw-rw---- d/null",
                    "srwx------ d/socket", // bind(2) has the umask count, always
                    "user::rw-",
                    "user:1001:rwx",
                    "group::r-x",
                    "mask::rw-",
                    "other::---",
                    "user::rwx",
                    "user:1001:rwx",
                    "group::r-x",
                    "mask::rwx",
                    "other::---",
                    "default:user::rwx",
                    "default:user:1001:rwx",
                    "default:group::r-x",
                    "default:mask::rwx",
                    "default:other::---",
                    "600",
                    "user::rw-",
                    "group::---",
                    "other::---",
                ]
            );
            Ok(())
        },
        |at| bash(at, "as 1001 touch d/e/deep/mine; no as 1002 ls d/e").map(drop),
    )
}

#[test]
fn malformed_lists_change_nothing() -> Result<()> {
    on_each_mount(&[], |mount| {
        let said = bash(
            mount.path(),
            "touch f; ln -s f s
             for value in 0x02 0xdeadbeef 0x0200000001000600ffffffff 0x0200000001000900ffffffff04000400ffffffff20000400ffffffff; do
                 no setfattr -n system.posix_acl_access -v $value f
             done
             no setfattr -n system.posix_acl_default -v 0x0200000001000600ffffffff04000400ffffffff20000400ffffffff f
             no setfattr -h -n system.posix_acl_access -v 0x0200000001000600ffffffff04000400ffffffff20000400ffffffff s
             no setfattr -n system.other -v x f
             stat -c %a f; getfattr -m- f",
        )?;
        let count = |word: &str| said.matches(word).count();
        assert_eq!(
            (
                count("Invalid argument") + count("Operation not supported"),
                count("Permission denied")
            ),
            (6, 1),
            "{said}"
        );
        assert!(said.ends_with("644\n"), "{said}");
        Ok(())
    })
}

#[test]
fn privileges_go_with_content_and_owner() -> Result<()> {
    on_each_kernel_mode(
        &[],
        |_, dir| {
            bash(
                dir,
                r#"
# Kept with its metadata, and large enough for the kernel to read and write it itself where it may.
head -c 1000 /dev/urandom >small; head -c 200000 /dev/urandom >large
python=$(as 1001 bash -c 'type -P python3')
copy() { "$python" -ISc '
import os
assert os.copy_file_range(os.open("small", os.O_RDONLY), os.open("f", os.O_WRONLY), 500, 0, 100) == 500'; }
export python; export -f copy
changes=('echo x >>f' 'fallocate -l 300000 f' 'fallocate -n -l 400000 f' 'fallocate -p -l 4096 f' 'fallocate -z -l 100 f' copy
    'truncate -s 1 f' ': >f')
mode() { test "$(stat -c %a "$1")" = "$2" || { echo "$3: $1 is $(stat -c %a "$1"), not $2"; exit 1; }; }
capable() { test "$(getcap "$1" | wc -l)" = "$2" || { echo "$3: $(getcap "$1")"; exit 1; }; }
# File capabilities go with every change of content or owner, root's too.
for content in small large; do
for change in "${changes[@]}" 'chown 1000 f' 'chgrp 1000 f'; do
    rm -f f; cp $content f; cat f >/dev/null; setcap cap_net_raw+ep f; capable f 1 set
    bash -c "$change"; capable f 0 "$content, root: $change"
    setcap cap_net_raw+ep f; chmod 666 f; capable f 1 'set again'
    case $change in ch*) ;; *) as 1001 bash -c "$change"; capable f 0 "$content: $change" ;; esac
done
# Set-id bits go with changes by others than root.
rm -f f
for change in "${changes[@]}"; do
    cp $content f; cat f >/dev/null; chown 1000:1000 f; chmod 6777 f
    bash -c "$change"; mode f 6777 "$content, root: $change"
    as 1001 bash -c "$change"; mode f 777 "$content: $change"
    chmod 2767 f; as 1001 bash -c "$change"; mode f 767 "$content, no group execution: $change"
    chmod 2767 f; as 1001:1000 bash -c "$change"; mode f 2767 "$content, no group execution, by a member: $change"
done
done
chmod 6755 f; chown 1001 f; mode f 755 chown
# Set-gid stays only with members of the group, whoever changes mode or list.
chown 1000:50 f; chmod 2770 f
as 1000:50 setfacl -m u:1001:r f; mode f 2770 'a list by a member'
as 1000 setfacl -m u:1002:r f; mode f 770 'a list by somebody else'
setfacl -b f; chmod 2770 f; as 1000 chmod 2750 f; mode f 750 'chmod by somebody else'
chmod 2770 f; setfacl -m u:1002:r f; mode f 2770 'a list by root'
# Directories hand set-gid and group down; a set-gid file of a foreign group cannot be made.
mkdir d; chown 1000:50 d; chmod 2777 d
as 1001 sh -c 'umask 0; mkdir d/sub; touch d/file; python3 -c "import os; os.close(os.open(\"d/program\", os.O_CREAT | os.O_WRONLY, 0o2775))"'
test "$(stat -c '%a %g' d/sub d/file d/program | tr '\n' ,)" = '2777 50,666 50,775 50,' || { stat -c '%a %g' d/*; exit 1; }
rm -rf d f
"#,
            )
            .map(drop)
        },
        |_, _| Ok(()),
    )
}

#[test]
fn namespaces_of_attributes() -> Result<()> {
    on_each_mode(
        |at| {
            let said = bash(
                at,
                "touch f; chown 1000 f; mkdir -m 1777 d; chown 1000 d; ln -s f s; mkfifo p
                 for space in user trusted security; do setfattr -n $space.a -v 1 f; done
                 as 1000 setfattr -n user.b -v 2 f
                 no as 1001 setfattr -n user.b -v 3 f
                 no as 1000 setfattr -n trusted.b -v 3 f
                 no setfattr -h -n user.a -v 3 s
                 no setfattr -n user.a -v 3 p
                 setfattr -h -n trusted.a -v 3 s; setfattr -n trusted.a -v 3 p
                 no as 1001 setfattr -n user.a -v 3 d
                 no setfattr -n user.$(printf %251s | tr ' ' x) -v 3 f
                 echo; as 1000 getfattr -d -m- f | sort",
            )?;
            let told = said.rsplit("\n\n").next().unwrap_or_default();
            assert!(
                said.ends_with("security.a=\"1\"\nuser.a=\"1\"\nuser.b=\"2\"\n"),
                "{said}"
            );
            assert!(!told.contains("trusted"), "{said}");
            let refused = said.matches("Operation not permitted").count() + said.matches("Permission denied").count();
            assert_eq!((refused, said.matches("out of range").count()), (5, 1), "{said}");
            Ok(())
        },
        |at| {
            bash(
                at,
                "getfattr --only-values -n trusted.a f p; getfattr -h --only-values -n trusted.a s",
            )
            .map(drop)
        },
    )
}
