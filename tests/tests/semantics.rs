//! `docs/SEMANTICS.md`, executed: every example in it runs on a real mount in every way the kernel may treat content, of
//! each at-rest mode.
//!
//! An example is a block fenced as `sh semantics`, or `sh semantics, unless passed through`: then it does not hold of files that
//! the kernel reads and writes itself, and the page says why. It runs as root, in an empty directory of the mount. What stands after
//! `$ ` is a command (going on where the next line starts with `> `), and the lines up to the next `$ ` are what it must
//! say, on either stream. `cessfs` knows where the volume, `home`, is. The words `as` and `no` are the harness's (tests/src/modes.rs).

use anyhow::{Context, Result};
use cessfs_tests::modes::{bash, kernel_modes, on_each_volume};
use std::path::Path;

/// A line that no example prints.
const MARK: &str = "@@ example";

/// One command of an example, and what it must say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    command: String,
    says: String,
}

/// An example of a document.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    /// Number of the line it starts in.
    line: usize,
    /// It holds of files that are passed through, too.
    passes: bool,
    steps: Vec<Step>,
}

/// The examples of a document.
fn examples(document: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(document.lines()) {
        if !open {
            if let Some(unless) = line.strip_prefix("```sh semantics") {
                open = true;
                found.push(Example {
                    line: number,
                    passes: unless.is_empty(),
                    steps: Vec::new(),
                });
            }
            continue;
        }
        let steps = &mut found.last_mut().expect("a block is open").steps;
        if line == "```" {
            open = false;
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                says: String::new(),
            });
        } else {
            let step = steps.last_mut().expect("an example starts with a command");
            match line.strip_prefix("> ").filter(|_| step.says.is_empty()) {
                Some(more) => step.command += &format!("\n{more}"),
                None => step.says += &format!("{line}\n"),
            }
        }
    }
    assert!(!open, "the last block is not closed");
    found
}

/// Where the kernel writes files itself, their `st_blocks` may be a second old, as the page says: it is asked for after that.
const PATIENT_STAT: &str = "stat() { case \"$*\" in *%b*) sleep 2 ;; esac; command stat \"$@\"; }\n";

/// Runs the steps in one shell; the first that says something else than it must, in words.
fn check(dir: &Path, functions: &str, steps: &[Step]) -> Result<()> {
    // A command may fail: what it says is compared, not how it ends.
    let mut script = format!("set +e\n{functions}");
    for step in steps {
        script += &format!("{}\necho '{MARK}'\n", step.command);
    }
    let said = bash(dir, &script)?;
    let mark = format!("{MARK}\n");
    let mut parts = said.split(&mark);
    for step in steps {
        let said = parts.next().context("the shell ended early")?;
        anyhow::ensure!(
            said == step.says,
            "$ {}\nsays:\n{said}and the document says:\n{}",
            step.command,
            step.says
        );
    }
    Ok(())
}

#[test]
fn every_example_of_the_document_is_true() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SEMANTICS.md");
    let document = std::fs::read_to_string(path)?;
    let examples = examples(&document);
    assert!(examples.len() >= 17, "only {} examples", examples.len());
    on_each_volume(|volume, at| {
        for mode in kernel_modes(volume.at_rest()?) {
            let mount = volume.mount_with(at, &[&["dev", "suid"], mode].concat())?;
            let mut wrong = Vec::new();
            let mut functions = mount.shell_function()?;
            let passes = mode.contains(&"passthrough=auto");
            if passes {
                functions += PATIENT_STAT;
            }
            for Example { line, steps, .. } in examples.iter().filter(|example| example.passes || !passes) {
                let dir = mount.path().join(format!("line-{line}"));
                std::fs::create_dir(&dir)?;
                if let Err(e) = check(&dir, &functions, steps) {
                    wrong.push(format!("docs/SEMANTICS.md:{line}: {e:#}"));
                }
                std::fs::remove_dir_all(&dir)?;
            }
            assert!(wrong.is_empty(), "{}: {}", mode.join(","), wrong.join("\n\n"));
            mount.umount()?;
        }
        Ok(())
    })
}

#[test]
fn examples_are_found() {
    let document = "# Head\n```sh\n$ no example\n```\n```sh semantics\n$ one\n> more\nsays\n> this\n$ two\n```\n\
                    ```sh semantics, unless passed through\n$ three\n```\n";
    let step = |command: &str, says: &str| Step {
        command: command.into(),
        says: says.into(),
    };
    let example = |line, passes, steps| Example { line, passes, steps };
    let first = vec![step("one\nmore", "says\n> this\n"), step("two", "")];
    let expected = [example(5, true, first), example(12, false, vec![step("three", "")])];
    assert_eq!(examples(document), expected);
}
