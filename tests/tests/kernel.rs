//! What the kernel keeps of a mount and hands back later: pages of mappings.

use anyhow::Result;
use cessfs_tests::modes::{bash, on_each_kernel_mode};

/// Bytes of files kept with their metadata, in the cache, and (plain) read and written by the kernel itself.
const SIZES: &str = "3000 5000 200000";

#[test]
fn a_mapping_of_a_file_opened_for_appending_is_written_in_its_place() -> Result<()> {
    on_each_kernel_mode(
        &[],
        |_, dir| {
            bash(
                dir,
                &format!(
                    r#"
for size in {SIZES}; do
    head -c $size /dev/urandom >$size; cp $size $size.model
done
# Looked at since, so that those that may be passed through are.
cat * >/dev/null
python3 - {SIZES} <<'END'
import mmap, os, sys
for name in sys.argv[1:]:
    with open(name + ".model", "r+b") as model:
        model.seek(100); model.write(b"in its place")
        model.seek(0, 2); model.write(b"at the end")
    fd = os.open(name, os.O_RDWR | os.O_APPEND)
    mapped = mmap.mmap(fd, int(name))
    mapped[100:112] = b"in its place"
    mapped.flush()
    os.write(fd, b"at the end")
    mapped.close()
    os.close(fd)
END
for size in {SIZES}; do cmp $size $size.model; done"#
                ),
            )
            .map(drop)
        },
        |_, dir| bash(dir, &format!("for size in {SIZES}; do cmp $size $size.model; done")).map(drop),
    )
}
