//! Which files of a repository a model is read from: [`crate::Checkpoint`] and [`crate::Tokenizer`] seen from the other side, before
//! anything is downloaded.

use crate::CONFIG_FILE;
use crate::tokenizer::{FILES, MERGES_FILE, TOKENIZER_FILE, VOCABULARY_FILE, VOCABULARY_JSON_FILE};
use vitrine_nn::WEIGHTS_FILE;
use vitrine_nn::read::about_weights;
use vitrine_nn::weights::WEIGHTS_INDEX_FILE;

/// The files to fetch of a model's repository, of all its `files`, paths with /: the configuration first, which says whether it is a
/// model that can be computed here, then those of the tokenizer, then the weights. `name` is the repository's.
///
/// # Errors
/// One line: what lacks or cannot be read, and what to do.
pub fn model_files(name: &str, files: &[&str]) -> Result<Vec<String>, String> {
    let mut wanted = vec![CONFIG_FILE.to_owned()];
    let weights = weights(name, files)?;
    if !files.contains(&CONFIG_FILE) {
        return Err("no config.json in it, so it is no model that can be read here".into());
    }
    wanted.extend(tokenizer_files(files)?.into_iter().filter(|file| file != CONFIG_FILE));
    wanted.extend(weights);
    Ok(wanted)
}

/// The files to fetch of a repository of which only the tokenizer is wanted.
///
/// # Errors
/// One line where it has none.
pub fn tokenizer_files(files: &[&str]) -> Result<Vec<String>, String> {
    let has = |file| files.contains(&file);
    let byte_level = has(VOCABULARY_JSON_FILE) && has(MERGES_FILE);
    if !(has(TOKENIZER_FILE) || has(VOCABULARY_FILE) || byte_level) {
        return Err(
            "no tokenizer in it: neither tokenizer.json nor vocab.txt, nor vocab.json with merges.txt".into(),
        );
    }
    let there = [CONFIG_FILE].into_iter().chain(FILES).filter(|file| has(file));
    Ok(there.map(str::to_owned).collect())
}

fn weights(name: &str, files: &[&str]) -> Result<Vec<String>, String> {
    if files.contains(&WEIGHTS_FILE) {
        return Ok(vec![WEIGHTS_FILE.to_owned()]);
    }
    if files.contains(&WEIGHTS_INDEX_FILE) {
        let is_shard = |file: &&&str| {
            file.starts_with("model-") && file.ends_with(".safetensors") && !file.contains('/')
        };
        let shards = files.iter().filter(is_shard).copied();
        return Ok([WEIGHTS_INDEX_FILE].into_iter().chain(shards).map(str::to_owned).collect());
    }
    let beside: Vec<String> =
        files.iter().filter(|file| !file.contains('/')).map(|&file| file.to_owned()).collect();
    let pickle = beside.iter().find(|file| file.starts_with("pytorch_model") && file.contains(".bin"));
    if let Some(pickle) = pickle {
        return Err(format!(
            "its weights are only there as {pickle}, a Python pickle, which may run any code when it is read; convert them, and \
             pass the folder `converted`: {}",
            conversion(name)
        ));
    }
    Err(match about_weights(&beside) {
        Some(what) => format!("neither {WEIGHTS_FILE} nor {WEIGHTS_INDEX_FILE} in it; {what}"),
        None => format!(
            "neither {WEIGHTS_FILE} nor {WEIGHTS_INDEX_FILE} in it, so it has no weights that are read here"
        ),
    })
}

/// The command that saves a repository's model, with its head, and its tokenizer in the formats that are read
/// here.
fn conversion(name: &str) -> String {
    format!(
        "python3 -c \"import transformers as t; n = '{name}'; \
         getattr(t, t.AutoConfig.from_pretrained(n).architectures[0]).from_pretrained(n).save_pretrained('converted'); \
         t.AutoTokenizer.from_pretrained(n).save_pretrained('converted')\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of google-bert/bert-base-uncased, as the hub has them.
    const BERT: [&str; 16] = [
        ".gitattributes",
        "LICENSE",
        "README.md",
        "config.json",
        "coreml/fill-mask/float32_model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "coreml/fill-mask/float32_model.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
        "coreml/fill-mask/float32_model.mlpackage/Manifest.json",
        "flax_model.msgpack",
        "model.onnx",
        "model.safetensors",
        "pytorch_model.bin",
        "rust_model.ot",
        "tf_model.h5",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ];

    fn without(gone: &[&str]) -> Vec<&'static str> {
        BERT.into_iter().filter(|file| !gone.contains(file)).collect()
    }

    #[test]
    fn only_what_is_read_is_fetched() {
        assert_eq!(
            model_files("google-bert/bert-base-uncased", &BERT).unwrap(),
            ["config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt", "model.safetensors"]
        );
        assert_eq!(
            tokenizer_files(&BERT).unwrap(),
            ["config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt"]
        );
        let mut sharded = without(&["model.safetensors"]);
        let index = [
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        sharded.extend(index);
        sharded.extend(["old/model-00001-of-00002.safetensors", "adapter.safetensors"]);
        assert!(model_files("a/b", &sharded).unwrap().ends_with(&index.map(str::to_owned)));
        let roberta =
            ["config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "model.safetensors"];
        assert_eq!(model_files("a/b", &roberta).unwrap().len(), 5);
    }

    #[test]
    fn what_lacks_is_named_before_a_download() {
        let refused = |files: &[&str], words: &[&str]| {
            let message = model_files("owner/name", files).unwrap_err();
            assert!(!message.contains('\n') && words.iter().all(|word| message.contains(word)), "{message}");
        };
        refused(&without(&["config.json"]), &["no config.json"]);
        refused(&without(&["tokenizer.json", "vocab.txt"]), &["no tokenizer"]);
        refused(
            &without(&["model.safetensors"]),
            &[
                "pytorch_model.bin",
                "pickle",
                "from_pretrained(n).save_pretrained('converted')",
                "n = 'owner/name'",
            ],
        );
        refused(&without(&["model.safetensors", "pytorch_model.bin"]), &["neither model.safetensors nor"]);
        refused(&["README.md", "adapter_model.safetensors", "adapter_config.json"], &["PEFT adapter"]);
        refused(&["README.md"], &["no weights that are read here"]);
    }
}
