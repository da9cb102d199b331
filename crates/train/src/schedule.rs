//! Learning-rate schedules with warmup, by Hugging Face's formulas, and the linter that reads a set-up before step 1.
//!
//! `lr(k) = peak * factor(k)`, where `k` counts finished optimizer updates: the first update uses `k = 0`, the last of a
//! run uses `k = total - 1`. Source: `transformers/optimization.py` (`get_linear_schedule_with_warmup`,
//! `get_cosine_schedule_with_warmup` with half a cosine, `get_constant_schedule_with_warmup`,
//! `get_polynomial_decay_schedule_with_warmup`, `get_wsd_schedule`).

use std::{f64::consts::PI, fmt, str::FromStr};

use serde::Serialize;

use crate::TrainError;

/// The shape of the learning rate after its warmup. As JSON: its name under `schedule`, and its numbers beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "schedule", rename_all = "lowercase")]
pub enum ScheduleKind {
    /// A straight line from the peak at the end of the warmup to zero after the last step.
    #[default]
    Linear,
    /// Half a cosine over the same stretch.
    Cosine,
    /// The peak, to the end.
    Constant,
    /// From the peak at the end of the warmup to `end_ratio` times the peak after the last step, by a power of what remains.
    Polynomial {
        /// 1 is a straight line; a higher power falls early, a lower one late.
        power: f64,
        /// The last rate as a share of the peak, from 0 to below 1 (transformers: `lr_end / lr`).
        end_ratio: f64,
    },
    /// Warmup, stable, decay (MiniCPM, arXiv 2404.06395): the peak, and a decay at the end of the run.
    Wsd {
        /// The steps of the decay.
        decay: Span,
        /// How the rate falls in them.
        decay_shape: DecayShape,
        /// The lowest rate as a share of the peak, below 1: the warmup starts there and the decay ends there.
        min_ratio: f64,
    },
}

/// A number of steps, or a share of the run's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Span {
    /// This many.
    Steps(usize),
    /// This share of all steps, rounded up.
    Ratio(f64),
}

impl Span {
    /// The steps of it in a run of `total`.
    pub fn steps(self, total: usize) -> usize {
        match self {
            Span::Steps(steps) => steps,
            Span::Ratio(ratio) => (ratio * total as f64).ceil() as usize,
        }
    }
}

/// How the rate falls in the decay of [`ScheduleKind::Wsd`], `p` being the share of the decay that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum DecayShape {
    /// `(1 + cos(pi p)) / 2`.
    #[default]
    #[serde(rename = "cosine")]
    Cosine,
    /// `1 - p`.
    #[serde(rename = "linear")]
    Linear,
    /// `1 - sqrt(p)`.
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

impl DecayShape {
    fn factor(self, p: f64) -> f64 {
        match self {
            DecayShape::Cosine => 0.5 * (1.0 + (PI * p).cos()),
            DecayShape::Linear => 1.0 - p,
            DecayShape::OneMinusSqrt => 1.0 - p.sqrt(),
        }
    }
}

impl FromStr for ScheduleKind {
    type Err = TrainError;

    /// The kind of this name with its usual numbers: a polynomial of power 1 to 0, a decay over the last tenth to 0.
    fn from_str(name: &str) -> Result<Self, TrainError> {
        match name {
            "linear" => Ok(ScheduleKind::Linear),
            "cosine" => Ok(ScheduleKind::Cosine),
            "constant" => Ok(ScheduleKind::Constant),
            "polynomial" => Ok(ScheduleKind::Polynomial { power: 1.0, end_ratio: 0.0 }),
            "wsd" => Ok(ScheduleKind::Wsd {
                decay: Span::Ratio(0.1),
                decay_shape: DecayShape::default(),
                min_ratio: 0.0,
            }),
            _ => Err(TrainError::UnknownSchedule { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for ScheduleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScheduleKind::Linear => "linear",
            ScheduleKind::Cosine => "cosine",
            ScheduleKind::Constant => "constant",
            ScheduleKind::Polynomial { .. } => "polynomial",
            ScheduleKind::Wsd { .. } => "wsd",
        })
    }
}

/// A schedule of a run: how many updates it has and how many of them warm up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Shape after the warmup.
    pub kind: ScheduleKind,
    /// Optimizer updates in the whole run.
    pub total: usize,
    /// Updates over which the factor rises from its lowest towards 1.
    pub warmup: usize,
}

/// The steps of which [`Schedule::summary`] takes the mean, at most.
const SUMMARY_STEPS: usize = 1 << 16;

impl Schedule {
    /// The multiple of the peak learning rate for the update that follows `k` finished ones, in [0, 1].
    ///
    /// During warmup `k / max(1, warmup)`; afterwards, with `p = (k - warmup) / max(1, total - warmup)`:
    /// linear `max(0, 1 - p)`, cosine `max(0, (1 + cos(pi p)) / 2)`, constant 1, polynomial `e + (1 - e) (1 - p)^power` with
    /// the last ratio `e`. Wsd is 1 up to its decay, in which p is the share of the decay that is over; with the lowest ratio
    /// `e`, warmup and decay are `e + (1 - e) f` of what they would be to 0.
    pub fn factor(&self, k: usize) -> f64 {
        let Schedule { kind, total, warmup } = *self;
        if k < warmup {
            let rise = k as f64 / warmup as f64;
            return match kind {
                ScheduleKind::Wsd { min_ratio, .. } => above(min_ratio, rise),
                _ => rise,
            };
        }
        let falling = total.saturating_sub(warmup).max(1) as f64;
        match kind {
            ScheduleKind::Linear => total.saturating_sub(k) as f64 / falling,
            ScheduleKind::Cosine => {
                let progress = ((k - warmup) as f64 / falling).min(1.0);
                (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
            }
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Polynomial { power, end_ratio } => {
                let remaining = total.saturating_sub(k) as f64 / falling;
                above(end_ratio, if remaining > 0.0 { remaining.powf(power) } else { 0.0 })
            }
            ScheduleKind::Wsd { decay, decay_shape, min_ratio } => {
                let decay = decay.steps(total);
                let start = total.saturating_sub(decay).max(warmup);
                if k < start {
                    return 1.0;
                }
                let progress = ((k - start) as f64 / decay.max(1) as f64).min(1.0);
                above(min_ratio, decay_shape.factor(progress)).max(0.0)
            }
        }
    }

    /// Peak, last and mean factor over the run's updates `0..total`; `None` for a run without updates. The mean is that of all
    /// steps up to 65,536 of them; of a longer run, of as many at even distances.
    pub fn summary(&self) -> Option<Summary> {
        let last = self.total.checked_sub(1)?;
        // Every kind rises up to the end of the warmup and never rises again.
        let peak = self.factor(self.warmup.min(last));
        let steps = self.total.min(SUMMARY_STEPS);
        // The middle of each of `steps` equal stretches: in u128, for there may be 2^50 steps.
        let middle = |i: usize| ((2 * i as u128 + 1) * self.total as u128 / (2 * steps as u128)) as usize;
        let mean = (0..steps).map(|i| self.factor(middle(i))).sum::<f64>() / steps as f64;
        Some(Summary { peak, last: self.factor(last), mean })
    }

    /// What a reader of this set-up should know before step 1: one plain sentence or two per finding, none if it is sound.
    ///
    /// `peak_lr` is the learning rate that was asked for; it is only used in the texts.
    pub fn check(&self, peak_lr: f64) -> Vec<String> {
        let Schedule { kind, total, warmup } = *self;
        let Some(Summary { peak, last, mean }) = self.summary() else {
            return vec!["the run has 0 optimizer steps: nothing is trained".to_owned()];
        };
        let percent = |factor: f64| format!("{:.3e} ({:.1} %)", factor * peak_lr, 100.0 * factor);
        let mut findings = Vec::new();
        if peak == 0.0 {
            findings.push(format!(
                "the learning rate is 0 in all {total} steps (warmup {warmup} starts at 0): nothing is trained; \
                 use fewer warmup steps"
            ));
        } else if warmup >= total {
            findings.push(format!(
                "the learning rate never reaches its peak of {peak_lr:.3e}: the run has {total} steps and the warmup \
                 alone takes {warmup}. The rate is still rising at the last step, where it is {}; its mean over the \
                 run is {}. A warmup of {} steps (10 % of the run) would reach the peak",
                percent(last),
                percent(mean),
                total.div_ceil(10)
            ));
        } else if 2 * warmup > total {
            findings.push(format!(
                "the warmup takes {warmup} of {total} steps: the learning rate rises for most of the run and its \
                 mean is {}",
                percent(mean)
            ));
        }
        if let ScheduleKind::Wsd { decay, .. } = kind
            && warmup < total
        {
            let decay = decay.steps(total);
            if decay == 0 {
                findings.push(
                    "the decay of the wsd schedule has 0 steps: the learning rate stays at its peak to the end"
                        .to_owned(),
                );
            } else if warmup + decay > total {
                findings.push(format!(
                    "warmup ({warmup}) and decay ({decay}) take more than the run's {total} steps: the decay begins \
                     at step {warmup} and is cut off where the rate is {}",
                    percent(last)
                ));
            } else if warmup + decay == total {
                findings.push(format!(
                    "warmup ({warmup}) and decay ({decay}) take all {total} steps: no step is left at the stable \
                     peak rate"
                ));
            }
        }
        if peak_lr == 0.0 {
            findings.push("the peak learning rate is 0: nothing is trained".to_owned());
        }
        findings
    }
}

/// `lowest + (1 - lowest) f`.
fn above(lowest: f64, f: f64) -> f64 {
    f * (1.0 - lowest) + lowest
}

/// Multiples of the peak learning rate that a run really sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The highest factor of any update.
    pub peak: f64,
    /// The factor of the last update.
    pub last: f64,
    /// The mean factor.
    pub mean: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 5] = ["linear", "cosine", "constant", "polynomial", "wsd"];

    fn schedule(kind: ScheduleKind, total: usize, warmup: usize) -> Schedule {
        Schedule { kind, total, warmup }
    }

    fn assert_close(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-15, "got {got}, want {want}");
    }

    #[test]
    fn linear_by_the_formula() {
        let s = schedule(ScheduleKind::Linear, 100, 10);
        for (k, want) in
            [(0, 0.0), (1, 0.1), (9, 0.9), (10, 1.0), (11, 89.0 / 90.0), (55, 0.5), (99, 1.0 / 90.0)]
        {
            assert_close(s.factor(k), want);
        }
        assert_close(s.factor(100), 0.0);
        assert_close(s.factor(1000), 0.0);
        let without = schedule(ScheduleKind::Linear, 4, 0);
        assert_eq!([0, 1, 2, 3].map(|k| without.factor(k)), [1.0, 0.75, 0.5, 0.25]);
    }

    #[test]
    fn cosine_and_constant_by_the_formula() {
        let s = schedule(ScheduleKind::Cosine, 110, 10);
        for (k, want) in
            [(0, 0.0), (5, 0.5), (10, 1.0), (35, 0.5 + 0.5 * 0.5f64.sqrt()), (60, 0.5), (110, 0.0)]
        {
            assert!((s.factor(k) - want).abs() < 1e-12, "k {k}: {} and {want}", s.factor(k));
        }
        assert_eq!(s.factor(500), s.factor(110));
        let c = schedule(ScheduleKind::Constant, 10, 4);
        assert_eq!([0, 1, 3, 4, 9, 99].map(|k| c.factor(k)), [0.0, 0.25, 0.75, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn notebook_warmup_outlasts_its_run() {
        // 2,500 rows in batches of 16, 3 epochs: 157 * 3 = 471 steps; the warmup is 500.
        let s = schedule(ScheduleKind::Linear, 471, 500);
        let summary = s.summary().unwrap();
        assert_close(summary.peak, 0.94);
        assert_close(summary.last, 0.94);
        assert!((summary.mean - 0.47).abs() < 1e-12, "{}", summary.mean);
        let findings = s.check(2e-5);
        assert_eq!(findings.len(), 1);
        for part in
            ["never reaches its peak of 2.000e-5", "471", "500", "1.880e-5 (94.0 %)", "9.400e-6 (47.0 %)"]
        {
            assert!(findings[0].contains(part), "{part:?} is not in {:?}", findings[0]);
        }
    }

    #[test]
    fn the_mean_is_that_of_all_steps_and_quick() {
        for kind in KINDS.map(|name| name.parse::<ScheduleKind>().unwrap()) {
            for (total, warmup) in [(1, 0), (1, 1), (7, 0), (7, 3), (7, 7), (7, 20), (100, 99)] {
                let s = schedule(kind, total, warmup);
                let want = (0..total).map(|k| s.factor(k)).sum::<f64>() / total as f64;
                let got = s.summary().unwrap().mean;
                assert!((got - want).abs() < 1e-12, "{kind} {total} {warmup}: {got}, want {want}");
            }
        }
        // Added up, this would take hours.
        let long = schedule(ScheduleKind::Linear, 1 << 50, 0).summary().unwrap();
        assert!((long.mean - 0.5).abs() < 1e-9);
    }

    #[test]
    fn linter_is_quiet_only_when_the_set_up_is_sound() {
        assert!(schedule(ScheduleKind::Linear, 471, 47).check(2e-5).is_empty());
        assert!(schedule(ScheduleKind::Constant, 1, 0).check(2e-5).is_empty());
        let finds = |total, warmup, lr, text: &str| {
            let findings = schedule(ScheduleKind::Linear, total, warmup).check(lr);
            assert!(
                findings.iter().any(|f| f.contains(text)),
                "{total} {warmup}: {findings:?} lack {text:?}"
            );
        };
        finds(0, 0, 2e-5, "0 optimizer steps");
        finds(1, 1, 2e-5, "is 0 in all 1 steps");
        finds(100, 100, 2e-5, "never reaches its peak");
        finds(100, 60, 2e-5, "60 of 100 steps");
        finds(100, 0, 0.0, "peak learning rate is 0");
    }

    #[test]
    fn the_linter_knows_the_decay_of_wsd() {
        let finds = |total, warmup, decay, text: &str| {
            let (decay_shape, min_ratio) = (DecayShape::Linear, 0.0);
            let findings =
                schedule(ScheduleKind::Wsd { decay, decay_shape, min_ratio }, total, warmup).check(1e-3);
            assert_eq!(findings.len(), usize::from(!text.is_empty()), "{findings:?}");
            assert!(findings.iter().all(|finding| finding.contains(text)), "{findings:?} lack {text:?}");
        };
        finds(100, 10, Span::Steps(20), "");
        finds(100, 10, Span::Ratio(0.2), "");
        finds(100, 10, Span::Steps(0), "stays at its peak");
        finds(100, 10, Span::Steps(90), "no step is left");
        finds(
            100,
            10,
            Span::Steps(120),
            "begins at step 10 and is cut off where the rate is 2.583e-4 (25.8 %)",
        );
    }

    #[test]
    fn names_round_trip() {
        for name in KINDS {
            let kind = name.parse::<ScheduleKind>().unwrap();
            assert_eq!(kind.to_string(), name);
            assert_eq!(serde_json::to_value(kind).unwrap()["schedule"], name);
        }
        assert!("exponential".parse::<ScheduleKind>().is_err());
    }
}
