use super::*;
use crate::data::{Dataset, Example};
use crate::{TokenizedDataset, corpus};
use vitrine_bert::Truncation;

fn rows(count: usize) -> Dataset {
    let words = ["good", "bad", "film", "dull", "warm", "!"];
    let text = |row: usize| {
        (0..row % 13 + 1).map(|word| words[(row * 7 + word) % words.len()]).collect::<Vec<_>>().join(" ")
    };
    let examples = (0..count).map(|row| Example { text: text(row), label: (row % 2) as u32 });
    Dataset { examples: examples.collect(), source: "test".into(), ..Dataset::default() }
}

fn key(rows: &Dataset, tokenizer: &Tokenizer, max_length: usize) -> Hash {
    super::key(&texts(rows), tokenizer, max_length)
}

fn texts(rows: &Dataset) -> Vec<&str> {
    rows.examples.iter().map(|example| example.text.as_str()).collect()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_vocabulary(&corpus::vocabulary()).unwrap()
}

fn same(left: &TokenizedDataset, right: &TokenizedDataset) -> bool {
    let bits = |rows: &TokenizedDataset| format!("{rows:?}");
    bits(left) == bits(right)
}

/// A cache of everything, however small.
fn cache(folder: &Path) -> TokenCache {
    TokenCache::in_folder(folder).with_limits(LIMIT, 0)
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn a_second_run_gets_the_same_ids_without_tokenizing() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("made/when/needed");
    let (cache, rows, tokenizer) = (cache(&inside), rows(700), tokenizer());
    let fresh = TokenizedDataset::new(&rows, &tokenizer, 8).unwrap();
    assert!(fresh.truncated() > 0 && fresh.truncated() < 700);
    let (first, used) = TokenizedDataset::cached(&rows, &tokenizer, 8, &cache).unwrap();
    assert!(used == CacheUse::Stored && same(&first, &fresh));
    let key = key(&rows, &tokenizer, 8);
    let path = inside.join(hex(&key)).with_extension(EXTENSION);
    let (again, used) = cache
        .tokens(&texts(&rows), &tokenizer, 8, || panic!("tokenized although the file is there"))
        .unwrap();
    assert_eq!(used, CacheUse::Hit);
    let (again, truncated) = (again.ids.clone(), again.truncated);
    assert_eq!((again.len(), truncated), (fresh.tokens(), fresh.truncated()));
    assert!(same(&TokenizedDataset::cached(&rows, &tokenizer, 8, &cache).unwrap().0, &fresh));
    assert_eq!(only_file(&inside), path);
}

#[test]
fn everything_that_ids_depend_on_is_in_the_key() {
    let (some, tokenizer) = (rows(20), tokenizer());
    let mut keys = vec![key(&some, &tokenizer, 8), key(&some, &tokenizer, 9)];
    for truncation in [Truncation::Tail, Truncation::HeadTail] {
        keys.push(key(&some, &tokenizer.clone().with_truncation(truncation), 8));
    }
    let other = Tokenizer::from_vocabulary(&format!("{}\nzebra\n", corpus::vocabulary())).unwrap();
    keys.push(key(&some, &other, 8));
    // The same bytes in other rows.
    let moved = |left: &str, right: &str| {
        let examples = [left, right].map(|text| Example { text: text.into(), label: 0 });
        Dataset { examples: examples.into(), ..Dataset::default() }
    };
    keys.push(key(&moved("good film", ""), &tokenizer, 8));
    keys.push(key(&moved("good ", "film"), &tokenizer, 8));
    let mut swapped = some.clone();
    swapped.examples.swap(3, 4);
    keys.push(key(&swapped, &tokenizer, 8));
    let different: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
    // Labels are not: a relabelled data set is found.
    let mut relabelled = some.clone();
    relabelled.examples.iter_mut().for_each(|example| example.label = 1);
    assert_eq!(key(&relabelled, &tokenizer, 8), keys[0]);
}

#[test]
fn a_damaged_file_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, rows, tokenizer) = (cache(folder.path()), rows(60), tokenizer());
    let fresh = TokenizedDataset::new(&rows, &tokenizer, 8).unwrap();
    TokenizedDataset::cached(&rows, &tokenizer, 8, &cache).unwrap();
    let path = only_file(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = vec![
        Vec::new(),
        whole[..HEADER / 2].to_vec(),
        whole[..HEADER].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"x"].concat(),
        vec![0xff; whole.len()],
    ];
    // Every byte of the header, and some of the rest.
    for at in (0..HEADER).chain((HEADER..whole.len()).step_by(31)) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        damaged.push(flipped);
    }
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        let (again, used) = TokenizedDataset::cached(&rows, &tokenizer, 8, &cache).unwrap();
        assert!(used == CacheUse::Stored && same(&again, &fresh), "{} bytes", bytes.len());
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    // A file about other rows, under this one's name.
    let other = Dataset { examples: rows.examples[1..].to_vec(), ..rows.clone() };
    let folder = tempfile::tempdir().unwrap();
    TokenizedDataset::cached(
        &other,
        &tokenizer,
        8,
        &TokenCache { folder: folder.path().into(), ..cache.clone() },
    )
    .unwrap();
    fs::copy(only_file(folder.path()), &path).unwrap();
    let (again, used) = TokenizedDataset::cached(&rows, &tokenizer, 8, &cache).unwrap();
    assert!(used == CacheUse::Stored && same(&again, &fresh));
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, tokenizer) = (rows(60), tokenizer());
    // A file stands where the folder should be, and a folder where the file should be.
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let taken = folder.path().join("taken");
    fs::create_dir_all(taken.join(hex(&key(&rows, &tokenizer, 8))).with_extension(EXTENSION)).unwrap();
    for path in [file, taken] {
        let (_, used) = TokenizedDataset::cached(&rows, &tokenizer, 8, &cache(&path)).unwrap();
        assert!(matches!(used, CacheUse::NotStored { .. }), "{used:?}");
    }
    let (_, used) =
        TokenizedDataset::cached(&rows, &tokenizer, 8, &cache(folder.path()).with_limits(100, 0)).unwrap();
    assert!(matches!(&used, CacheUse::NotStored { why } if why.contains("limit")), "{used:?}");
    let (_, used) =
        TokenizedDataset::cached(&rows, &tokenizer, 8, &TokenCache::in_folder(folder.path())).unwrap();
    assert_eq!(used, CacheUse::Small);
    assert!(
        fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .all(|entry| { entry.path().extension().is_none_or(|extension| extension != "partial") })
    );
}

#[test]
fn the_files_used_longest_ago_leave() {
    let folder = tempfile::tempdir().unwrap();
    let (tokenizer, sets) = (tokenizer(), [rows(50), rows(51), rows(52), rows(53)]);
    let path = |rows: &Dataset| folder.path().join(hex(&key(rows, &tokenizer, 8))).with_extension(EXTENSION);
    let all = cache(folder.path());
    for (age, rows) in [(30, &sets[0]), (20, &sets[1]), (10, &sets[2])] {
        TokenizedDataset::cached(rows, &tokenizer, 8, &all).unwrap();
        let old = SystemTime::now() - Duration::from_secs(age);
        File::open(path(rows)).and_then(|file| file.set_modified(old)).unwrap();
    }
    let other = folder.path().join("notes.txt");
    fs::write(&other, vec![0; 100_000]).unwrap();
    let abandoned = folder.path().join("x.1-1.partial");
    fs::write(&abandoned, "x").unwrap();
    File::open(&abandoned).and_then(|file| file.set_modified(SystemTime::now() - 2 * ABANDONED)).unwrap();
    // The first is used again; then there is room for three.
    assert_eq!(TokenizedDataset::cached(&sets[0], &tokenizer, 8, &all).unwrap().1, CacheUse::Hit);
    let size = fs::metadata(path(&sets[0])).unwrap().len();
    let (_, used) =
        TokenizedDataset::cached(&sets[3], &tokenizer, 8, &all.with_limits(3 * size + 200, 0)).unwrap();
    assert_eq!(used, CacheUse::Stored);
    assert_eq!(sets.each_ref().map(|rows| path(rows).exists()), [true, false, true, true]);
    assert!(other.exists() && !abandoned.exists());
}

#[test]
fn two_writers_at_once_leave_one_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, rows, tokenizer) = (cache(folder.path()), rows(300), tokenizer());
    let fresh = TokenizedDataset::new(&rows, &tokenizer, 8).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let (tokens, used) = TokenizedDataset::cached(&rows, &tokenizer, 8, &cache).unwrap();
                    assert!(same(&tokens, &fresh) && !matches!(used, CacheUse::NotStored { .. }), "{used:?}");
                }
            });
        }
    });
    only_file(folder.path());
}

#[test]
fn ids_beyond_16_bits_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = Tokens::new(vec![1, 70_000, u32::MAX, 2], [3, 0, 1].into_iter(), 1).unwrap();
    let path = folder.path().join("file");
    fs::write(&path, encode(&[7; 32], &tokens)).unwrap();
    assert_eq!(read(&path, &[7; 32], 3), Some(tokens));
    assert_eq!(read(&path, &[8; 32], 3), None);
    assert_eq!(read(&path, &[7; 32], 4), None);
}
