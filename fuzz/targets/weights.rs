//! `model.safetensors`, or its index (an input that begins with `{"`) beside one healthy shard.
#![no_main]

use vitrine_bert::{Family, WEIGHTS_FILE, Weights};
use vitrine_fuzz::{file, message, optional_file, scratch, target};

const SHARD: &[u8] = b"\x40\0\0\0\0\0\0\0{\"classifier.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}\0\0\0\0\0\0\x80\x3f";

target!(|data| {
    let is_index = data.starts_with(b"{\"");
    optional_file(WEIGHTS_FILE, (!is_index).then_some(data));
    optional_file("model.safetensors.index.json", is_index.then_some(data));
    file("model-00001-of-00001.safetensors", SHARD);
    let names = &Family::named("bert").expect("a family").names;
    let mut weights = match Weights::open(scratch(), names) {
        Ok(weights) => weights,
        Err(error) => return message(&error),
    };
    for (key, dims) in [
        ("classifier.bias", &[2][..]),
        ("classifier.weight", &[2, 4]),
        ("bert.embeddings.LayerNorm.weight", &[4]),
        ("bert.embeddings.word_embeddings.weight", &[8, 4]),
    ] {
        let has = weights.dims(key) == Some(dims);
        match weights.expect(key, dims, true) {
            Ok(found) => {
                assert!(!has || found);
                if found && let Err(error) = weights.read(key, &mut vec![0.0; dims.iter().product()]) {
                    message(&error);
                }
            }
            Err(error) => message(&error),
        }
    }
    drop(weights.report().map_err(|error| message(&error)));
});
