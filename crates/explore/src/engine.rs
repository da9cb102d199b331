//! [`Engine`]: what computes the answers. [`Request`] is a request that was read and checked.

use crate::contract::{
    Ablations, AblationsRequest, Attention, AttentionRequest, Attributions, AttributionsRequest, Input, Lens,
    LensRequest, Method, Model, Models, Run,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most bytes of a text. A model reads its first tokens only; the rest is counted.
pub const MOST_TEXT: usize = 200_000;
/// The most blocked edges of a request.
pub const MOST_EDGES: usize = 1000;
/// The most tokens of a lens: each costs a product with the vocabulary in every layer.
pub const MOST_LENS_TOKENS: usize = 32;

/// Why there is no answer. Each has one line that says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such path.
    #[error("There is no {0}.")]
    Path(String),
    /// The body is not such a request.
    #[error("The request cannot be read: {0}.")]
    Unreadable(String),
    /// The request is for something that is not there.
    #[error("{0}")]
    Request(String),
    /// The computation failed.
    #[error("{0}")]
    Failed(String),
    /// Nobody waits for the answer any more.
    #[error("The request was overtaken by another.")]
    Overtaken,
}

/// An answer, or why there is none.
pub type Answered<T> = Result<T, Refusal>;

/// Whether somebody still waits for an answer. Long computations look at it between their steps.
pub struct Wanted<'a>(&'a dyn Fn() -> bool);

impl<'a> Wanted<'a> {
    /// Waited for as long as the function says so.
    pub fn while_true(function: &'a dyn Fn() -> bool) -> Self {
        Wanted(function)
    }

    /// Goes on, or ends the computation.
    ///
    /// # Errors
    /// `Overtaken` when nobody waits.
    pub fn check(&self) -> Answered<()> {
        if self.0() { Ok(()) } else { Err(Refusal::Overtaken) }
    }
}

/// What computes the answers of the [contract](crate::contract). A server calls it from one thread, and only for requests that passed
/// [`Request::check`]. Where a long computation looks at whether it is [`Wanted`], the server may call for a quick one in between.
pub trait Engine {
    /// The models and methods that there are.
    fn models(&self) -> Models;

    /// A text in a model.
    ///
    /// # Errors
    /// `Request` for edges outside of the text's tokens; `Failed`. The same for all others, and `Overtaken`.
    fn run(&self, request: &Input) -> Answered<Run>;

    /// The map of one head.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn attention(&self, request: &AttentionRequest) -> Answered<Attention>;

    /// What each token gives to a class's logit.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn attributions(&self, request: &AttributionsRequest, wanted: &Wanted) -> Answered<Attributions>;

    /// The words that each layer's state is closest to.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn lens(&self, request: &LensRequest, wanted: &Wanted) -> Answered<Lens>;

    /// What blocking each head would change.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn ablations(&self, request: &AblationsRequest, wanted: &Wanted) -> Answered<Ablations>;
}

/// A request for something that has to be computed.
#[derive(Clone, Debug)]
pub enum Request {
    /// `POST /api/run`.
    Run(Input),
    /// `POST /api/attention`.
    Attention(AttentionRequest),
    /// `POST /api/attributions`.
    Attributions(AttributionsRequest),
    /// `POST /api/lens`.
    Lens(LensRequest),
    /// `POST /api/ablations`.
    Ablations(AblationsRequest),
}

impl Request {
    /// The paths of requests, all of `POST`.
    pub const PATHS: [&str; 5] =
        ["/api/run", "/api/attention", "/api/attributions", "/api/lens", "/api/ablations"];

    /// Reads a body that was sent to a path.
    ///
    /// # Errors
    /// `Path` and `Unreadable`.
    pub fn read(path: &str, body: &[u8]) -> Answered<Request> {
        fn typed<T: DeserializeOwned>(body: &[u8]) -> Answered<T> {
            serde_json::from_slice(body).map_err(|error| Refusal::Unreadable(error.to_string()))
        }
        match path {
            "/api/run" => typed(body).map(Request::Run),
            "/api/attention" => typed(body).map(Request::Attention),
            "/api/attributions" => typed(body).map(Request::Attributions),
            "/api/lens" => typed(body).map(Request::Lens),
            "/api/ablations" => typed(body).map(Request::Ablations),
            _ => Err(Refusal::Path(path.to_owned())),
        }
    }

    /// Where it is sent.
    pub fn path(&self) -> &'static str {
        match self {
            Request::Run(_) => "/api/run",
            Request::Attention(_) => "/api/attention",
            Request::Attributions(_) => "/api/attributions",
            Request::Lens(_) => "/api/lens",
            Request::Ablations(_) => "/api/ablations",
        }
    }

    /// Whether it takes a forward pass, not many.
    pub fn is_quick(&self) -> bool {
        match self {
            Request::Run(_) | Request::Attention(_) => true,
            Request::Attributions(_) | Request::Lens(_) | Request::Ablations(_) => false,
        }
    }

    /// What is run.
    pub fn input(&self) -> &Input {
        match self {
            Request::Run(input) => input,
            Request::Attention(request) => &request.input,
            Request::Attributions(request) => &request.input,
            Request::Lens(request) => &request.input,
            Request::Ablations(request) => &request.input,
        }
    }

    /// Whether these models can answer it, as far as that is known before the text is read as tokens.
    ///
    /// # Errors
    /// `Request`.
    pub fn check(&self, models: &Models) -> Answered<()> {
        let model = check_input(self.input(), models)?;
        match self {
            Request::Attention(request) => check_head(model, request.layer, request.head),
            Request::Attributions(request) => {
                check_class(model, request.class)?;
                if !models.methods.contains(&request.method) {
                    return refuse(format!("This server has no method {}.", name_of(request.method)));
                }
                match (request.method, request.baseline) {
                    (Method::GradientXInput, Some(_)) => {
                        refuse("gradient_x_input has no baseline; leave it out, or send null.".into())
                    }
                    (Method::IntegratedGradients | Method::Occlusion, None) => {
                        refuse(format!("{} takes a baseline: pad, mask or zero.", name_of(request.method)))
                    }
                    _ => Ok(()),
                }
            }
            Request::Lens(request) if !(1..=MOST_LENS_TOKENS).contains(&request.count) => refuse(format!(
                "A lens looks at 1 to {MOST_LENS_TOKENS} tokens at a time, not at {}.",
                request.count
            )),
            Request::Run(_) | Request::Lens(_) => Ok(()),
            Request::Ablations(request) => check_class(model, request.class),
        }
    }

    /// The answer as JSON.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn answer(&self, engine: &dyn Engine, wanted: &Wanted) -> Answered<Vec<u8>> {
        match self {
            Request::Run(request) => to_json(&engine.run(request)?),
            Request::Attention(request) => to_json(&engine.attention(request)?),
            Request::Attributions(request) => to_json(&engine.attributions(request, wanted)?),
            Request::Lens(request) => to_json(&engine.lens(request, wanted)?),
            Request::Ablations(request) => to_json(&engine.ablations(request, wanted)?),
        }
    }
}

/// An answer's bytes.
pub(crate) fn to_json(answer: &impl Serialize) -> Answered<Vec<u8>> {
    serde_json::to_vec(answer).map_err(|error| Refusal::Failed(format!("internal: no JSON: {error}")))
}

fn refuse<T>(line: String) -> Answered<T> {
    Err(Refusal::Request(line))
}

fn name_of(method: Method) -> &'static str {
    match method {
        Method::GradientXInput => "gradient_x_input",
        Method::IntegratedGradients => "integrated_gradients",
        Method::Occlusion => "occlusion",
    }
}

fn check_input<'a>(input: &Input, models: &'a Models) -> Answered<&'a Model> {
    let Some(model) = models.models.get(input.model) else {
        let count = models.models.len();
        return refuse(format!("There is no model {}; this server has {count}, from 0 on.", input.model));
    };
    if input.text.trim().is_empty() {
        return refuse("The text is empty. Type a sentence.".into());
    }
    if input.text.len() > MOST_TEXT {
        let bytes = input.text.len();
        return refuse(format!("The text has {bytes} bytes, and at most {MOST_TEXT} are taken. Shorten it."));
    }
    let most = model.layers * model.heads;
    if input.ablate.len() > most {
        return refuse(format!("{} heads are blocked, and {} has {most}.", input.ablate.len(), model.name));
    }
    if input.edges.len() > MOST_EDGES {
        let count = input.edges.len();
        return refuse(format!("{count} edges are blocked, and at most {MOST_EDGES} are taken."));
    }
    input.ablate.iter().try_for_each(|&(layer, head)| check_head(model, layer, head))?;
    let of_edge =
        |edge: &crate::contract::Edge| check_head(model, edge.layer.unwrap_or(0), edge.head.unwrap_or(0));
    input.edges.iter().try_for_each(of_edge)?;
    Ok(model)
}

fn check_head(model: &Model, layer: usize, head: usize) -> Answered<()> {
    let Model { name, layers, heads, .. } = model;
    if layer < *layers && head < *heads {
        return Ok(());
    }
    refuse(format!("There is no head {layer}.{head} in {name}: {layers} layers of {heads} heads, from 0 on."))
}

fn check_class(model: &Model, class: usize) -> Answered<()> {
    match &model.classes {
        None => refuse(format!("{} has no classifier, so there is no logit to explain.", model.name)),
        Some(classes) if class >= classes.len() => {
            let count = classes.len();
            refuse(format!("There is no class {class} in {}: it has {count}, from 0 on.", model.name))
        }
        Some(_) => Ok(()),
    }
}
