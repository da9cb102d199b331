//! `vitrine tap --list`: the points of a model that taps can read or change.

use crate::args::TapList;
use crate::output::{self, Align, Outcome, line, note, table};
use serde::Serialize;
use serde_json::{Value, json};
use vitrine_bert::{Checkpoint, Extent, ModelConfig, Point, TappedModel};

/// What `--json` prints.
#[derive(Serialize)]
struct Listed {
    /// The layers, if a model was given.
    layers: Option<usize>,
    taps: Vec<Value>,
}

/// Runs the command.
pub fn run(arguments: &TapList) -> Outcome {
    let (points, config) = match &arguments.model {
        Some(model) => {
            let checkpoint = Checkpoint::read(&model.trained()?, |checkpoint| {
                Ok((checkpoint.points(), checkpoint.config().clone()))
            })?;
            let ((points, config), finished) = checkpoint;
            finished.iter().for_each(note);
            (points, Some(config))
        }
        None => {
            let heads = [Point::Pooler, Point::Logits, Point::MaskedTransform, Point::MaskedLogits];
            ([&Point::of_encoder(1)[..], &heads].concat(), None)
        }
    };
    let layers = config.as_ref().map(|config| config.num_hidden_layers);
    if arguments.json {
        let taps = points.iter().map(|&point| described(point, config.as_ref())).collect();
        return output::json(&Listed { layers, taps });
    }
    // A layer's points are the same in all of them, so one line stands for all layers.
    let in_first = points.iter().filter(|point| point.layer().is_none_or(|layer| layer == 0));
    let rows: Vec<Vec<String>> = in_first
        .map(|&point| {
            let layer = match layers {
                Some(1) => "layer.0.".to_owned(),
                Some(layers) => format!("layer.0-{}.", layers - 1),
                None => "layer.L.".to_owned(),
            };
            let name = point.to_string().replacen("layer.0.", &layer, 1);
            vec![name, shape(point, config.as_ref()), point.meaning().to_owned()]
        })
        .collect();
    line(table(&[("tap", Align::Left), ("shape", Align::Left), ("what", Align::Left)], &rows))?;
    line(
        "T tokens of all texts, S tokens of one text, B texts; H heads, C width, I inner width, K classes, V words, N predicted tokens",
    )
}

/// The letter of an extent, or the model's size.
fn extent(extent: Extent, config: Option<&ModelConfig>) -> Value {
    match config.and_then(|config| TappedModel::size(config, extent)) {
        Some(size) => json!(size),
        None => json!(extent.letter()),
    }
}

fn shape(point: Point, config: Option<&ModelConfig>) -> String {
    let sizes = point.shape().iter().map(|&one| match extent(one, config) {
        Value::String(letter) => letter,
        size => size.to_string(),
    });
    format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
}

fn described(point: Point, config: Option<&ModelConfig>) -> Value {
    let shape: Vec<Value> = point.shape().iter().map(|&one| extent(one, config)).collect();
    json!({ "name": point.to_string(), "shape": shape, "by_text": point.by_sequence(), "meaning": point.meaning() })
}
