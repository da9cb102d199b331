//! An engine of known answers.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vitrine_explore::contract::{
    Ablations, AblationsRequest, Attention, AttentionRequest, Attributions, AttributionsRequest, Bytes,
    Input, Lens, LensRequest, Method, Model, Models, Overview, Run, Token,
};
use vitrine_explore::engine::{Answered, Engine, Refusal, Wanted};

/// A token for each word, between two special ones. What a text begins with decides what happens: "fail", "panic", or "slow", which
/// computes for 0.3 s; attributions of "slow" compute until nobody wants them.
#[derive(Clone, Default)]
pub struct Known {
    /// Runs that began.
    pub runs: Arc<AtomicUsize>,
    /// Computations that ended because nobody wanted them.
    pub overtaken: Arc<AtomicUsize>,
}

/// The body of a run.
pub fn input(text: &str) -> Value {
    json!({"model": 0, "text": text, "ablate": [], "edges": []})
}

fn tokens(input: &Input) -> Answered<Vec<Token>> {
    let words: Vec<&str> = input.text.split_whitespace().collect();
    let all = ["[CLS]"].into_iter().chain(words).chain(["[SEP]"]);
    let token = |text: &str| Token {
        text: text.to_owned(),
        id: 0,
        start: 0,
        end: 0,
        special: text.starts_with('['),
        continues: false,
    };
    let tokens: Vec<Token> = all.map(token).collect();
    match input.edges.iter().find(|edge| edge.query.max(edge.key) >= tokens.len()) {
        Some(edge) => Err(Refusal::Request(format!("No edge {} to {}.", edge.query, edge.key))),
        None => Ok(tokens),
    }
}

impl Engine for Known {
    fn models(&self) -> Models {
        let classes = Some(vec!["negative".to_owned(), "positive".to_owned()]);
        let model = |id, name: &str, classes| Model {
            id,
            name: name.to_owned(),
            layers: 2,
            heads: 3,
            hidden: 6,
            vocabulary: 10,
            max_tokens: 512,
            classes,
            masked_lm: false,
            lens_head_of: None,
        };
        let models = vec![model(0, "known", classes), model(1, "bare", None)];
        Models { models, methods: vec![Method::GradientXInput, Method::IntegratedGradients] }
    }

    fn run(&self, request: &Input) -> Answered<Run> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        match request.text.split(' ').next() {
            Some("fail") => return Err(Refusal::Failed("It failed.".into())),
            Some("panic") => panic!("as wanted by a test"),
            Some("slow") => std::thread::sleep(Duration::from_millis(300)),
            _ => {}
        }
        let tokens = tokens(request)?;
        let cells = tokens.len().min(64);
        let data = Bytes(vec![7; 6 * cells * cells]);
        let overview = Overview { cells, data };
        Ok(Run { tokens, truncated: 0, prediction: None, overview, heads: Vec::new(), milliseconds: 0.0 })
    }

    fn attention(&self, request: &AttentionRequest) -> Answered<Attention> {
        // Much to send, for a reader that takes nothing.
        let size = if request.input.text.starts_with("large") { 1500 } else { tokens(&request.input)?.len() };
        Ok(Attention { size, probabilities: Bytes::of_floats(&vec![0.5; size * size]) })
    }

    fn attributions(&self, request: &AttributionsRequest, wanted: &Wanted) -> Answered<Attributions> {
        if request.input.text.starts_with("slow") {
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(20) {
                wanted.check().inspect_err(|_| {
                    self.overtaken.fetch_add(1, Ordering::SeqCst);
                })?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let values = vec![0.0; tokens(&request.input)?.len()];
        let class = request.class;
        Ok(Attributions { class, values, total: None, gap: None, steps: None, converged: true })
    }

    fn lens(&self, _: &LensRequest, _: &Wanted) -> Answered<Lens> {
        Ok(Lens::Unavailable { unavailable: "There is none.".into() })
    }

    fn ablations(&self, request: &AblationsRequest, _: &Wanted) -> Answered<Ablations> {
        Ok(Ablations { class: request.class, logit: 0.0, changes: vec![vec![0.0; 3]; 2] })
    }
}
