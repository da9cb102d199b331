//! Which parameters are trained, how fast, and which of them decay: freezing, layer-wise learning rates, and the groups that
//! result.

use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use vitrine_autograd::Gradients;
use vitrine_bert::{Family, ModelConfig, Place};
use vitrine_nn::{Parameter, ParameterStore};
use vitrine_tensor::ops::adamw::GradNorm;

/// Parts of a model that are not trained, such as `embeddings,0-5`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Freeze {
    embeddings: bool,
    /// First and last layer of each range.
    layers: Vec<(usize, usize)>,
    all_layers: bool,
}

impl FromStr for Freeze {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut freeze = Freeze::default();
        for part in text.split(',').map(str::trim) {
            let number = |text: &str| text.trim().parse::<usize>().ok();
            let range = match part.split_once('-') {
                Some((first, last)) => number(first).zip(number(last)),
                None => number(part).map(|layer| (layer, layer)),
            };
            match (part, range) {
                ("embeddings", _) => freeze.embeddings = true,
                ("encoder", _) => (freeze.embeddings, freeze.all_layers) = (true, true),
                (_, Some((first, last))) if first <= last => freeze.layers.push((first, last)),
                (_, Some(_)) => return Err(format!("{part}: the first layer comes after the last")),
                _ => {
                    return Err(format!(
                        "`{part}` is not embeddings, encoder, a layer from 0 or a range such as 0-5"
                    ));
                }
            }
        }
        Ok(freeze)
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = match (self.all_layers, self.embeddings) {
            (true, _) => Some("encoder".to_owned()),
            (_, true) => Some("embeddings".to_owned()),
            _ => None,
        };
        let ranges = self.layers.iter().map(|&(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        f.write_str(&names.into_iter().chain(ranges).collect::<Vec<_>>().join(","))
    }
}

impl From<Freeze> for String {
    fn from(freeze: Freeze) -> String {
        freeze.to_string()
    }
}

impl TryFrom<String> for Freeze {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl Freeze {
    fn holds(&self, place: Place) -> bool {
        match place {
            Place::Embeddings => self.embeddings,
            Place::Layer(layer) => {
                self.all_layers || self.layers.iter().any(|&(first, last)| (first..=last).contains(&layer))
            }
            Place::Head => false,
        }
    }

    /// Makes these parameters untrainable: a step then neither computes nor keeps what only their gradients take.
    ///
    /// # Errors
    /// `Technique` for a layer that the model does not have.
    pub fn apply(&self, parameters: &mut ParameterStore, config: &ModelConfig) -> Result<()> {
        let layers = config.num_hidden_layers;
        if let Some((_, last)) = self.layers.iter().find(|(_, last)| *last >= layers) {
            let why = format!("there is no layer {last}; the model has layers 0 to {}", layers - 1);
            return Err(TrainError::Technique { option: "--freeze", why });
        }
        for (_, parameter) in parameters.iter_mut() {
            if self.holds(place_of(parameter, config.family)) {
                parameter.trainable = false;
            }
        }
        Ok(())
    }
}

/// Where a parameter is.
pub fn place_of(parameter: &Parameter, family: &Family) -> Place {
    parameter.parts.first().map_or(Place::Head, |part| family.place_of(&part.key))
}

/// Layer-wise learning-rate decay (ULMFiT, arXiv 1801.06146; ELECTRA, arXiv 2003.10555): of L layers, the head has the factor 1,
/// layer i (from 0) `decay^(L - i)`, the embeddings `decay^(L + 1)`.
pub fn layer_decay(parameters: &mut ParameterStore, config: &ModelConfig, decay: f64) {
    let layers = config.num_hidden_layers;
    for (_, parameter) in parameters.iter_mut() {
        let exponent = match place_of(parameter, config.family) {
            Place::Embeddings => layers + 1,
            Place::Layer(index) => layers - index,
            Place::Head => 0,
        };
        parameter.lr_factor = decay.powi(exponent as i32);
    }
}

/// Starts the top layers and the first matrix of the head (BERT's pooler) anew (Zhang et al., "Revisiting Few-sample BERT
/// Fine-tuning", arXiv 2006.05987): matrices from N(0, initializer_range^2), biases 0, LayerNorm 1 and 0, by the seed.
///
/// # Errors
/// `Technique` for more layers than there are; errors of the memory.
pub fn reinitialise(
    parameters: &mut ParameterStore,
    config: &ModelConfig,
    layers: usize,
    seed: u64,
) -> Result<()> {
    let there = config.num_hidden_layers;
    if layers > there {
        let why = format!("the model has {there} layers, not {layers}");
        return Err(TrainError::Technique { option: "--reinit-layers", why });
    }
    let pooler = config.family.head_modules()[0];
    for (_, parameter) in parameters.iter_mut() {
        let chosen = match place_of(parameter, config.family) {
            Place::Layer(index) => index >= there - layers,
            Place::Head => parameter.parts.iter().any(|part| part.key.contains(pooler)),
            Place::Embeddings => false,
        };
        if chosen && layers > 0 {
            parameter.reinitialise(seed, config.initializer_range)?;
        }
    }
    Ok(())
}

/// A number of tensors and of their elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Tensors.
    pub tensors: usize,
    /// Elements of them.
    pub parameters: usize,
}

impl Count {
    fn add(&mut self, parameter: &Parameter) {
        self.tensors += 1;
        self.parameters += parameter.value.numel();
    }
}

/// The parameters of one part of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlaceGroup {
    /// Which part.
    pub place: String,
    /// Its learning rate as a multiple of the run's.
    pub lr_factor: f64,
    /// Its parameters.
    pub parameters: usize,
    /// Those of them that are trained.
    pub trained: usize,
}

/// What is trained, what decays, and at which learning rates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Groups {
    /// All parameters.
    pub all: Count,
    /// Those that are trained.
    pub trained: Count,
    /// Of these, those with weight decay: matrices.
    pub decay: Count,
    /// Of these, those without: vectors, that is biases and LayerNorm.
    pub no_decay: Count,
    /// From below.
    pub places: Vec<PlaceGroup>,
}

impl Groups {
    /// The groups of a model.
    pub fn of(parameters: &ParameterStore, config: &ModelConfig) -> Self {
        let [mut all, mut trained, mut decay, mut no_decay] = [Count::default(); 4];
        let mut places: BTreeMap<Place, PlaceGroup> = BTreeMap::new();
        for (_, parameter) in parameters.iter() {
            let (place, lr_factor) = (place_of(parameter, config.family), parameter.lr_factor);
            let name = place.to_string();
            let group = places.entry(place).or_insert(PlaceGroup {
                place: name,
                lr_factor,
                parameters: 0,
                trained: 0,
            });
            all.add(parameter);
            group.parameters += parameter.value.numel();
            if parameter.trainable {
                trained.add(parameter);
                group.trained += parameter.value.numel();
                if parameter.decay { &mut decay } else { &mut no_decay }.add(parameter);
            }
        }
        Groups { all, trained, decay, no_decay, places: places.into_values().collect() }
    }
}

/// The norm of the gradient of each part of a model that is trained, from below: before clipping. One pass over the gradients;
/// on a CUDA device it waits.
///
/// # Errors
/// Tensor errors.
pub fn gradient_norms_by_layer(
    parameters: &ParameterStore,
    config: &ModelConfig,
    gradients: &Gradients,
) -> Result<Vec<(Place, f64)>> {
    let mut by_place: BTreeMap<Place, Vec<&vitrine_tensor::Tensor>> = BTreeMap::new();
    for (id, gradient) in gradients.parameters() {
        by_place.entry(place_of(parameters.get(id), config.family)).or_default().push(gradient);
    }
    by_place.into_iter().map(|(place, tensors)| Ok((place, GradNorm::of(&tensors, None)?.norm()?))).collect()
}
