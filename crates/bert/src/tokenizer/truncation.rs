//! [`Truncation`]: which part of a text stays that is longer than the limit.

use super::read::Object;
use crate::Result;
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

/// The field of `tokenizer_config.json` that `transformers` follows, too.
pub(super) const SIDE: &str = "truncation_side";
/// The field for what `transformers` has no word for.
pub(super) const OWN: &str = "vitrine_truncation";

/// Tokens of the beginning, and of beginning and end together, that the paper's head-tail keeps.
const HEAD_TAIL: (usize, usize) = (128, 510);

/// Which tokens stay of a text that is longer than the limit. `[CLS]` and `[SEP]` always stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncation {
    /// The first ones, as `transformers` does by default.
    #[default]
    Head,
    /// The last ones (`truncation_side: left` in `transformers`).
    Tail,
    /// A quarter from the beginning and the rest from the end: 128 and 382 tokens of 510, and other limits in this proportion.
    /// Sun et al. 2019 ([arXiv 1905.05583](https://arxiv.org/abs/1905.05583), table 2), who found it best on IMDB.
    HeadTail,
}

impl Truncation {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Truncation; 3] = [Truncation::Head, Truncation::Tail, Truncation::HeadTail];

    /// How many of `room` tokens are from the beginning of a long text; the others are from its end.
    pub fn head(self, room: usize) -> usize {
        match self {
            Truncation::Head => room,
            Truncation::Tail => 0,
            Truncation::HeadTail => {
                let (head, all) = HEAD_TAIL;
                room / all * head + room % all * head / all
            }
        }
    }

    /// What a `tokenizer_config.json` says.
    ///
    /// # Errors
    /// `TokenizerSetting` for another type or another word.
    pub(super) fn read(config: &Object) -> Result<Self> {
        let side = match config.string(SIDE)? {
            None | Some("right") => Truncation::Head,
            Some("left") => Truncation::Tail,
            Some(_) => return Err(config.refuse(SIDE, "right or left")),
        };
        match config.string(OWN)? {
            None => Ok(side),
            Some(name) => name.parse().map_err(|_| config.refuse(OWN, "head, tail or head-tail")),
        }
    }

    /// Says so in a `tokenizer_config.json`; the default is not said.
    pub(super) fn write(self, config: &mut Map<String, Value>) {
        match self {
            Truncation::Head => {}
            Truncation::Tail => drop(config.insert(SIDE.into(), "left".into())),
            Truncation::HeadTail => drop(config.insert(OWN.into(), self.to_string().into())),
        }
    }
}

impl fmt::Display for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Truncation::Head => "head",
            Truncation::Tail => "tail",
            Truncation::HeadTail => "head-tail",
        })
    }
}

impl FromStr for Truncation {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let found = Truncation::ALL.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| "must be head, tail or head-tail".to_owned())
    }
}
