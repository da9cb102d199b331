//! [`record`]: the answers that a saved page holds.

use crate::contract::{
    AblationsRequest, Answer, AttentionRequest, AttributionsRequest, Baseline, Input, LensRequest, Method,
    Model, Models, Run, Snapshot,
};
use crate::engine::{Answered, Engine, MOST_LENS_TOKENS, Refusal, Request, Wanted};
use serde::Serialize;
use serde_json::Value;

/// Bytes of maps, written in base64. A browser opens a file of this size at once.
const MAPS: usize = 24 << 20;
/// Tokens up to which every method and baseline is recorded: occlusion costs a forward pass of them for each token.
const SHORT: usize = 128;
/// Tokens in all forward passes up to which the effect of every head is recorded.
const ABLATED_TOKENS: usize = 16_384;
/// Pages of the lens.
const LENS_PAGES: usize = 4;

/// A saved page's answers, and how much there is.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What the page reads.
    pub snapshot: Snapshot,
    /// What each model says of the text.
    pub runs: Vec<Run>,
    /// The maps of heads that it holds.
    pub maps: usize,
    /// The heads of all models.
    pub heads: usize,
}

/// Records what a page requests that opens with this text and nothing blocked, and what its reader may click: the maps of all heads
/// if they fit into 24 MB, else those of the first; of each model with classes, attributions of the predicted class; the lens. Of
/// texts of at most 128 tokens, all methods and baselines, and of all classes; the effect of each head where that is quick.
///
/// # Errors
/// Those of the engine; `Request` for a text that no model takes.
pub fn record(engine: &dyn Engine, text: &str) -> Answered<Recorded> {
    let models = engine.models();
    let mut recorder = Recorder { engine, answers: Vec::new(), room: MAPS, maps: 0 };
    recorder.keep("/api/models", Value::Null, &models)?;
    let input = |model| Input { model, text: text.to_owned(), ablate: Vec::new(), edges: Vec::new() };
    let inputs: Vec<Input> = (0..models.models.len()).map(input).collect();
    let mut runs = Vec::new();
    for input in &inputs {
        let request = Request::Run(input.clone());
        request.check(&models)?;
        let run = recorder.engine.run(input)?;
        recorder.keep(request.path(), input, &run)?;
        runs.push(run);
    }
    let predicted =
        runs.iter().find_map(|run| run.prediction.as_ref()).map(|said| likeliest(&said.probabilities));
    for ((model, input), run) in models.models.iter().zip(&inputs).zip(&runs) {
        recorder.maps(model, input, run.tokens.len())?;
        recorder.classes(&models, model, input, (run.tokens.len(), predicted))?;
        recorder.lens(input, run.tokens.len())?;
    }
    let heads = models.models.iter().map(|model| model.layers * model.heads).sum();
    let Recorder { answers, maps, .. } = recorder;
    Ok(Recorded { snapshot: Snapshot::of_text(text, answers), runs, maps, heads })
}

/// The class with the largest probability; the first of equal ones, as the page chooses.
fn likeliest(probabilities: &[f32]) -> usize {
    let mut best = 0;
    for (class, probability) in probabilities.iter().enumerate() {
        if *probability > probabilities[best] {
            best = class;
        }
    }
    best
}

struct Recorder<'a> {
    engine: &'a dyn Engine,
    answers: Vec<Answer>,
    /// Bytes that maps may still take.
    room: usize,
    maps: usize,
}

impl Recorder<'_> {
    fn keep(&mut self, path: &str, request: impl Serialize, response: impl Serialize) -> Answered<()> {
        let answer = Answer::new(path, request, response);
        self.answers.push(answer.map_err(|error| Refusal::Failed(format!("internal: no JSON: {error}")))?);
        Ok(())
    }

    /// The heads' maps, in order, while there is room.
    fn maps(&mut self, model: &Model, input: &Input, size: usize) -> Answered<()> {
        let bytes = (size * size * 4).div_ceil(3) * 4;
        for layer in 0..model.layers {
            for head in 0..model.heads {
                if self.room < bytes {
                    return Ok(());
                }
                let request = AttentionRequest { input: input.clone(), layer, head };
                let map = self.engine.attention(&request)?;
                self.keep("/api/attention", request, map)?;
                self.room -= bytes;
                self.maps += 1;
            }
        }
        Ok(())
    }

    /// What explains the logits of classes.
    fn classes(
        &mut self,
        models: &Models,
        model: &Model,
        input: &Input,
        (size, predicted): (usize, Option<usize>),
    ) -> Answered<()> {
        let (Some(classes), Some(predicted)) = (&model.classes, predicted) else { return Ok(()) };
        let wanted = Wanted::while_true(&|| true);
        let all = size * classes.len() <= SHORT;
        for class in (0..classes.len()).filter(|&class| class == predicted || all) {
            for &method in &models.methods {
                for baseline in baselines(method, size) {
                    let request = AttributionsRequest { input: input.clone(), method, class, baseline };
                    let values = self.engine.attributions(&request, &wanted)?;
                    self.keep("/api/attributions", request, values)?;
                }
            }
            if model.layers * model.heads * size <= ABLATED_TOKENS {
                let request = AblationsRequest { input: input.clone(), class };
                let changes = self.engine.ablations(&request, &wanted)?;
                self.keep("/api/ablations", request, changes)?;
            }
        }
        Ok(())
    }

    fn lens(&mut self, input: &Input, size: usize) -> Answered<()> {
        for from in (0..size).step_by(MOST_LENS_TOKENS).take(LENS_PAGES) {
            let count = MOST_LENS_TOKENS.min(size - from);
            let request = LensRequest { input: input.clone(), from, count };
            let words = self.engine.lens(&request, &Wanted::while_true(&|| true))?;
            self.keep("/api/lens", request, words)?;
        }
        Ok(())
    }
}

/// The baselines that are recorded of a method, for a text of so many tokens.
fn baselines(method: Method, size: usize) -> Vec<Option<Baseline>> {
    match method {
        Method::GradientXInput => vec![None],
        _ if size <= SHORT => vec![Some(Baseline::Pad), Some(Baseline::Mask), Some(Baseline::Zero)],
        Method::IntegratedGradients => vec![Some(Baseline::Pad)],
        Method::Occlusion => Vec::new(),
    }
}
