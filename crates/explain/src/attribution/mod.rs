//! [`Subject::attribute`]: what each token adds to the logit of a class.
//!
//! All methods look at the *word embeddings*, before positions and token types are added: what captum's `LayerIntegratedGradients`
//! does on `word_embeddings`. Position and token type of each place stay what they are. A token's value is the sum over the
//! embedding's columns.

mod quadrature;

use crate::prediction::{finite, tell};
use crate::subject::numbers;
use crate::{Blocks, ExplainError, Result, Subject, Text, Watch};
use quadrature::gauss_legendre;
use serde::{Deserialize, Serialize};
use vitrine_autograd::Tape;
use vitrine_bert::{Point, Taps};
use vitrine_tensor::{DType, Device, Tensor};

/// Tokens that run at once with what gradients need: about 1 MB each in a model of BERT's size.
const GRADIENT_TOKENS: usize = 1024;
/// The steps that [`Steps::Adaptive`] begins with: fewer may meet a total by accident.
const FIRST_STEPS: usize = 16;
/// The gap that counts as none, relative to the total.
const TOLERANCE: f64 = 0.01;
/// The largest number of steps.
const MOST_STEPS: usize = 4096;

/// A method of attribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The gradient of the logit with respect to a token's word embedding, times the embedding (Shrikumar et al. 2016, arXiv
    /// 1605.01713). One pass forward and backward. Promises no sum.
    GradientXInput,
    /// Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365): `(x - x') . integral of the gradient` on the straight line
    /// from the baseline x' to the embedding x, by Gauss-Legendre quadrature. The values sum to the difference of the logits.
    IntegratedGradients,
    /// The logit minus that with the token replaced by the baseline, one token at a time (Zeiler and Fergus 2014, arXiv 1311.2901).
    Occlusion,
}

/// What stands in a token's place. `[CLS]` and `[SEP]`, which the tokenizer adds to every text, stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The embedding of `[PAD]`.
    Pad,
    /// The embedding of `[MASK]`.
    Mask,
    /// An embedding of zeros.
    Zero,
}

/// The steps of an integral.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steps {
    /// 16, 32, 64, .. up to `most`, until the values' sum misses its total by less than `tolerance` times the total.
    Adaptive {
        /// What may be missed, relative to the total.
        tolerance: f64,
        /// The largest number of steps.
        most: usize,
    },
    /// This many.
    Fixed(usize),
}

impl Default for Steps {
    fn default() -> Self {
        Steps::Adaptive { tolerance: TOLERANCE, most: 256 }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The method.
    pub method: Method,
    /// The class whose logit is explained.
    pub class: usize,
    /// What stands in a token's place; gradient x input has no use for it.
    pub baseline: Baseline,
    /// The steps of integrated gradients.
    pub steps: Steps,
}

impl Wanted {
    /// A method with the baseline `[PAD]` and as many steps as a gap below 1 % takes.
    pub fn new(method: Method, class: usize) -> Wanted {
        Wanted { method, class, baseline: Baseline::Pad, steps: Steps::default() }
    }
}

/// What each token adds to the logit of a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attributions {
    /// The class.
    pub class: usize,
    /// A value for each token; positive speaks for the class. Of integrated gradients and occlusion, zero for added tokens.
    pub values: Vec<f64>,
    /// The logit of the text minus that of the baseline, to which integrated gradients should sum.
    pub total: Option<f64>,
    /// How much the sum of the values misses `total`, relative to it. None for a method that promises no sum.
    pub gap: Option<f64>,
    /// Steps of the integral.
    pub steps: Option<usize>,
    /// Whether the gap is within the tolerance, 1 % for a fixed number of steps. True where there is none.
    pub converged: bool,
    /// The logit of the text.
    pub logit: f64,
}

impl Subject {
    /// What each token adds to the logit of a class. Costs: gradient x input one pass forward and backward, integrated gradients one a
    /// step, occlusion a forward pass a token.
    ///
    /// # Errors
    /// `NoClassifier`, `NoClass`, `NoBaseline`, `Setting`; as [`Blocks::check`]; `NotFinite`; `Stopped`; errors of the model.
    pub fn attribute(
        &self,
        text: &Text,
        blocks: &Blocks,
        wanted: &Wanted,
        watch: Watch<'_>,
    ) -> Result<Attributions> {
        self.check_class(wanted.class)?;
        blocks.check(self, text.size())?;
        match wanted.method {
            Method::GradientXInput => self.gradient_x_input(text, blocks, wanted.class, watch),
            Method::IntegratedGradients => self.integrated_gradients(text, blocks, wanted, watch),
            Method::Occlusion => self.occlusion(text, blocks, wanted, watch),
        }
    }

    fn gradient_x_input(
        &self,
        text: &Text,
        blocks: &Blocks,
        class: usize,
        watch: Watch<'_>,
    ) -> Result<Attributions> {
        tell(watch, 0, 1)?;
        let words = self.words(&text.ids())?;
        let (gradient, logits) = self.gradients(text, blocks, class, &words, 1)?;
        let values = by_token(&products(&gradient, &words), text.size());
        finite("an attribution", &values)?;
        tell(watch, 1, 1)?;
        let (total, gap, steps, converged) = (None, None, None, true);
        Ok(Attributions { class, values, total, gap, steps, converged, logit: logits[0] })
    }

    fn integrated_gradients(
        &self,
        text: &Text,
        blocks: &Blocks,
        wanted: &Wanted,
        watch: Watch<'_>,
    ) -> Result<Attributions> {
        let (tolerance, first, most) = checked_steps(wanted.steps)?;
        let line = Line { to: self.words(&text.ids())?, from: self.baseline(text, wanted.baseline)? };
        let ends = [line.at(1.0), line.at(0.0)].concat();
        let unwatched: Watch<'_> = &|_, _| true;
        let ends = self.logits_of_variants(text, blocks, wanted.class, 2, unwatched, |taps, first, n| {
            let one = ends.len() / 2;
            set_words(taps, &ends[first * one..(first + n) * one], text.size() * n)
        })?;
        let total = ends[0] - ends[1];
        let mut steps = first;
        loop {
            let integral = self.integral(text, blocks, wanted.class, &line, steps, watch)?;
            let values = by_token(&products(&integral, &line.difference()), text.size());
            finite("an attribution", &values)?;
            let missed = (values.iter().sum::<f64>() - total).abs();
            // With nothing to replace there is nothing to miss.
            let gap = if missed == 0.0 { 0.0 } else { missed / total.abs() };
            let converged = gap < tolerance;
            if converged || 2 * steps > most {
                let gap = Some(gap).filter(|gap| gap.is_finite());
                let (class, total, steps) = (wanted.class, Some(total), Some(steps));
                return Ok(Attributions { class, values, total, gap, steps, converged, logit: ends[0] });
            }
            steps *= 2;
        }
    }

    /// The integral of the gradient along a line, `[S, C]`.
    fn integral(
        &self,
        text: &Text,
        blocks: &Blocks,
        class: usize,
        line: &Line,
        steps: usize,
        watch: Watch<'_>,
    ) -> Result<Vec<f64>> {
        let mut sum = vec![0.0; line.to.len()];
        let mut done = 0;
        for places in gauss_legendre(steps).chunks((GRADIENT_TOKENS / text.size()).max(1)) {
            tell(watch, done, steps)?;
            let words: Vec<f64> = places.iter().flat_map(|&(place, _)| line.at(place)).collect();
            let (gradients, _) = self.gradients(text, blocks, class, &words, places.len())?;
            for (gradient, (_, weight)) in gradients.chunks(sum.len()).zip(places) {
                sum.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += weight * gradient);
            }
            done += places.len();
        }
        tell(watch, steps, steps)?;
        Ok(sum)
    }

    /// Of `count` copies of a text with these word embeddings, `[count S, C]`: the gradient of the class's logits with respect to them,
    /// and the logits.
    fn gradients(
        &self,
        text: &Text,
        blocks: &Blocks,
        class: usize,
        words: &[f64],
        count: usize,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let mut taps = Taps::new();
        blocks.set(&mut taps, self, text.size())?;
        set_words(&mut taps, words, text.size() * count)?;
        let read = taps.read_with_gradient(Point::Words);
        let tape = Tape::recording();
        let logits = self.logits(&tape, &self.copies(&text.ids(), count)?, &taps)?;
        let classes = self.config().num_labels();
        let seed = one_hot(class, logits.value())?;
        let values = numbers(logits.value())?.chunks(classes).map(|row| row[class]).collect();
        let id = logits.id();
        drop(logits);
        let gradients = tape.vjp(&[(id, seed)], &taps.ids())?;
        Ok((numbers(&taps.gradient(read, &gradients)?)?, values))
    }

    fn occlusion(
        &self,
        text: &Text,
        blocks: &Blocks,
        wanted: &Wanted,
        watch: Watch<'_>,
    ) -> Result<Attributions> {
        let (size, words) = (text.size(), self.words(&text.ids())?);
        let (baseline, width) = (self.baseline(text, wanted.baseline)?, words.len() / size);
        let places: Vec<usize> = text.content().collect();
        // The last variant is the text itself.
        let count = places.len() + 1;
        let logits =
            self.logits_of_variants(text, blocks, wanted.class, count, watch, |taps, first, n| {
                let mut all = words.repeat(n);
                for (copy, &place) in places[first..].iter().take(n).enumerate() {
                    let at = (copy * size + place) * width;
                    all[at..at + width].copy_from_slice(&baseline[place * width..][..width]);
                }
                set_words(taps, &all, size * n)
            })?;
        let logit = logits[places.len()];
        let mut values = vec![0.0; size];
        places.iter().zip(&logits).for_each(|(&place, replaced)| values[place] = logit - replaced);
        let (total, gap, steps, converged) = (None, None, None, true);
        Ok(Attributions { class: wanted.class, values, total, gap, steps, converged, logit })
    }

    /// The word embeddings of a text with the baseline in the place of each token that stands for text, `[S, C]`.
    fn baseline(&self, text: &Text, baseline: Baseline) -> Result<Vec<f64>> {
        let id = match baseline {
            Baseline::Pad => {
                let known = ["[PAD]", "<pad>"].iter().find_map(|name| self.tokenizer().id(name));
                Some(known.ok_or(ExplainError::NoBaseline { name: "[PAD]" })?)
            }
            Baseline::Mask => {
                let (_, id) = self.tokenizer().mask().ok_or(ExplainError::NoBaseline { name: "[MASK]" })?;
                Some(id)
            }
            Baseline::Zero => None,
        };
        let mut ids = text.ids();
        text.content().for_each(|place| ids[place] = id.unwrap_or(ids[place]));
        let mut words = self.words(&ids)?;
        if id.is_none() {
            let width = words.len() / text.size();
            text.content().for_each(|place| words[place * width..(place + 1) * width].fill(0.0));
        }
        Ok(words)
    }
}

/// A straight line between embeddings `[S, C]`.
struct Line {
    from: Vec<f64>,
    to: Vec<f64>,
}

impl Line {
    fn at(&self, place: f64) -> Vec<f64> {
        self.from.iter().zip(&self.to).map(|(from, to)| from + place * (to - from)).collect()
    }

    fn difference(&self) -> Vec<f64> {
        self.from.iter().zip(&self.to).map(|(from, to)| to - from).collect()
    }
}

/// Tolerance, first and largest number of steps.
fn checked_steps(steps: Steps) -> Result<(f64, usize, usize)> {
    let (tolerance, first, most) = match steps {
        Steps::Fixed(steps) => (TOLERANCE, steps, steps),
        Steps::Adaptive { tolerance, most } => (tolerance, FIRST_STEPS.min(most), most),
    };
    if !(1..=MOST_STEPS).contains(&most) {
        let (name, expected) = ("the number of steps", "1 to 4096");
        return Err(ExplainError::Setting { name, expected, got: most.to_string() });
    }
    if !(tolerance > 0.0 && tolerance.is_finite()) {
        let (name, expected) = ("the tolerance", "a number above 0");
        return Err(ExplainError::Setting { name, expected, got: tolerance.to_string() });
    }
    Ok((tolerance, first, most))
}

/// Puts these word embeddings, row-major `[rows, C]`, in the place of the tokens'.
pub(crate) fn set_words(taps: &mut Taps, words: &[f64], rows: usize) -> Result<()> {
    let tensor = Tensor::from_slice(words, &[rows, words.len() / rows])?;
    taps.replace(Point::Words, move |x, _| Ok(x.tape().constant(like(&tensor, x.value())?)));
    Ok(())
}

/// 1 in the column of a class and 0 in others, in the shape of logits `[B, K]`: seeds the gradient of that class's logits.
pub(crate) fn one_hot(class: usize, logits: &Tensor) -> vitrine_tensor::Result<Tensor> {
    let classes = logits.dims()[1];
    let of_place = |place: usize| f64::from(u8::from(place % classes == class));
    let chosen: Vec<f64> = (0..logits.numel()).map(of_place).collect();
    like(&Tensor::from_slice(&chosen, logits.dims())?, logits)
}

/// A tensor of the host as another's dtype, where that is.
pub(crate) fn like(tensor: &Tensor, other: &Tensor) -> vitrine_tensor::Result<Tensor> {
    let tensor = if other.dtype() == DType::F64 { tensor.clone() } else { tensor.to_dtype(other.dtype())? };
    match other.device() {
        Device::Cpu => Ok(tensor),
        device @ Device::Cuda(_) => tensor.to_device(device),
    }
}

fn products(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

/// Sums over the columns of `[S, C]`.
fn by_token(values: &[f64], size: usize) -> Vec<f64> {
    values.chunks(values.len() / size).map(|row| row.iter().sum()).collect()
}
