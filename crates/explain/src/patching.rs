//! [`Subject::patch`]: where in a model the difference between two texts is decided.

use crate::prediction::tell;
use crate::{Blocks, ExplainError, Result, Subject, Text, Watch};
use serde::Serialize;
use vitrine_autograd::Tape;
use vitrine_bert::{LayerPoint, Point, Tap, Taps};
use vitrine_tensor::Tensor;

/// What is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Patched {
    /// The residual stream: the embeddings, and what each layer returns.
    Stream,
    /// What attention adds to the residual stream.
    Attention,
    /// What the feed-forward network adds to it.
    FeedForward,
}

impl Patched {
    /// The points of a model of so many layers, in order.
    pub fn points(self, layers: usize) -> Vec<Point> {
        let inside = |point| (0..layers).map(move |layer| Point::Layer(layer, point));
        match self {
            Patched::Stream => crate::lens::stream(layers),
            Patched::Attention => inside(LayerPoint::AttentionOutput).collect(),
            Patched::FeedForward => inside(LayerPoint::FeedForwardOutput).collect(),
        }
    }
}

/// What putting values of one text into the run of another does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Patching {
    /// What was patched.
    pub patched: Patched,
    /// The class whose logit is measured.
    pub class: usize,
    /// The class whose logit is subtracted.
    pub against: usize,
    /// The difference of the logits for the text that values come from.
    pub clean: f64,
    /// The difference for the text that is run.
    pub corrupted: f64,
    /// The points' names, in the order of `recovered`.
    pub points: Vec<String>,
    /// `[points][S]`: with the value at this point and token replaced, `(difference - corrupted) / (clean - corrupted)`: 0 changes
    /// nothing, 1 gives the clean text's difference.
    pub recovered: Vec<Vec<f64>>,
}

impl Subject {
    /// Activation patching (Vig et al. 2020, arXiv 2004.12265; Meng et al. 2022, arXiv 2202.05262): runs `corrupted` with the values of
    /// `clean` at one point and token, for each of them. Measures the logit of the class that `clean` is predicted as, minus that of
    /// the class that `corrupted` is, or of the likeliest other class where both are the same. Costs a forward pass a point and token.
    ///
    /// # Errors
    /// `NoClassifier`; `Lengths` for texts with different numbers of tokens; `SameResult` where there is nothing to recover; as
    /// [`Blocks::check`]; `NotFinite`; `Stopped`; errors of the model.
    pub fn patch(
        &self,
        clean: &Text,
        corrupted: &Text,
        blocks: &Blocks,
        patched: Patched,
        watch: Watch<'_>,
    ) -> Result<Patching> {
        self.check_class(0)?;
        let size = corrupted.size();
        if clean.size() != size {
            return Err(ExplainError::Lengths { clean: clean.size(), corrupted: size });
        }
        let points = patched.points(self.config().num_hidden_layers);
        let mut taps = Taps::new();
        blocks.set(&mut taps, self, size)?;
        let read: Vec<Tap> = points.iter().map(|&point| taps.read(point)).collect();
        self.run(&Tape::inference(), &self.copies(&clean.ids(), 1)?, &taps)?;
        let sources: Vec<Tensor> =
            read.into_iter().map(|tap| taps.value(tap)).collect::<vitrine_nn::Result<_>>()?;

        let unchanged = |text: &Text| -> Result<Vec<f64>> {
            let mut rows = self.rows_of_variants(text, blocks, 1, &|_, _| true, |_, _, _| Ok(()))?;
            Ok(rows.remove(0))
        };
        let (clean_row, corrupted_row) = (unchanged(clean)?, unchanged(corrupted)?);
        let class = likeliest(&clean_row, None);
        let against = match likeliest(&corrupted_row, None) {
            same if same == class => likeliest(&clean_row, Some(class)),
            other => other,
        };
        let difference = |row: &[f64]| row[class] - row[against];
        let (from, to) = (difference(&corrupted_row), difference(&clean_row));
        if from == to {
            return Err(ExplainError::SameResult { difference: from });
        }
        let count = points.len() * size;
        let mut recovered = Vec::with_capacity(points.len());
        for (place, (&point, source)) in points.iter().zip(&sources).enumerate() {
            let rows = self.rows_of_variants(
                corrupted,
                blocks,
                size,
                &|done, _| watch(place * size + done, count),
                |taps, first, _| {
                    // Copy i has another value at token `first + i`.
                    replace_rows(taps, point, source, move |copy, token| token == first + copy);
                    Ok(())
                },
            )?;
            recovered.push(rows.iter().map(|row| (difference(row) - from) / (to - from)).collect());
        }
        tell(watch, count, count)?;
        let points = points.iter().map(ToString::to_string).collect();
        Ok(Patching { patched, class, against, clean: to, corrupted: from, points, recovered })
    }
}

/// In copies of a text, replaces those rows of a point whose (copy, token) are chosen by the token's row of `source: [S, C]`.
pub(crate) fn replace_rows(
    taps: &mut Taps,
    point: Point,
    source: &Tensor,
    is_chosen: impl Fn(usize, usize) -> bool + 'static,
) {
    let source = source.clone();
    taps.replace(point, move |x, _| {
        let (rows, size) = (x.dims()[0], source.dims()[0]);
        // Rows of x and of the source one below the other; each row of the result is one of them.
        let both = x.cat(&[&x.tape().constant(source.to_dtype(x.value().dtype())?)], 0)?;
        let row = |place: usize| match is_chosen(place / size, place % size) {
            true => rows + place % size,
            false => place,
        };
        both.gather_rows(&(0..rows).map(|place| row(place) as u32).collect::<Vec<_>>())
    });
}

/// The class with the largest logit, but for one.
fn likeliest(row: &[f64], but: Option<usize>) -> usize {
    let classes = (0..row.len()).filter(|&class| Some(class) != but);
    classes.reduce(|best, class| if row[class] > row[best] { class } else { best }).unwrap_or(0)
}
