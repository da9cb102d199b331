//! [`ModelEngine`]: the engine over real models, by the methods of `vitrine-explain`.

use crate::contract::{
    Ablations, AblationsRequest, Attention, AttentionRequest, Attributions, AttributionsRequest, Bytes,
    HeadNumbers, Input, Lens, LensRequest, Method, Model, Models, Overview, Prediction, Run, Token,
};
use crate::engine::{Answered, Engine, Refusal, Wanted};
use std::cell::{RefCell, RefMut};
use std::time::Instant;
use vitrine_explain::{Blocks, ExplainError, Subject, Text};
use vitrine_tensor::cpu::parallel;

/// Cells of a small map, at most.
const CELLS: usize = 64;
/// Words of the lens for each token and layer.
const WORDS: usize = 5;

/// A model, and what was computed of it last.
struct Viewed {
    name: String,
    subject: Subject,
    lens_head_of: Option<String>,
    last: RefCell<Option<Maps>>,
}

/// All maps of an input. A page requests one of them after each click.
struct Maps {
    input: Input,
    text: Text,
    attention: vitrine_explain::Attention,
    /// How long the forward pass took.
    milliseconds: f64,
}

/// One model or several, looked at.
#[derive(Default)]
pub struct ModelEngine {
    viewed: Vec<Viewed>,
}

impl ModelEngine {
    /// No model yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a model under its name for people; its id is the number of models before it. `lens_head_of` names the model that its head
    /// for the lens was [borrowed](Subject::borrow_head) from, if it was.
    pub fn add(&mut self, name: String, subject: Subject, lens_head_of: Option<String>) {
        self.viewed.push(Viewed { name, subject, lens_head_of, last: RefCell::new(None) });
    }

    fn of(&self, input: &Input) -> Answered<&Viewed> {
        let missing = || Refusal::Request(format!("There is no model {}.", input.model));
        self.viewed.get(input.model).ok_or_else(missing)
    }
}

impl Viewed {
    /// The text as tokens, and what is blocked, whose places are among them.
    fn read(&self, input: &Input) -> Answered<(Text, Blocks)> {
        let text = self.subject.read(&input.text).map_err(|error| refusal(&error))?;
        let size = text.tokens.len();
        if let Some(edge) = input.edges.iter().find(|edge| edge.query.max(edge.key) >= size) {
            let line =
                format!("The edge {} to {} is outside of the text's {size} tokens.", edge.query, edge.key);
            return Err(Refusal::Request(line));
        }
        let edges = input.edges.iter().map(|edge| vitrine_explain::Edge {
            layer: edge.layer,
            head: edge.head,
            query: edge.query,
            key: edge.key,
        });
        Ok((text, Blocks { heads: input.ablate.clone(), edges: edges.collect() }))
    }

    /// All maps of an input, computed unless they are those of the last one.
    fn maps(&self, input: &Input) -> Answered<RefMut<'_, Maps>> {
        // The old maps go first: those of 512 tokens of a large model take 400 MB.
        let maps = match self.last.take().filter(|maps| maps.input == *input) {
            Some(maps) => maps,
            None => {
                let (text, blocks) = self.read(input)?;
                let started = Instant::now();
                let attention = self.subject.attention(&text, &blocks).map_err(|error| refusal(&error))?;
                let milliseconds = 1000.0 * started.elapsed().as_secs_f64();
                Maps { input: input.clone(), text, attention, milliseconds }
            }
        };
        Ok(RefMut::map(self.last.borrow_mut(), |last| last.insert(maps)))
    }
}

/// An error in one line, as the page shows it.
fn refusal(error: &ExplainError) -> Refusal {
    let mut line = error.to_string().replace('\n', " ");
    if let Some(first) = line.get(..1) {
        line = first.to_uppercase() + &line[1..];
    }
    if !line.ends_with('.') {
        line.push('.');
    }
    match () {
        () if error.is_stopped() => Refusal::Overtaken,
        () if error.is_usage() => Refusal::Request(line),
        () => Refusal::Failed(line),
    }
}

impl Engine for ModelEngine {
    fn models(&self) -> Models {
        let model = |(id, viewed): (usize, &Viewed)| {
            let config = viewed.subject.config();
            Model {
                id,
                name: viewed.name.clone(),
                layers: config.num_hidden_layers,
                heads: config.num_attention_heads,
                hidden: config.hidden_size,
                vocabulary: config.vocab_size,
                max_tokens: config.max_length(),
                classes: viewed.subject.classes(),
                masked_lm: viewed.subject.has_masked_lm() && viewed.lens_head_of.is_none(),
                lens_head_of: viewed.lens_head_of.clone(),
            }
        };
        let models = self.viewed.iter().enumerate().map(model).collect();
        let methods = vec![Method::GradientXInput, Method::IntegratedGradients, Method::Occlusion];
        Models { models, methods }
    }

    fn run(&self, request: &Input) -> Answered<Run> {
        let maps = self.of(request)?.maps(request)?;
        let Maps { text, attention, milliseconds, .. } = &*maps;
        let tokens = text.tokens.iter().zip(text.utf16()).map(|(token, (start, end))| Token {
            text: token.text.clone(),
            id: token.id,
            start,
            end,
            special: token.special,
            continues: token.continues,
        });
        let prediction = attention.prediction.as_ref().map(|said| Prediction {
            logits: said.logits.clone(),
            probabilities: said.probabilities.clone(),
        });
        let cells = CELLS.min(attention.size());
        let overview = Overview { cells, data: Bytes::of_probabilities(&attention.overview(CELLS)) };
        Ok(Run {
            tokens: tokens.collect(),
            truncated: text.truncated,
            prediction,
            overview,
            heads: numbers(attention),
            milliseconds: *milliseconds,
        })
    }

    fn attention(&self, request: &AttentionRequest) -> Answered<Attention> {
        let maps = self.of(&request.input)?.maps(&request.input)?;
        let attention = &maps.attention;
        if request.layer >= attention.layers() || request.head >= attention.heads() {
            return Err(Refusal::Request(format!("There is no head {}.{}.", request.layer, request.head)));
        }
        let map = attention.map(request.layer, request.head);
        Ok(Attention { size: attention.size(), probabilities: Bytes::of_floats(map) })
    }

    fn attributions(&self, request: &AttributionsRequest, wanted: &Wanted) -> Answered<Attributions> {
        let viewed = self.of(&request.input)?;
        let (text, blocks) = viewed.read(&request.input)?;
        let mut asked = vitrine_explain::Wanted::new(request.method, request.class);
        if let Some(chosen) = request.baseline {
            asked.baseline = chosen;
        }
        let watch = |_, _| wanted.check().is_ok();
        let found =
            viewed.subject.attribute(&text, &blocks, &asked, &watch).map_err(|error| refusal(&error))?;
        Ok(Attributions {
            class: found.class,
            values: found.values.iter().map(|&value| value as f32).collect(),
            total: found.total,
            gap: found.gap,
            steps: found.steps,
            converged: found.converged,
        })
    }

    fn lens(&self, request: &LensRequest, wanted: &Wanted) -> Answered<Lens> {
        wanted.check()?;
        let viewed = self.of(&request.input)?;
        let (text, blocks) = viewed.read(&request.input)?;
        let size = text.tokens.len();
        let rows = request.from..request.from.saturating_add(request.count);
        if rows.end > size {
            let (from, last) = (rows.start, rows.end - 1);
            let line = format!("The tokens {from} to {last} are not all among the text's {size}.");
            return Err(Refusal::Request(line));
        }
        let found = viewed.subject.lens(&text, &blocks, rows, WORDS).map_err(|error| refusal(&error))?;
        Ok(match found {
            vitrine_explain::Lens::Unavailable { unavailable } => Lens::Unavailable { unavailable },
            vitrine_explain::Lens::Words { from, layers } => {
                let words = |guesses: Vec<vitrine_explain::Guess>| {
                    guesses.into_iter().map(|guess| (guess.word, guess.probability)).collect()
                };
                let layer = |rows: Vec<Vec<_>>| rows.into_iter().map(words).collect();
                Lens::Words { from, layers: layers.into_iter().map(layer).collect() }
            }
        })
    }

    fn ablations(&self, request: &AblationsRequest, wanted: &Wanted) -> Answered<Ablations> {
        let viewed = self.of(&request.input)?;
        let (text, blocks) = viewed.read(&request.input)?;
        let watch = |_, _| wanted.check().is_ok();
        let found = viewed.subject.ablate_heads(&text, &blocks, request.class, &watch);
        let found = found.map_err(|error| refusal(&error))?;
        Ok(Ablations { class: found.class, logit: found.logit, changes: found.changes })
    }
}

/// The numbers of all heads. A logarithm for each of `layers * heads * S * S` probabilities, so on all threads.
fn numbers(attention: &vitrine_explain::Attention) -> Vec<Vec<HeadNumbers>> {
    let (layers, heads) = (attention.layers(), attention.heads());
    let all = parallel::map(0..layers * heads, |_, place| {
        let found = attention.numbers(place / heads, place % heads);
        HeadNumbers {
            entropy: found.entropy,
            cls: found.cls,
            sep: found.sep,
            previous: found.previous,
            next: found.next,
            same: found.same,
        }
    });
    all.chunks(heads).map(<[_]>::to_vec).collect()
}
