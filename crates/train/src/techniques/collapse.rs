//! [`Collapse`]: a model that has stopped learning is noticed while it trains.

use serde::{Deserialize, Serialize};
use vitrine_bert::Place;

/// Steps that one-class predictions have to last at least; and at least a tenth of the run.
const WINDOW: usize = 50;
/// The share of the window's rows that must be of other classes than the predicted one. Where nearly all rows are of one class, a
/// model that says so is no fault.
const OTHERS: f64 = 0.05;
/// Steps between two looks at the gradients: a look is one more pass over them.
const LOOK_EVERY: usize = 25;
/// A part's gradient has vanished below this share of the largest part's norm. Between neighbouring layers of a sound BERT it
/// changes by a factor of a few. Sums in F32 are rounded to 6e-8 of their size, so below a millionth a gradient is mostly rounding.
const VANISHED: f64 = 1e-6;
/// Looks in a row that have to find it.
const LOOKS: usize = 2;

/// Watches for two ways of standing still, and warns of each once.
///
/// - One class: over a window of 50 steps, or a tenth of the run where that is more, every row was predicted to be of the same
///   class, while at least 5 % of the rows were of others. Steps of the warmup do not count, up to half of the run: a new head
///   begins with one class.
/// - A vanished gradient: the norm of a part's gradient (embeddings, a layer, the head) is below a millionth of the largest part's, in
///   two looks in a row, 25 steps apart.
///
/// It is a part of a run's state: a run that goes on from a checkpoint with it warns of the same at the same steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collapse {
    window: usize,
    from: usize,
    /// The class that was predicted for every row so far, of a stretch of steps.
    class: Option<usize>,
    steps: usize,
    rows: usize,
    others: usize,
    warned_of_class: bool,
    /// Parts whose gradient had vanished at the last look, and for how many looks.
    vanished: Vec<(Place, usize)>,
    warned_of_gradient: bool,
}

impl Collapse {
    /// For a run of so many steps, the first of which warm up.
    pub fn new(total_steps: usize, warmup_steps: usize) -> Self {
        Collapse {
            window: WINDOW.max(total_steps / 10),
            from: warmup_steps.min(total_steps / 2),
            class: None,
            steps: 0,
            rows: 0,
            others: 0,
            warned_of_class: false,
            vanished: Vec::new(),
            warned_of_gradient: false,
        }
    }

    /// Takes the predicted and the true class of each row of a step, counted from 1, and says what is wrong, if anything is;
    /// `names` are those of the classes.
    pub fn predictions(
        &mut self,
        step: usize,
        predicted: &[usize],
        labels: &[u32],
        names: &[String],
    ) -> Option<String> {
        let &first = predicted.first()?;
        if step <= self.from || predicted.iter().any(|&class| class != first) {
            (self.class, self.steps, self.rows, self.others) = (None, 0, 0, 0);
            return None;
        }
        if self.class != Some(first) {
            (self.class, self.steps, self.rows, self.others) = (Some(first), 0, 0, 0);
        }
        self.steps += 1;
        self.rows += labels.len();
        self.others += labels.iter().filter(|&&label| label as usize != first).count();
        let collapsed = self.steps >= self.window && self.others as f64 >= OTHERS * self.rows as f64;
        if !collapsed || self.warned_of_class {
            return None;
        }
        self.warned_of_class = true;
        let name = names.get(first).map_or_else(|| first.to_string(), Clone::clone);
        Some(format!(
            "step {step}: the model predicted `{name}` for all {} rows of the last {} steps, {} of which are of other \
             classes; it has collapsed. Lower the learning rate, lengthen the warmup, or start from another seed",
            self.rows, self.steps, self.others
        ))
    }

    /// Whether the gradients of this step, counted from 1, should be looked at.
    pub fn looks_at(&self, step: usize) -> bool {
        !self.warned_of_gradient && step.is_multiple_of(LOOK_EVERY)
    }

    /// Takes the norms of the parts' gradients, and says what is wrong, if anything is.
    pub fn gradients(&mut self, step: usize, norms: &[(Place, f64)]) -> Option<String> {
        let largest = norms.iter().fold(0.0, |largest: f64, (_, norm)| largest.max(*norm));
        let before = std::mem::take(&mut self.vanished);
        for &(place, norm) in norms.iter().filter(|(_, norm)| *norm < VANISHED * largest) {
            let looks = 1 + before.iter().find(|(other, _)| *other == place).map_or(0, |(_, looks)| *looks);
            self.vanished.push((place, looks));
            if looks >= LOOKS && !self.warned_of_gradient {
                self.warned_of_gradient = true;
                return Some(format!(
                    "step {step}: the gradient of {place} has vanished: its norm is {norm:.1e}, the largest part's is \
                     {largest:.1e}; {place} no longer learns"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_for_a_window_is_a_collapse() {
        let mut collapse = Collapse::new(200, 20);
        let names = ["bad", "good"].map(str::to_owned);
        let mut warned = Vec::new();
        for step in 1..=200 {
            // Steps of the warmup do not count, and neither does a stretch that ended.
            let predicted = if step == 40 { [1, 0, 1, 1] } else { [1; 4] };
            if let Some(text) = collapse.predictions(step, &predicted, &[0, 1, 1, 1], &names) {
                warned.push((step, text));
            }
        }
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert_eq!(warned[0].0, 90);
        assert!(
            warned[0].1.contains("predicted `good` for all 200 rows of the last 50 steps, 50 of which"),
            "{warned:?}"
        );
    }

    #[test]
    fn a_model_that_is_right_has_not_collapsed() {
        let mut collapse = Collapse::new(1000, 0);
        for step in 1..=1000 {
            // 1 row of 40 is of another class: 2.5 %.
            let label = u32::from(step % 10 == 0);
            assert_eq!(collapse.predictions(step, &[0; 4], &[label, 0, 0, 0], &[]), None);
        }
        let mut long = Collapse::new(1000, 0);
        let warned = (1..=1000).find(|&step| long.predictions(step, &[0; 4], &[1, 0, 0, 0], &[]).is_some());
        assert_eq!(warned, Some(100), "a tenth of the run");
    }

    #[test]
    fn a_gradient_that_stays_gone_has_vanished() {
        let mut collapse = Collapse::new(200, 0);
        assert!(collapse.looks_at(25) && !collapse.looks_at(26));
        let norms = |lowest| [(Place::Embeddings, lowest), (Place::Layer(0), 0.3), (Place::Head, 1.0)];
        assert_eq!(collapse.gradients(25, &norms(1e-8)), None);
        assert_eq!(collapse.gradients(50, &norms(1e-3)), None);
        assert_eq!(collapse.gradients(75, &norms(1e-8)), None);
        let text = collapse.gradients(100, &norms(1e-8)).unwrap();
        assert!(text.contains("step 100: the gradient of embeddings has vanished"), "{text}");
        assert_eq!(collapse.gradients(125, &norms(1e-8)), None);
    }
}
