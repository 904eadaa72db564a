//! The house style, as far as a program can see it, and the direction of the rooms.
//!
//! A rule here is one that has been broken elsewhere by everybody in a hurry. Each failure lists every offender, so that
//! one run is enough to mend them all. The reasons are in `docs/STYLE.md`.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a file, tests in it included, above which it needs an entry in [`LONG_FILES`].
const FILE_LINES_MAX: usize = 600;

/// Files that may be longer, each with the argument why it is one room all the same.
const LONG_FILES: &[(&str, &str)] = &[];

/// Names that say nothing about what is inside.
const BANNED_MODULES: &[&str] = &[
    "common", "helper", "helpers", "manager", "misc", "types", "util", "utils",
];

/// What each room may use of ours, and which doors to the world it must not have.
const ROOMS: &[Room] = &[
    Room {
        name: "cessfs-crypto",
        ours: &[],
        banned: &[
            "fuser",
            "futures",
            "getrandom",
            "libc",
            "nix",
            "redb",
            "reqwest",
            "sled",
            "subxt",
            "tokio",
            "tracing",
        ],
    },
    Room {
        name: "cessfs-erasure",
        ours: &[],
        banned: &["fuser", "nix", "reqwest", "sled", "subxt", "tokio", "tracing"],
    },
    Room {
        name: "cessfs-sync",
        ours: &["cessfs-crypto", "cessfs-erasure"],
        banned: &["clap", "fuser", "indicatif", "notify", "toml"],
    },
    Room {
        name: "cessfs-vfs",
        ours: &["cessfs-crypto", "cessfs-sync"],
        banned: &[
            "clap",
            "fuser",
            "indicatif",
            "notify",
            "redb",
            "reqwest",
            "sled",
            "subxt",
            "toml",
        ],
    },
    Room {
        name: "cessfs",
        ours: &["cessfs-crypto", "cessfs-sync", "cessfs-vfs"],
        banned: &["redb", "reqwest", "sled", "subxt"],
    },
    // Its targets reach into every room; without them (as here) it depends on nothing.
    Room {
        name: "cessfs-fuzz",
        ours: &["cessfs", "cessfs-crypto", "cessfs-sync", "cessfs-vfs"],
        banned: &["fuser", "reqwest", "sled", "subxt", "tokio"],
    },
    Room {
        name: "cessfs-bench",
        ours: &[],
        banned: &[],
    },
    Room {
        name: "cessfs-mount-helper",
        ours: &[],
        banned: &["fuser", "tokio"],
    },
    Room {
        name: "cessfs-devnet",
        ours: &["cessfs-devnet-runtime"],
        banned: &[],
    },
    Room {
        name: "cessfs-devnet-runtime",
        ours: &[],
        banned: &["tokio"],
    },
    Room {
        name: "cessfs-simulation",
        ours: &["cessfs-crypto", "cessfs-sync", "cessfs-vfs"],
        banned: &["fuser", "getrandom", "nix", "redb", "reqwest", "sled", "subxt"],
    },
    Room {
        name: "cessfs-tests",
        ours: &[],
        banned: &[],
    },
];

/// Libraries that are a door to the world, and the files (or folders) that keep it.
const DOORS: &[(&str, &[&str])] = &[
    (
        "fuser",
        // The disk under the power-cut tests is a filesystem of its own.
        &[
            "cessfs/src/fuse.rs",
            "cessfs/src/fuse/",
            "vfs/tests/powercut/recorder.rs",
        ],
    ),
    ("getrandom", &["cessfs/src/wiring.rs"]),
    ("jiff", &["cessfs/src/moment.rs"]),
    ("redb", &["sync/src/store/redb"]),
    (
        "reqwest",
        &["sync/src/fragment_store/http", "sync/src/chain/subxt", "tests/devnet/"],
    ),
    ("sled", &["sync/src/store/sled"]),
    ("subxt", &["sync/src/chain/subxt", "tests/devnet/"]),
    ("zbus", &["cessfs/src/metered.rs", "tests/tests/uplink.rs"]),
];

/// What a room must not know of: sync no files, vfs no network.
const UNSPOKEN: &[(&str, &[&str])] = &[
    ("sync/", &["dentry", "errno", "Errno", "inode", "ino"]),
    (
        "vfs/",
        &[
            "Chain",
            "Fid",
            "fid",
            "fragment",
            "FragmentStore",
            "miner",
            "Miner",
            "segment",
        ],
    ),
];

/// Crates that subxt brings and that only sound like FRAME: decoders and hashes, all of them permissively licensed.
const NOT_FRAME: &[&str] = &["frame-decode", "frame-metadata", "sp-crypto-hashing"];

struct Room {
    name: &'static str,
    ours: &'static [&'static str],
    banned: &'static [&'static str],
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the workspace")
        .to_path_buf()
}

/// Files below the root with this extension: path as in the repository, and content.
fn files(extension: &str) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let below = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((below, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file below {}", root.display());
    found
}

fn none(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

/// True where a line reaches into a library: `library::` that is the end of no other path or name.
fn uses(line: &str, library: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    line.match_indices(&format!("{library}::"))
        .any(|(at, _)| !before(at).is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':'))
}

/// True where `word` stands in `line` and is no part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| edge(line[..at].chars().next_back()) && edge(line[at + word.len()..].chars().next()))
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_room_is_a_file_and_a_folder_with_a_name_that_says_something() {
    let mut offenders = Vec::new();
    for (path, _) in files("rs") {
        let path = Path::new(&path);
        let parts = path.with_extension("");
        let mut parts = parts.iter().filter_map(|part| part.to_str());
        if path.ends_with("mod.rs") || parts.any(|part| BANNED_MODULES.contains(&part)) {
            offenders.push(path.display().to_string());
        }
    }
    none("mod.rs, or a name that fits everything", offenders);
}

#[test]
fn files_are_short_or_say_why_not() {
    let files = files("rs");
    let long = |path: &str| {
        files
            .iter()
            .any(|(there, text)| there == path && text.lines().count() > FILE_LINES_MAX)
    };
    let excused = |path: &str| LONG_FILES.iter().any(|(excused, _)| *excused == path);
    let offenders = files
        .iter()
        .filter(|(path, _)| long(path) && !excused(path))
        .map(|(path, _)| path.clone());
    none("longer than 600 lines", offenders.collect());
    let stale = LONG_FILES
        .iter()
        .filter(|(path, _)| !long(path))
        .map(|(path, _)| path.to_string());
    none("excused for a length that it does not have", stale.collect());
}

#[test]
fn every_file_says_first_what_it_is() {
    // The unit tests of a room stand under the head of the room.
    let headless = |(path, text): &(String, String)| !text.starts_with("//! ") && !path.ends_with("/tests.rs");
    let offenders = files("rs").into_iter().filter(headless).map(|(path, _)| path);
    none("no module head on the first line", offenders.collect());
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart, so that this file does not offend.
    let macros = [concat!("to", "do!"), concat!("unimple", "mented!")];
    let words = [concat!("FIX", "ME"), concat!("X", "XX"), concat!("TO", "DO")];
    let mut offenders = Vec::new();
    for (path, text) in files("rs") {
        for (number, line) in (1..).zip(text.lines()) {
            if macros.iter().any(|name| line.contains(name)) || words.iter().any(|word| has_word(line, word)) {
                offenders.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    none("unfinished on its own word", offenders);
}

#[test]
fn only_its_keeper_knows_a_library() {
    let files = files("rs");
    let mut offenders = Vec::new();
    for (library, keepers) in DOORS {
        let kept = |path: &str| keepers.iter().any(|keeper| path.starts_with(keeper));
        let used: Vec<&String> = files
            .iter()
            .filter(|(_, text)| text.lines().any(|line| uses(line, library)))
            .map(|(path, _)| path)
            .collect();
        assert!(
            used.iter().any(|path| kept(path)),
            "nobody uses {library}: a stale rule"
        );
        offenders.extend(
            used.into_iter()
                .filter(|path| !kept(path))
                .map(|path| format!("{path}: {library}")),
        );
    }
    none("a library used behind its keeper's back", offenders);
}

/// A `select!` that polls at random, or a small network outside of its simulation: either would make two runs of a seed differ,
/// or one of them real.
#[test]
fn one_seed_is_one_schedule() {
    let files = files("rs");
    let mut offenders = Vec::new();
    for (path, text) in &files {
        let seams = ["sync/src/fragment_store/", "sync/src/chain/"];
        let simulated = ["sync/src/", "vfs/src/", "tests/simulation/"]
            .iter()
            .any(|room| path.starts_with(room));
        if simulated && !seams.iter().any(|seam| path.starts_with(seam)) {
            let lines: Vec<&str> = text.lines().collect();
            let starts = lines
                .windows(2)
                .filter(|pair| pair[0].contains("select! {") && pair[1].trim() != "biased;");
            offenders.extend(starts.map(|pair| format!("{path}: {}", pair[0].trim())));
        }
        let keepers = [
            "sync/erasure/src/geometry.rs",
            "tests/simulation/",
            "tests/tests/tidy.rs",
        ];
        if text.contains("geometry::simulate") && !keepers.iter().any(|keeper| path.starts_with(keeper)) {
            offenders.push(format!("{path}: makes the network small"));
        }
    }
    assert!(
        files.iter().any(|(path, _)| path == "tests/simulation/src/run.rs"),
        "a stale rule"
    );
    none("something that a seed does not decide", offenders);
}

#[test]
fn rooms_do_not_speak_of_what_they_must_not_know() {
    let files = files("rs");
    let mut offenders = Vec::new();
    for (room, words) in UNSPOKEN {
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with(room)) {
            for (number, line) in (1..).zip(text.lines()) {
                // Comments and messages are for people.
                let code: String = line
                    .split("//")
                    .next()
                    .unwrap_or_default()
                    .split('"')
                    .step_by(2)
                    .collect();
                let said = words.iter().filter(|word| has_word(&code, word));
                offenders.extend(said.map(|word| format!("{path}:{number}: {word}")));
            }
        }
    }
    none("a word of another room", offenders);
}

#[test]
fn crypto_is_safe_rust() {
    let head = fs::read_to_string(root().join("crypto/src/lib.rs")).unwrap();
    assert!(head.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn dependencies_point_one_way() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let mut offenders = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            offenders.push(format!("{name} is a room that tests/tests/tidy.rs does not know"));
            continue;
        };
        // Dev-dependencies do not ship: a room may test itself with what it must not use.
        for dependency in package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|there| there["kind"] != "dev")
        {
            let wanted = dependency["name"].as_str().unwrap();
            let ours = ROOMS.iter().any(|room| room.name == wanted);
            if (ours && !room.ours.contains(&wanted)) || room.banned.contains(&wanted) {
                offenders.push(format!("{name} -> {wanted}"));
            }
        }
    }
    none("a dependency that points the wrong way", offenders);
    assert_eq!(
        packages.len(),
        ROOMS.len(),
        "a room went away; tests/tests/tidy.rs still names it"
    );
}

#[test]
fn the_client_ships_no_frame() {
    let tree = cargo(&[
        "tree",
        "--offline",
        "-p",
        "cessfs",
        "-e",
        "normal,build",
        "--prefix",
        "none",
    ]);
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"subxt"), "the tree is the client's");
    let frame = |name: &&str| {
        ["frame-", "pallet-", "sc-", "sp-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let offenders = names
        .into_iter()
        .filter(frame)
        .filter(|name| !NOT_FRAME.contains(name))
        .map(String::from);
    none("a crate of the node in the client", offenders.collect());
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut offenders = Vec::new();
    for (path, text) in files("md") {
        let here = root().join(&path);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                here.clone()
            } else {
                here.parent().unwrap().join(file)
            };
            let there = match fs::read_to_string(&target) {
                Ok(text) if target.extension().is_some_and(|extension| extension == "md") && !anchor.is_empty() => {
                    anchors(&text).iter().any(|there| there == anchor)
                }
                _ => target.exists(),
            };
            if !there {
                offenders.push(format!("{path}: {link}"));
            }
        }
    }
    none("a link to nowhere", offenders);
}

/// Lines of a Markdown text that are neither in a code block nor indented code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// Targets of the inline links of a Markdown text.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // What stands between backticks is code: every second piece.
        let plain: String = line.split('`').step_by(2).collect();
        for piece in plain.split("](").skip(1) {
            if let Some((target, _)) = piece.split_once(')') {
                let path = target.split_whitespace().next().unwrap_or_default();
                found.push(path.trim_matches(['<', '>']).to_owned());
            }
        }
    }
    found
}

/// Anchors of a Markdown text's headings, by the rule of the common forges.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()));
    let slug = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

/// `file.rs::name` in the promises and in the answers to attacks: a test that is there. No row of promises is without one.
#[test]
fn every_promise_is_guarded_by_a_test() {
    let promises = fs::read_to_string(root().join("docs/DURABILITY.md")).unwrap();
    let mut offenders = unguarded(&promises);
    for (document, least) in [("docs/DURABILITY.md", 20), ("docs/THREATS.md", 8)] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let mut named = 0;
        for word in text.split('`').filter(|word| word.contains(".rs::")) {
            named += 1;
            let (file, test) = word.split_once("::").expect("the filter saw it");
            let code = fs::read_to_string(root().join(file)).unwrap_or_default();
            if !has_test(&code, test) {
                offenders.push(format!("{document}: {word}"));
            }
        }
        assert!(named > least, "only {named} tests are named in {document}");
    }
    none("names of tests that do not exist", offenders);
}

/// Rows of tables headed `guarded by` that name no test.
fn unguarded(text: &str) -> Vec<String> {
    let mut guarded = false;
    let mut found = Vec::new();
    for line in text.lines() {
        match line.starts_with('|') {
            true if line.ends_with("| guarded by |") => guarded = true,
            true if guarded && !line.starts_with("|---") && !line.contains(".rs::") => found.push(line.into()),
            true => {}
            false => guarded = false,
        }
    }
    found
}

/// Some function of this name is a test.
fn has_test(code: &str, name: &str) -> bool {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let mut places = (0..lines.len()).filter(|place| lines[*place].contains(&head));
    places.any(|place| {
        let above = lines[..place].iter().rev();
        above
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn the_rules_see_what_they_look_for() {
    assert!(uses("use door::Request;", "door") && uses("fn a(_: &door::X)", "door"));
    assert!(!uses("use super::door::X;", "door") && !uses("the_door::x()", "door"));
    assert!(has_word("// XY: later", "XY") && !has_word("mktemp aXYb", "XY") && !has_word("XY_1", "XY"));
    let text = "# One & two\n[a](b.md#c) `[no](no.md)` [d](<e> \"title\")\n```\n[code](x.md)\n```\n[f](#one--two)\n";
    assert_eq!(links(text), ["b.md#c", "e", "#one--two"]);
    assert_eq!(anchors(text), ["one--two"]);
    let promises = "| | guarded by |\n|---|---|\n| a | `b.rs::c` |\n| d | nobody |\n\n| e | f |\n";
    assert_eq!(unguarded(promises), ["| d | nobody |"]);
    assert!(has_test("#[test]\n// why\nfn a() {}", "a") && !has_test("fn a() {}", "a"));
}
