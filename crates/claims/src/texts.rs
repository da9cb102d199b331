//! The texts that claims are tested on beside data: templates of our own, in the words of the built-in vocabulary.

/// What is spoken of.
const NOUNS: [&str; 10] =
    ["film", "movie", "story", "plot", "cast", "music", "ending", "acting", "script", "show"];
/// How a sentence may begin.
const LEADS: [&str; 5] = ["", "i must say that ", "in the end ", "to be fair , ", "for me "];
/// Words of blame, and of praise.
const BAD: [&str; 5] = ["bad", "boring", "terrible", "stupid", "dull"];
const GOOD: [&str; 5] = ["good", "great", "funny", "interesting", "wonderful"];

/// A sentence with "not" before its adjective, and the same with "so" in that place: they have equally many words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// `the film was not bad .`
    pub negated: String,
    /// `the film was so bad .`
    pub plain: String,
    /// `bad`.
    pub adjective: &'static str,
    /// Whether the adjective is praise, so that the negated sentence is blame.
    pub is_praise: bool,
}

/// The pairs of "not bad" and "not good": 250 each, of which every `step`-th is kept.
pub fn pairs(step: usize) -> Vec<Pair> {
    let adjectives = BAD.map(|word| (word, false)).into_iter().chain(GOOD.map(|word| (word, true)));
    let mut pairs = Vec::new();
    for (adjective, is_praise) in adjectives {
        for noun in NOUNS {
            for lead in LEADS {
                let sentence = |word: &str| format!("{lead}the {noun} was {word} {adjective} .");
                pairs.push(Pair { negated: sentence("not"), plain: sentence("so"), adjective, is_praise });
            }
        }
    }
    pairs.into_iter().step_by(step.max(1)).collect()
}

/// The notebook's three sentences.
pub const NOTEBOOK: [&str; 3] = [
    "This movie was absolutely fantastic! I loved every minute of it.",
    "I absolutely hated this film. It was a complete waste of time and money.",
    "This film was not bad, but it wasn't great either. Pretty mediocre, actually.",
];

/// Sentences like the notebook's first and second: praise, and blame. 48 each.
pub fn clear(praise: bool) -> Vec<String> {
    let mut texts = Vec::new();
    for noun in ["movie", "film", "show", "picture"] {
        for surely in ["absolutely", "really", "truly"] {
            for at in 0..4 {
                texts.push(if praise {
                    let (what, loved) = [
                        ("fantastic", "loved"),
                        ("wonderful", "enjoyed"),
                        ("brilliant", "loved"),
                        ("excellent", "enjoyed"),
                    ][at];
                    format!("This {noun} was {surely} {what}! I {loved} every minute of it.")
                } else {
                    let (hated, waste) = [
                        ("hated", "time and money"),
                        ("disliked", "an evening"),
                        ("hated", "my time"),
                        ("despised", "two hours"),
                    ][at];
                    format!("I {surely} {hated} this {noun}. It was a complete waste of {waste}.")
                });
            }
        }
    }
    texts
}

/// Sentences like the notebook's third, each with the same without its "not". 48 pairs.
pub fn mixed() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for noun in ["film", "movie", "show", "picture"] {
        for (bad, great) in
            [("bad", "great"), ("terrible", "wonderful"), ("boring", "exciting"), ("stupid", "clever")]
        {
            for end in
                ["Pretty mediocre, actually.", "Quite average, really.", "Nothing special, I would say."]
            {
                let sentence =
                    |not: &str| format!("This {noun} was {not}{bad}, but it wasn't {great} either. {end}");
                texts.push((sentence("not "), sentence("")));
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_text_is_there_once() {
        let all = pairs(1);
        assert_eq!((all.len(), all.iter().filter(|pair| pair.is_praise).count()), (500, 250));
        assert_eq!(all.iter().map(|pair| &pair.negated).collect::<BTreeSet<_>>().len(), 500);
        for pair in &all {
            assert_eq!(pair.negated.split(' ').count(), pair.plain.split(' ').count());
            assert!(pair.negated.contains(&format!("not {}", pair.adjective)));
        }
        for praise in [true, false] {
            assert_eq!(clear(praise).into_iter().collect::<BTreeSet<_>>().len(), 48);
        }
        assert!(
            clear(true).contains(&NOTEBOOK[0].to_owned()) && clear(false).contains(&NOTEBOOK[1].to_owned())
        );
        assert!(mixed().iter().any(|(with, _)| with == NOTEBOOK[2]));
        assert_eq!(mixed().len(), 48);
    }
}
