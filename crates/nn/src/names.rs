//! [`Names`]: which key a name in a file means.

/// Modules that training frameworks put around others, at any place in a name: `DataParallel` and DDP, `torch.compile`, FSDP,
/// activation checkpointing, Lightning Fabric, Opacus.
const WRAPPERS: [&str; 6] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_module",
];

/// Base models of `transformers` whose layers have names of one another and whose mathematics differ.
const BASE_MODELS: [&str; 14] = [
    "bert",
    "distilbert",
    "roberta",
    "electra",
    "ernie",
    "layoutlm",
    "nezha",
    "esm",
    "splinter",
    "data2vec_text",
    "camembert",
    "xlm_roberta",
    "rembert",
    "roformer",
];

/// The names of a model family's weights, without prefixes: what [`Weights`](crate::Weights) looks for in files.
///
/// A pattern is segments with dots between them: `word`, one of several words `a|b`, any word `*`, a number `#`, and at the
/// end `**` for one word or more.
#[derive(Debug)]
pub struct Names {
    /// The attribute that holds the base model, such as `bert`. Keys of the base model begin with it; files of a base model
    /// saved by itself leave it out.
    pub base: &'static str,
    /// Patterns of the base model's names, without `base`.
    pub inside: &'static [&'static str],
    /// Patterns of the heads' names.
    pub heads: &'static [&'static str],
    /// Names of parameters that are tied to another, with its key; none where the other is the base model's.
    pub tied: &'static [(&'static str, Option<&'static str>)],
}

/// What a name in a file means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A weight of the family.
    Weight {
        /// What stands in front of it; empty, or with a dot at its end.
        prefix: String,
        /// Its key.
        key: String,
        /// Whether it is the base model's, not a head's.
        in_base: bool,
        /// Whether the file has it under the name of a tied parameter.
        is_tied: bool,
    },
    /// Counters that old versions saved, and the copy of a tied weight.
    Ignored,
    /// Anything else; its name without wrappers.
    Other(String),
}

impl Names {
    /// The key that a name in a file means, and under which prefix.
    ///
    /// | in the file | means |
    /// |---|---|
    /// | `module`, `_orig_mod`, .. anywhere | nothing: wrappers of training frameworks |
    /// | anything else in front | the prefix: the attribute of an object that holds the model, such as Lightning's `model.` |
    /// | a base model's name without `base` | the same with it: a base model saved by itself |
    /// | `LayerNorm.gamma`, `LayerNorm.beta` | `LayerNorm.weight`, `LayerNorm.bias`: TensorFlow's names |
    /// | the name of a tied parameter | the key that it is tied to, or nothing |
    /// | `position_ids`, `token_type_ids` at the end | nothing: counters that old versions saved |
    pub(crate) fn read(&self, name: &str) -> Name {
        let segments: Vec<&str> = name.split('.').filter(|segment| !WRAPPERS.contains(segment)).collect();
        if matches!(segments.last(), None | Some(&("position_ids" | "token_type_ids"))) {
            return Name::Ignored;
        }
        for start in 0..segments.len() {
            let in_front = start.checked_sub(1).map(|before| segments[before]);
            let is_another = in_front.is_some_and(|name| name != self.base && BASE_MODELS.contains(&name));
            // Behind the name of another model, only the own one says that this is no part of that.
            if is_another && segments[start] != self.base {
                break;
            }
            let Some((mut key, in_base)) = self.key(&segments[start..]) else { continue };
            let tied = self.tied.iter().find(|(name, _)| *name == key);
            match tied {
                Some((_, None)) => return Name::Ignored,
                Some((_, Some(other))) => key = (*other).to_owned(),
                None => {}
            }
            let prefix = segments[..start].iter().fold(String::new(), |prefix, part| prefix + part + ".");
            return Name::Weight { prefix, key, in_base, is_tied: tied.is_some() };
        }
        Name::Other(segments.join("."))
    }

    /// The key of a name without prefix, and whether it is the base model's; none if it is not of this family.
    fn key(&self, segments: &[&str]) -> Option<(String, bool)> {
        let without_base = segments.split_first().filter(|(first, _)| **first == self.base);
        let rest = without_base.map_or(segments, |(_, rest)| rest);
        let is_one_of = |patterns: &[&str]| patterns.iter().any(|pattern| fits(pattern, rest));
        let in_base = is_one_of(self.inside);
        if !in_base && (without_base.is_some() || !is_one_of(self.heads)) {
            return None;
        }
        let mut key = if in_base { format!("{}.", self.base) } else { String::new() };
        key += &rest.join(".");
        for (old, new) in [("gamma", "weight"), ("beta", "bias")] {
            if let [.., "LayerNorm", last] = rest
                && *last == old
            {
                key.truncate(key.len() - old.len());
                key += new;
            }
        }
        Some((key, in_base))
    }
}

/// Whether a name fits a pattern of [`Names`].
fn fits(pattern: &str, segments: &[&str]) -> bool {
    let mut left = segments.iter();
    for wanted in pattern.split('.') {
        let Some(segment) = left.next() else { return false };
        let fits = match wanted {
            "**" => return true,
            "*" => true,
            "#" => segment.bytes().all(|byte| byte.is_ascii_digit()),
            words => words.split('|').any(|word| word == *segment),
        };
        if !fits {
            return false;
        }
    }
    left.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        base: "toy",
        inside: &["embeddings.words|positions.*", "layer.#.**"],
        heads: &["classifier.weight|bias", "lm.decoder.*"],
        tied: &[("lm.decoder.weight", None), ("lm.decoder.bias", Some("lm.bias"))],
    };

    #[test]
    fn a_name_means_its_key_under_a_prefix() {
        let read = |name: &str| match NAMES.read(name) {
            Name::Weight { prefix, key, in_base, is_tied } => format!("{prefix} {key} {in_base} {is_tied}"),
            other => format!("{other:?}"),
        };
        for (name, meaning) in [
            ("toy.embeddings.words.weight", " toy.embeddings.words.weight true false"),
            ("embeddings.positions.weight", " toy.embeddings.positions.weight true false"),
            ("net.layer.12.LayerNorm.gamma", "net. toy.layer.12.LayerNorm.weight true false"),
            ("module.toy._orig_mod.layer.0.a", " toy.layer.0.a true false"),
            ("classifier.bias", " classifier.bias false false"),
            ("lm.decoder.bias", " lm.bias false true"),
            ("lm.decoder.weight", "Ignored"),
            ("toy.embeddings.position_ids", "Ignored"),
            ("layer.x.a", "Other(\"layer.x.a\")"),
            ("layer.0", "Other(\"layer.0\")"),
            ("toy.classifier.bias", "toy. classifier.bias false false"),
            ("bert.toy.layer.0.a", "bert. toy.layer.0.a true false"),
            ("bert.layer.0.a", "Other(\"bert.layer.0.a\")"),
        ] {
            assert_eq!(read(name), meaning, "{name}");
        }
    }
}
