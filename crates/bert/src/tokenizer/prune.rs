//! [`Tokenizer::pruned`]: the part of a WordPiece vocabulary that texts need.

use super::read::{Object, Sources};
use super::{Kind, TOKENIZER_CONFIG_FILE, Tokenizer};
use crate::{BertError, Result};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use vitrine_tensor::cpu::parallel;

/// Texts counted by one piece of parallel work.
const TEXTS: usize = 256;
/// A character that is rarer than one in so many may be lost.
const RAREST_CHARACTER: u64 = 1_000_000;
/// The settings of a BERT tokenizer that ids depend on, besides the vocabulary and the names of the special tokens.
const SETTINGS: [&str; 3] = ["do_lower_case", "strip_accents", "tokenize_chinese_chars"];

impl Tokenizer {
    /// A tokenizer with `size` tokens of this WordPiece vocabulary: the special ones, the characters of the texts (also as `##c`)
    /// but the rarest, then the tokens that the texts have most often, as this tokenizer cuts them. They keep their order. A word
    /// whose token is gone is cut into shorter pieces. Everything, if `size` is no smaller than the vocabulary.
    ///
    /// # Errors
    /// `Tokenizer` if this is not BERT's WordPiece, if it has added tokens that are not special, and if `size` has no room for the
    /// characters; those of [`encode`](Self::encode).
    pub fn pruned<S: AsRef<str> + Sync>(&self, texts: &[S], size: usize) -> Result<Self> {
        let fail =
            |message: String| BertError::Tokenizer { path: "vocabulary".into(), source: message.into() };
        let added = self.inner.get_added_tokens_decoder();
        if self.saved.built != Some(Kind::WordPiece) || added.values().any(|token| !token.special) {
            return Err(fail("only a plain WordPiece vocabulary of BERT can be made smaller".into()));
        }
        let vocabulary: Vec<(u32, String)> =
            (0..self.vocabulary_size() as u32).filter_map(|id| Some((id, self.token(id)?))).collect();
        let counts = self.count(texts)?;
        let count = |id: u32| counts.get(&id).copied().unwrap_or_default();
        let named = self.saved.special.values().filter_map(|token| self.id(token.as_str()?));
        let special: BTreeSet<u32> = self.special_ids().into_iter().chain(named).collect();
        let mut characters: HashMap<char, u64> = HashMap::new();
        for (id, token) in vocabulary.iter().filter(|(id, _)| !special.contains(id)) {
            for c in bare(token).chars() {
                *characters.entry(c).or_default() += count(*id);
            }
        }
        let rarest = (characters.values().sum::<u64>() / RAREST_CHARACTER).max(1);
        let is_character = |token: &str| {
            let mut chars = bare(token).chars();
            chars.next().is_some_and(|c| chars.next().is_none() && characters.get(&c) >= Some(&rarest))
        };
        let (first, mut others): (Vec<_>, Vec<_>) =
            vocabulary.into_iter().partition(|(id, token)| special.contains(id) || is_character(token));
        if size < first.len() {
            return Err(fail(format!(
                "{size} tokens are too few: the special tokens and the characters of these texts take {}",
                first.len()
            )));
        }
        others.sort_by_key(|(id, _)| (Reverse(count(*id)), *id));
        others.truncate(size - first.len());
        let mut kept = [first, others].concat();
        kept.sort_unstable();
        let lines = kept.into_iter().map(|(_, token)| token + "\n").collect();
        let mut settings = self.saved.special.clone();
        for name in SETTINGS {
            settings.extend(self.saved.config.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        let config = Object { origin: TOKENIZER_CONFIG_FILE.into(), map: settings };
        let sources = Sources {
            vocabulary: Some(("vocabulary".into(), lines)),
            config: Some(config),
            ..Sources::default()
        };
        Ok(Self::new(sources.effective()?)?.with_truncation(self.truncation))
    }

    /// How often each token occurs in the texts.
    fn count<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<HashMap<u32, u64>> {
        let counted = parallel::map(texts.chunks(TEXTS), |_, texts| -> Result<HashMap<u32, u64>> {
            let mut counts = HashMap::new();
            for text in texts {
                for id in self.encode(text.as_ref(), usize::MAX)?.ids {
                    *counts.entry(id).or_default() += 1;
                }
            }
            Ok(counts)
        });
        let mut sums = HashMap::new();
        for counts in counted {
            for (id, count) in counts? {
                *sums.entry(id).or_default() += count;
            }
        }
        Ok(sums)
    }
}

/// A token without the sign that it continues a word.
fn bare(token: &str) -> &str {
    token.strip_prefix("##").filter(|rest| !rest.is_empty()).unwrap_or(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: &str =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nd\ne\n##a\n##b\n##d\n##e\n☃\nbad\nbade\nbed\n##ed\nabba\n";

    fn tokens(tokenizer: &Tokenizer) -> Vec<String> {
        (0..tokenizer.vocabulary_size() as u32).map(|id| tokenizer.token(id).unwrap()).collect()
    }

    #[test]
    fn what_texts_need_most_stays_in_its_order() {
        let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
        let texts = ["Bed BED bad", "bed, abba abba bad bad"];
        let pruned = tokenizer.pruned(&texts, 15).unwrap();
        let expected = "[PAD] [UNK] [CLS] [SEP] [MASK] a b d e ##a ##b ##d ##e bad bed";
        assert_eq!(tokens(&pruned).join(" "), expected);
        let ids = pruned.encode("BED abba", 20).unwrap().ids;
        let read: Vec<String> = ids.iter().map(|&id| pruned.token(id).unwrap()).collect();
        assert_eq!(read, ["[CLS]", "bed", "a", "##b", "##b", "##a", "[SEP]"]);
        assert_eq!(tokens(&tokenizer.pruned(&texts, 1000).unwrap()), tokens(&tokenizer));
    }

    #[test]
    fn what_cannot_be_made_is_said() {
        let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
        let said = tokenizer.pruned(&["bade"], 9).err().unwrap().to_string();
        assert!(said.contains("too few") && said.contains("13"), "{said}");
    }
}
