//! Names of files and folders. Each line of the input is a path inside a new folder, perhaps followed by a tab and content in
//! which `|` is a line break; a path that ends with `/` is a folder.
#![no_main]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use vitrine_bert::{Family, ModelConfig, Tokenizer, Weights};
use vitrine_fuzz::{message, scratch, tables, target};
use vitrine_train::data::{self, LoadOptions};

target!(|data| {
    let root = scratch().join("folder");
    drop(fs::remove_dir_all(&root));
    fs::create_dir(&root).expect("a folder can be made");
    for line in data.split(|&byte| byte == b'\n').take(16) {
        let mut parts = line.splitn(2, |&byte| byte == b'\t');
        let name = parts.next().unwrap_or_default();
        let path = Path::new(OsStr::from_bytes(name));
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !inside || path.components().count() > 4 {
            continue;
        }
        // What the file system refuses is not there.
        let path = root.join(path);
        if name.ends_with(b"/") {
            drop(fs::create_dir_all(&path));
            continue;
        }
        drop(path.parent().map(fs::create_dir_all));
        let mut content = parts.next().unwrap_or(b"text,label|a,0|b,1|").to_vec();
        content.iter_mut().filter(|byte| **byte == b'|').for_each(|byte| *byte = b'\n');
        drop(fs::write(&path, content));
    }
    match data::load_splits(&root, &LoadOptions::default()) {
        Ok(splits) => {
            tables::check(&splits.train);
            splits.test.iter().for_each(tables::check);
        }
        Err(error) => message(&error),
    }
    drop(data::load_evaluation(&root, &LoadOptions::default()).map_err(|error| message(&error)));
    drop(Tokenizer::from_dir(&root).map_err(|error| message(&error)));
    let names = &Family::named("bert").expect("a family").names;
    drop(Weights::open(&root, names).map_err(|error| message(&error)));
    drop(ModelConfig::from_file(&root.join("config.json")).map_err(|error| message(&error)));
});
