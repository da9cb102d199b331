//! [`Text`]: a text as a model reads it, with the way back from tokens to characters.

use crate::{Result, Subject};
use serde::Serialize;
use std::ops::Range;

/// A token of a [`Text`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// Its piece of the vocabulary (`##ing`).
    pub text: String,
    /// Its number in the vocabulary.
    pub id: u32,
    /// The byte of the text where it begins.
    pub start: usize,
    /// The byte where it ends; `start` for a token that stands for no text.
    pub end: usize,
    /// Whether the tokenizer added it (`[CLS]`, `[SEP]`).
    pub special: bool,
    /// Whether it goes on with the word of the token before.
    pub continues: bool,
}

/// A text, and the `S` tokens that the model reads of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    /// The text.
    pub text: String,
    /// `[CLS]`, the tokens of the text, `[SEP]`.
    pub tokens: Vec<Token>,
    /// How many tokens of the text were cut off.
    pub truncated: usize,
}

impl Text {
    /// The tokens' ids, `S` of them.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// The number of tokens `S`, those that the tokenizer added included; at least 2.
    pub fn size(&self) -> usize {
        self.tokens.len()
    }

    /// The places of the tokens that stand for the text.
    pub fn content(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.size()).filter(|&place| !self.tokens[place].special)
    }

    /// The tokens of each word, in order; an added token is a word by itself.
    pub fn words(&self) -> Vec<Range<usize>> {
        let mut words: Vec<Range<usize>> = Vec::new();
        for (place, token) in self.tokens.iter().enumerate() {
            match words.last_mut() {
                Some(word) if token.continues && !token.special && !self.tokens[word.start].special => {
                    word.end = place + 1;
                }
                _ => words.push(place..place + 1),
            }
        }
        words
    }

    /// The bytes of the text that some tokens in a row stand for.
    pub fn bytes(&self, tokens: Range<usize>) -> Range<usize> {
        let tokens = &self.tokens[tokens];
        match (tokens.first(), tokens.last()) {
            (Some(first), Some(last)) if first.start <= last.end => first.start..last.end,
            _ => 0..0,
        }
    }

    /// A value for each word, the sum of its tokens' values; each with the word's tokens.
    pub fn by_word(&self, values: &[f64]) -> Vec<(Range<usize>, f64)> {
        let sum = |word: Range<usize>| {
            let sum = values.get(word.clone()).unwrap_or_default().iter().sum();
            (word, sum)
        };
        self.words().into_iter().map(sum).collect()
    }

    /// Where each token begins and ends, counted in UTF-16 units, as JavaScript counts.
    pub fn utf16(&self) -> Vec<(usize, usize)> {
        self.counted(char::len_utf16)
    }

    /// Where each token begins and ends, counted in characters (Unicode scalar values), as Python counts.
    pub fn characters(&self) -> Vec<(usize, usize)> {
        self.counted(|_| 1)
    }

    /// Where each token begins and ends, a character counting `size`.
    fn counted(&self, size: impl Fn(char) -> usize) -> Vec<(usize, usize)> {
        // For each byte that begins a character, and the end, the count before it; a byte inside has that of its character.
        let mut counts = Vec::with_capacity(self.text.len() + 1);
        let mut count = 0;
        for character in self.text.chars() {
            counts.resize(counts.len() + character.len_utf8(), count);
            count += size(character);
        }
        counts.push(count);
        let of = |byte: usize| counts[byte.min(self.text.len())];
        self.tokens.iter().map(|token| (of(token.start), of(token.end))).collect()
    }
}

impl Subject {
    /// A text as this model reads it, cut to the tokens that the model takes.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`](vitrine_bert::Tokenizer::encode).
    pub fn read(&self, text: &str) -> Result<Text> {
        self.read_at_most(text, self.config().max_length())
    }

    /// As [`read`](Self::read), cut to `max_length` tokens, the two added ones included.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`](vitrine_bert::Tokenizer::encode).
    pub fn read_at_most(&self, text: &str, max_length: usize) -> Result<Text> {
        let tokenizer = self.tokenizer();
        let encoding = tokenizer.encode(text, max_length.min(self.config().max_length()))?;
        let last = encoding.ids.len() - 1;
        let token = |(place, (&id, range)): (usize, (&u32, &Range<usize>))| {
            let special = place == 0 || place == last;
            Token {
                text: tokenizer.token(id).unwrap_or_default(),
                id,
                start: range.start,
                end: range.end,
                special,
                continues: !special && place > 1 && tokenizer.continues_word(id),
            }
        };
        let tokens = encoding.ids.iter().zip(&encoding.offsets).enumerate().map(token).collect();
        let truncated = match encoding.truncated {
            true => tokenizer.count_tokens(text)?.saturating_sub(encoding.ids.len()),
            false => 0,
        };
        Ok(Text { text: text.to_owned(), tokens, truncated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Text {
        let token = |text: &str, start, end, special, continues| Token {
            text: text.into(),
            id: 0,
            start,
            end,
            special,
            continues,
        };
        // Two characters of four bytes: two units of UTF-16 each.
        Text {
            text: "é😀😀ing".into(),
            tokens: vec![
                token("[CLS]", 0, 0, true, false),
                token("é", 0, 2, false, false),
                token("😀😀", 2, 10, false, false),
                token("##ing", 10, 13, false, true),
                token("[SEP]", 0, 0, true, false),
            ],
            truncated: 0,
        }
    }

    #[test]
    fn tokens_lead_back_to_words_and_characters() {
        let text = text();
        assert_eq!(text.words(), [0..1, 1..2, 2..4, 4..5]);
        assert_eq!(text.utf16(), [(0, 0), (0, 1), (1, 5), (5, 8), (0, 0)]);
        assert_eq!(text.characters(), [(0, 0), (0, 1), (1, 3), (3, 6), (0, 0)]);
        assert_eq!(&text.text[text.bytes(2..4)], "😀😀ing");
        assert_eq!(text.content().collect::<Vec<_>>(), [1, 2, 3]);
        let words = text.by_word(&[0.5, 1.0, 2.0, 3.0, 0.25]);
        assert_eq!(words.iter().map(|word| word.1).collect::<Vec<_>>(), [0.5, 1.0, 5.0, 0.25]);
    }
}
