//! What people say of fine-tuning BERT, as experiments: each [`Claim`] has a hypothesis, a method, and a rule for its verdict that is
//! fixed before the run.
//!
//! The claims are those of a well-known notebook that fine-tunes `bert-base-uncased` on IMDB. They run on small models and small
//! samples, on two cores in minutes; what that means for the larger model, each [`Finding`] says. A result is printed whatever it is.
//!
//! Reading order: [`Claim`] and [`Setting`] for what goes in, [`Evidence`] for what comes out, one file a claim, [`page`] for the page.

mod error;
mod evidence;
mod length;
mod negation;
mod page;
mod polarity;
mod probes;
mod rates;
mod recipe;
mod sentences;
mod setting;
mod statistics;
mod texts;
mod training;
mod warmup;
mod words;

pub use error::{ClaimError, Result};
pub use evidence::{Estimate, Evidence, Finding, Interval, Line, Plot, Point, Valued, Verdict};
pub use page::{image, page};
pub use polarity::{Polarity, check_classifier, polarity};
pub use setting::{Setting, Watch};

/// A statement that can be tested.
#[derive(Clone, Copy)]
pub struct Claim {
    /// `C1` and so on.
    pub id: &'static str,
    /// What it is about, in a few words.
    pub title: &'static str,
    /// What is said.
    pub hypothesis: &'static str,
    /// What is done.
    pub method: &'static str,
    /// When it is supported and when not: fixed before the run.
    pub rule: &'static str,
    run: fn(&Setting) -> Result<Evidence>,
}

/// Every claim, in order.
pub static CLAIMS: [Claim; 8] = [
    recipe::CLAIM,
    probes::CLAIM,
    negation::CLAIM,
    rates::CLAIM,
    sentences::CLAIM,
    warmup::CLAIM,
    length::CLAIM,
    words::CLAIM,
];

impl Claim {
    /// The claim of this id, in capitals or not.
    pub fn of(id: &str) -> Option<&'static Claim> {
        CLAIMS.iter().find(|claim| claim.id.eq_ignore_ascii_case(id))
    }

    /// Runs it.
    ///
    /// # Errors
    /// `Stopped` when the setting's watch says so; errors of models, data and training.
    pub fn run(&self, setting: &Setting) -> Result<Finding> {
        let started = std::time::Instant::now();
        let evidence = (self.run)(setting)?;
        Ok(Finding {
            id: self.id,
            title: self.title,
            hypothesis: self.hypothesis,
            method: self.method,
            rule: self.rule,
            quick: setting.quick,
            data: setting.data_name.clone(),
            evidence,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}
