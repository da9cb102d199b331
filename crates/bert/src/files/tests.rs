//! Runs that end at every step of a replacement, that meet other runs, and that leave things behind.

use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tempfile::TempDir;

/// What is in a folder, by name; folders have a content of their own.
fn contents(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let text = if entry.path().is_dir() {
                "folder".into()
            } else {
                fs::read_to_string(entry.path()).unwrap()
            };
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect()
}

fn put(folder: &Path, names: &[&str], text: &str) {
    names.iter().for_each(|name| fs::write(folder.join(name), text).unwrap());
}

fn expected(names: &[&str], text: &str, others: &[(&str, &str)]) -> BTreeMap<String, String> {
    let new = names.iter().map(|&name| (name.to_owned(), text.to_owned()));
    new.chain(others.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))).collect()
}

/// A rename that ends the process, as far as this process can tell, in the place of the `n`-th one.
fn killed_at(n: usize) -> impl FnMut(&Path, &Path) -> io::Result<()> {
    let mut left = n;
    move |from, to| {
        // No panic message: there are thousands.
        left = left.checked_sub(1).unwrap_or_else(|| std::panic::resume_unwind(Box::new("killed")));
        fs::rename(from, to)
    }
}

/// What a program that knows names only may find: no model, the old or the new one, beside files that are not a model's.
fn assert_no_mixture(found: &BTreeMap<String, String>, old: &[&str], new: &[&str]) {
    if !found.contains_key(CONFIG_FILE) {
        return;
    }
    let mut model = found.clone();
    model.retain(|name, _| !name.starts_with(".vitrine") && name != "notes.txt" && name != "src");
    assert!(model == expected(old, "old", &[]) || model == expected(new, "new", &[]), "a mixture: {model:?}");
}

const OTHERS: [(&str, &str); 2] = [("notes.txt", "mine"), ("src", "folder")];

/// A folder with an old model and things of its user, and a staged new one.
fn overwriting(old: &[&str], new: &[&str]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    put(folder.path(), old, "old");
    put(folder.path(), &["notes.txt"], "mine");
    fs::create_dir(folder.path().join("src")).unwrap();
    let staging = folder.path().join(claim::partial(NEW));
    fs::create_dir(&staging).unwrap();
    put(&staging, new, "new");
    (folder, staging)
}

/// A run is killed at its `first` rename, and the run that finishes its work at its `second`. Whether each came so far.
fn killed_twice(old: &[&str], new: &[&str], first: usize, second: usize) -> (bool, bool) {
    let (folder, staging) = overwriting(old, new);
    let folder = folder.path();
    let replaced =
        catch_unwind(AssertUnwindSafe(|| replace::replace(folder, &staging, &mut killed_at(first))));
    assert_no_mixture(&contents(folder), old, new);
    let finished = catch_unwind(AssertUnwindSafe(|| replace::finish_by(folder, &mut killed_at(second))));
    assert_no_mixture(&contents(folder), old, new);

    let read = || Ok(contents(folder));
    let (mut model, _) = read_whole(folder, read).unwrap();
    model.retain(|name, _| !name.ends_with(".partial"));
    let whole = if first == 0 { expected(old, "old", &OTHERS) } else { expected(new, "new", &OTHERS) };
    assert_eq!(model, whole, "a reader, killed at {first} and {second}");
    drop(StagedFiles::new(folder).unwrap());
    assert_eq!(contents(folder), whole, "the next run, killed at {first} and {second}");
    (replaced.is_err(), finished.is_err())
}

const MODEL: [&str; 8] = [
    "metrics.jsonl",
    CONFIG_FILE,
    "special_tokens_map.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
    WEIGHTS_FILE,
    "run.json",
];

#[test]
fn a_run_killed_at_any_rename_leaves_one_model_and_no_mixture() {
    let bare = [CONFIG_FILE, "vocab.txt", "added_tokens.json", WEIGHTS_FILE, "run.json"];
    let (mut runs, mut kills) = (0, 0);
    for (old, new) in [(&MODEL[..], &MODEL[..]), (&bare, &MODEL), (&MODEL, &bare), (&[], &MODEL)] {
        for first in 0.. {
            let mut came = (false, false);
            for second in 0.. {
                came = killed_twice(old, new, first, second);
                runs += 1;
                kills += usize::from(came.0) + usize::from(came.1);
                if !came.1 {
                    break;
                }
            }
            if !came.0 {
                break;
            }
        }
    }
    println!("{runs} runs, {kills} kills");
    assert!(kills > 500, "the replacement has fewer steps than this test thinks: {kills} kills");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn so_does_one_that_replaces_any_files_by_any(
        old in proptest::sample::subsequence(&MODEL_FILES[1..], 0..8),
        new in proptest::sample::subsequence(&MODEL_FILES[1..], 0..8),
        unknown in any::<bool>(),
        first in 0_usize..24,
        second in 0_usize..24,
    ) {
        let old = [&[CONFIG_FILE], &old[..]].concat();
        let mut new = [&[CONFIG_FILE], &new[..]].concat();
        new.extend(unknown.then_some("labels.json"));
        killed_twice(&old, &new, first, second);
    }
}

#[test]
fn a_rename_that_fails_leaves_everything_as_it_was() {
    for fails in 0.. {
        let (folder, staging) =
            overwriting(&MODEL, &[CONFIG_FILE, "tokenizer.json", WEIGHTS_FILE, "labels.json"]);
        let (before, staged) = (contents(folder.path()), contents(&staging));
        let mut done = 0;
        let result = replace::replace(folder.path(), &staging, &mut |from, to| {
            done += 1;
            if done > fails { Err(io::ErrorKind::PermissionDenied.into()) } else { fs::rename(from, to) }
        });
        if result.is_ok() {
            assert!(fails > 12, "only {fails} renames");
            break;
        }
        assert_eq!(contents(folder.path()), before, "failed at {fails}");
        assert_eq!(contents(&staging), staged, "failed at {fails}");
    }
}

#[test]
fn files_appear_together_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    put(folder, &["a"], "old");
    let mut files = StagedFiles::new(folder).unwrap();
    files.write_text("a", "new").unwrap();
    assert!(files.write("b", |_| Err(io::ErrorKind::StorageFull.into())).is_err());
    drop(files);
    assert_eq!(contents(folder), expected(&["a"], "old", &[]));

    let mut files = StagedFiles::new(folder).unwrap();
    files.write_text("a", "new").unwrap();
    files.write_text("b", "new").unwrap();
    files.commit().unwrap();
    files.rewrite("b", "newest").unwrap();
    drop(files);
    assert_eq!(contents(folder), expected(&["a"], "new", &[("b", "newest")]));

    // A folder in the place of a file is an error at once, and keeps all the others from being replaced if it comes later.
    let mut files = StagedFiles::new(folder).unwrap();
    files.write_text("a", "newer").unwrap();
    files.write_text("c", "newer").unwrap();
    fs::create_dir(folder.join("c")).unwrap();
    assert!(files.commit().is_err());
    assert!(files.create("c").is_err());
    drop(files);
    assert_eq!(contents(folder), expected(&["a"], "new", &[("b", "newest"), ("c", "folder")]));
}

#[test]
fn folders_that_were_made_for_files_go_with_them() {
    let folder = TempDir::new().unwrap();
    let (given_up, kept) = (folder.path().join("given/up"), folder.path().join("ke/pt"));
    StagedFiles::new(&given_up).unwrap().write_text("a", "text").unwrap();
    assert!(!folder.path().join("given").exists());
    let mut files = StagedFiles::new(&kept).unwrap();
    files.write_text("a", "text").unwrap();
    files.commit().unwrap();
    drop(files);
    assert_eq!(contents(&kept), expected(&["a"], "text", &[]));
    StagedFiles::new(folder.path()).unwrap().write_text("a", "text").unwrap();
    assert!(folder.path().exists());
}

#[cfg(unix)]
#[test]
fn one_run_a_folder() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out");
    let mut first = StagedFiles::in_empty_folder(&output).unwrap();
    first.write_text(CONFIG_FILE, "first").unwrap();
    let linked = folder.path().join("link");
    std::os::unix::fs::symlink(&output, &linked).unwrap();
    for path in [&output, &linked, &output.join("../out")] {
        for open in [StagedFiles::new, StagedFiles::in_empty_folder] {
            let refused = open(path).err().expect("the folder is in use").to_string();
            assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        }
    }
    first.commit().unwrap();
    // Also while the first one evaluates what it has saved.
    assert!(StagedFiles::new(&output).is_err());
    drop(first);
    assert!(StagedFiles::in_empty_folder(&output).is_err(), "it is not empty");
    let mut second = StagedFiles::new(&linked).unwrap();
    second.write_text(CONFIG_FILE, "second").unwrap();
    second.commit().unwrap();
    assert_eq!(contents(&output), expected(&[CONFIG_FILE], "second", &[]));
    assert!(linked.is_symlink());
}

#[test]
fn what_dead_runs_left_is_removed_and_what_others_left_is_not() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    put(folder, &[".metrics.jsonl.4711.partial", ".model.safetensors.1.partial"], "left");
    let own = claim::partial(NEW);
    for staging in [".vitrine-new.4711.partial", ".vitrine-old.4711.partial", &own] {
        fs::create_dir(folder.join(staging)).unwrap();
        put(&folder.join(staging), &[CONFIG_FILE], "left");
    }
    drop(StagedFiles::in_empty_folder(folder).unwrap());
    assert_eq!(contents(folder), BTreeMap::new());

    let names =
        [".film.mkv.4711.partial", ".config.json.partial", ".run.json.x.partial", "run.json.7.partial"];
    put(folder, &names, "mine");
    let refused = StagedFiles::in_empty_folder(folder).err().expect("there are files").to_string();
    assert!(refused.contains("not empty"), "{refused}");
    drop(StagedFiles::new(folder).unwrap());
    assert_eq!(contents(folder), expected(&names, "mine", &[]));
}

#[test]
fn a_model_that_appears_meanwhile_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("out");
    let mut files = StagedFiles::new(&output).unwrap();
    files.write_text(CONFIG_FILE, "ours").unwrap();
    put(&output, &[CONFIG_FILE], "theirs");
    assert!(files.commit().unwrap_err().to_string().contains("another program"));
    drop(files);
    assert_eq!(contents(&output), expected(&[CONFIG_FILE], "theirs", &[]));
    // The same after it has been saved: a report must not come to stand beside another model.
    let mut files = StagedFiles::new(&output).unwrap();
    files.write_text(CONFIG_FILE, "ours").unwrap();
    files.commit().unwrap();
    fs::remove_file(output.join(CONFIG_FILE)).unwrap();
    put(&output, &[CONFIG_FILE], "their own");
    assert!(files.rewrite("run.json", "of ours").is_err());
    drop(files);
    assert_eq!(contents(&output), expected(&[CONFIG_FILE], "their own", &[]));
}

#[cfg(unix)]
#[test]
fn nor_is_one_in_a_folder_that_took_the_place_of_the_claimed_one() {
    let folder = TempDir::new().unwrap();
    let (output, moved) = (folder.path().join("out"), folder.path().join("moved"));
    let mut files = StagedFiles::new(&output).unwrap();
    files.write_text(CONFIG_FILE, "ours").unwrap();
    fs::rename(&output, &moved).unwrap();
    fs::create_dir(&output).unwrap();
    assert!(files.commit().is_err());
    drop(files);
    assert_eq!(contents(&output), BTreeMap::new());
    // What stayed in the moved folder does not count.
    drop(StagedFiles::in_empty_folder(&moved).unwrap());
    assert_eq!(contents(&moved), BTreeMap::new());
}

#[test]
fn room_that_was_reserved_and_not_needed_is_no_part_of_a_file() {
    let folder = TempDir::new().unwrap();
    let mut files = StagedFiles::new(folder.path()).unwrap();
    for (name, bytes) in [("long", 3 << 20), ("short", 2), ("none", 0)] {
        files.reserve(name, bytes).unwrap();
        files.write_text(name, "text").unwrap();
        // Written again: only the last time counts.
        files.write_text(name, "new").unwrap();
    }
    files.commit().unwrap();
    drop(files);
    assert_eq!(contents(folder.path()), expected(&["long", "none", "short"], "new", &[]));

    // Where the system cannot reserve.
    let path = folder.path().join("zeros");
    let file = File::create(&path).unwrap();
    reserve::write_zeros(&file, (1 << 20) + 7).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), (1 << 20) + 7);
    (&file).write_all(b"text").unwrap();
    assert_eq!(&fs::read(&path).unwrap()[..5], b"text\0");
}

#[test]
fn a_reader_reads_again_when_the_model_is_replaced_under_it() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let save = |text: &str| {
        let mut files = StagedFiles::new(folder).unwrap();
        files.write_text(CONFIG_FILE, text).unwrap();
        files.write_text(WEIGHTS_FILE, text).unwrap();
        files.commit().unwrap();
    };
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    save("old");
    let reads = Cell::new(0);
    let (found, note) = read_whole(folder, || {
        let config = read(CONFIG_FILE);
        reads.set(reads.get() + 1);
        if reads.get() == 1 {
            save("new");
        }
        Ok((config, read(WEIGHTS_FILE)))
    })
    .unwrap();
    assert_eq!((reads.get(), found, note), (2, ("new".into(), "new".into()), None));
    // One that is replaced again and again is an error, not a loop.
    let endless = read_whole(folder, || {
        save("newer");
        Ok(())
    });
    assert!(endless.is_err());
    assert!(read_whole(&folder.join("none"), || Ok(())).is_ok(), "what is missing is for `read` to say");
}
