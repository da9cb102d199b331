//! Which of two classes is negative, by their names.

use crate::{ClaimError, Result, Setting};
use vitrine_bert::{Checkpoint, ModelConfig};

/// The order of two classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// As in IMDB.
    NegativeFirst,
    /// The other way round.
    PositiveFirst,
}

/// The order of classes with these names: `neg` and `pos` or words that begin so, or numbers, where 0 is negative.
///
/// # Errors
/// In words, for other names and other numbers of classes.
pub fn polarity(names: &[String]) -> std::result::Result<Polarity, String> {
    let begins = |name: &str, with: &str| name.to_lowercase().starts_with(with);
    match names {
        [a, b] if begins(a, "neg") && begins(b, "pos") => Ok(Polarity::NegativeFirst),
        [a, b] if begins(a, "pos") && begins(b, "neg") => Ok(Polarity::PositiveFirst),
        [a, b]
            if [a.as_str(), b.as_str()] == ["0", "1"]
                || [a.as_str(), b.as_str()] == ["LABEL_0", "LABEL_1"] =>
        {
            Ok(Polarity::NegativeFirst)
        }
        _ => {
            Err(format!("claims need the classes negative and positive, and these are {}", names.join(", ")))
        }
    }
}

/// Refuses a classifier whose classes are not negative and positive, in this order.
///
/// # Errors
/// `Data`; those of opening the model.
pub fn check_classifier(setting: &Setting) -> Result<()> {
    let read = |checkpoint: Checkpoint| Ok((checkpoint.classes()?, checkpoint.config().clone()));
    let ((classes, _), _): ((Option<Vec<String>>, ModelConfig), _) =
        Checkpoint::read(&setting.classifier, read)?;
    let refuse = |got: String| ClaimError::Data { claim: "the classifier", needed: "classes".into(), got };
    let classes = classes.ok_or_else(|| refuse("this model has no classifier".into()))?;
    match polarity(&classes) {
        Ok(Polarity::NegativeFirst) => Ok(()),
        Ok(Polarity::PositiveFirst) => {
            Err(refuse(format!("negative has to be first, and these are {}", classes.join(", "))))
        }
        Err(why) => Err(refuse(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_which_class_is_negative() {
        let of = |names: &[&str]| polarity(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        for names in [["neg", "pos"], ["Negative", "Positive"], ["0", "1"], ["LABEL_0", "LABEL_1"]] {
            assert_eq!(of(&names), Ok(Polarity::NegativeFirst), "{names:?}");
        }
        assert_eq!(of(&["pos", "neg"]), Ok(Polarity::PositiveFirst));
        for wrong in [&["a", "b"][..], &["neg"], &["neg", "neutral", "pos"], &["1", "0"], &[]] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
