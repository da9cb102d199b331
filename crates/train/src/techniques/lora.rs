//! [`Lora`]: which matrices get a low-rank adapter, and the adapter as `peft` reads it.

use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use vitrine_bert::{ModelConfig, Place};
use vitrine_nn::{ADAPTER_PREFIX, ParameterStore, SavedWeights};
use vitrine_tensor::{DType, Tensor};

/// LoRA (Hu et al., arXiv 2106.09685) on matrices of the encoder's layers; everything else but the head is frozen. The names of
/// the settings are those of `peft.LoraConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// `r`: rows of A.
    #[serde(rename = "lora_rank")]
    pub rank: usize,
    /// `lora_alpha`: what the adapters add is multiplied by `alpha / r`.
    #[serde(rename = "lora_alpha")]
    pub alpha: f64,
    /// `target_modules`: a linear layer is adapted whose name is one of these, or ends with a dot and one of these.
    #[serde(rename = "lora_targets")]
    pub targets: Vec<String>,
}

/// `adapter_config.json`, by `peft/tuners/lora/config.py`.
#[derive(Serialize)]
struct AdapterConfig<'a> {
    peft_type: &'static str,
    task_type: &'static str,
    base_model_name_or_path: Option<&'a str>,
    r: usize,
    lora_alpha: f64,
    lora_dropout: f64,
    target_modules: Vec<String>,
    modules_to_save: [&'static str; 2],
    bias: &'static str,
    fan_in_fan_out: bool,
    inference_mode: bool,
}

/// An adapter alone: the contents of two files.
pub struct SavedAdapter {
    /// `adapter_config.json`.
    pub config: String,
    /// `adapter_model.safetensors`.
    pub weights: SavedWeights,
}

impl Lora {
    /// Freezes everything but the head, and puts adapters beside the chosen matrices.
    ///
    /// # Errors
    /// `Technique` for a target that is no linear layer of the encoder, or a rank above a matrix's smaller side.
    pub fn attach(&self, parameters: &mut ParameterStore, config: &ModelConfig, seed: u64) -> Result<()> {
        let mut found = vec![false; self.targets.len()];
        let (mut chosen, mut modules) = (Vec::new(), Vec::<String>::new());
        for (id, parameter) in parameters.iter_mut() {
            let mut in_head = false;
            for (place, part) in parameter.parts.iter().enumerate() {
                let at = config.family.place_of(&part.key);
                in_head |= at == Place::Head;
                let Place::Layer(_) = at else { continue };
                let Some(module) = part.key.strip_suffix(".weight").filter(|_| parameter.value.rank() == 2)
                else {
                    continue;
                };
                let short =
                    module.split('.').filter(|name| name.parse::<usize>().is_err()).collect::<Vec<_>>();
                let short = short[short.len().saturating_sub(2)..].join(".");
                if !modules.contains(&short) {
                    modules.push(short);
                }
                let mut target = false;
                for (name, found) in self.targets.iter().zip(&mut found) {
                    if module == name
                        || module.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
                    {
                        (*found, target) = (true, true);
                    }
                }
                if target {
                    let side = part.rows.min(parameter.value.dims()[1]);
                    if self.rank > side {
                        let why = format!("{} is above {side}, the smaller side of {module}", self.rank);
                        return Err(TrainError::Technique { option: "--lora-rank", why });
                    }
                    chosen.push((id, place));
                }
            }
            parameter.trainable = in_head;
        }
        if let Some((name, _)) = self.targets.iter().zip(&found).find(|(_, found)| !**found) {
            let why = format!("`{name}` is no linear layer of the encoder; there are {}", modules.join(", "));
            return Err(TrainError::Technique { option: "--lora-targets", why });
        }
        for (id, part) in chosen {
            parameters.adapt(id, part, self.rank, self.alpha / self.rank as f64, seed)?;
        }
        Ok(())
    }

    /// The adapters and the head, before they are merged: what `peft.PeftModel.from_pretrained` puts onto the base model, whose
    /// name or folder may be given.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn export(
        &self,
        parameters: &ParameterStore,
        config: &ModelConfig,
        base_model: Option<&str>,
    ) -> Result<SavedAdapter> {
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let mut target_modules = Vec::new();
        for (key, value) in parameters.parts()? {
            if let Some(module) = key.strip_prefix(ADAPTER_PREFIX) {
                target_modules.extend(module.strip_suffix(".lora_A.weight").map(str::to_owned));
                tensors.push((key.to_owned(), value));
            } else if config.family.place_of(key) == Place::Head {
                tensors.push((format!("{ADAPTER_PREFIX}{key}"), value));
            }
        }
        let json = AdapterConfig {
            peft_type: "LORA",
            task_type: "SEQ_CLS",
            base_model_name_or_path: base_model,
            r: self.rank,
            lora_alpha: self.alpha,
            lora_dropout: 0.0,
            target_modules,
            modules_to_save: config.family.head_modules(),
            bias: "none",
            fan_in_fan_out: false,
            inference_mode: true,
        };
        let config = serde_json::to_string_pretty(&json).unwrap_or_default();
        Ok(SavedAdapter { config, weights: SavedWeights::of(tensors, DType::F32)?.fetched()? })
    }
}
