//! The audit finds what was made idle, and nothing else.

use vitrine_autograd::Tape;
use vitrine_bert::{Audited, Finding, MaskedLm, ModelConfig, SequenceClassifier, TokenBatch, audit};
use vitrine_nn::ParameterStore;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 23,
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        max_position_embeddings: 40,
        initializer_range: 0.3,
        ..ModelConfig::default()
    }
}

/// Two texts of 5 and 3 tokens, 6 different ids in all.
fn batch() -> TokenBatch {
    TokenBatch::new([&[2, 7, 9, 7, 3][..], &[2, 11, 12][..]], Some(&[0, 1]), &config()).unwrap()
}

fn audited(model: &SequenceClassifier) -> Vec<Audited> {
    let tape = Tape::recording();
    let loss = model.loss(&tape, &batch()).unwrap().id();
    let gradients = tape.backward(loss, &[]).unwrap();
    audit(model.config(), model.parameters(), &gradients, &batch()).unwrap()
}

fn of<'a>(all: &'a [Audited], end: &str) -> &'a Audited {
    let mut found = all.iter().filter(|one| one.key.ends_with(end));
    let one = found.next().unwrap_or_else(|| panic!("no {end}"));
    assert!(found.next().is_none(), "several {end}");
    one
}

/// Every key of the store, in order.
fn keys(parameters: &ParameterStore) -> Vec<String> {
    let parts = parameters.iter().flat_map(|(_, parameter)| parameter.parts.clone());
    parts.map(|part| part.key).collect()
}

#[test]
fn rows_of_words_that_are_not_there_and_biases_of_keys_are_idle() {
    let model = SequenceClassifier::random(config(), 2).unwrap();
    let all = audited(&model);
    assert_eq!(all.iter().map(|one| one.key.clone()).collect::<Vec<_>>(), keys(model.parameters()));
    let idle = |table: &str| {
        let one = of(&all, table);
        (one.finding, one.idle_rows, one.reason.as_deref().map(|reason| reason.ends_with("does not have")))
    };
    assert_eq!(idle("word_embeddings.weight"), (Finding::SomeRows, 23 - 6, Some(true)));
    assert_eq!(idle("position_embeddings.weight"), (Finding::SomeRows, 40 - 5, Some(true)));
    assert_eq!(idle("token_type_embeddings.weight"), (Finding::SomeRows, 1, Some(true)));
    for layer in 0..2 {
        let bias = of(&all, &format!("layer.{layer}.attention.self.key.bias"));
        assert!(matches!(bias.finding, Finding::Rounding | Finding::Zero), "{bias:?}");
        assert!(bias.reason.as_ref().is_some_and(|reason| reason.contains("softmax")), "{bias:?}");
        assert_eq!(of(&all, &format!("layer.{layer}.attention.self.query.bias")).finding, Finding::Whole);
    }
    let idle = all.iter().filter(|one| one.finding != Finding::Whole).count();
    assert_eq!(idle, 3 + 2, "{all:?}");
    assert!(all.iter().all(|one| one.norm.is_some_and(|norm| norm > 0.0 || one.key.ends_with("key.bias"))));
}

#[test]
fn frozen_parameters_are_named_and_their_norm_is_none() {
    let mut model = SequenceClassifier::random(config(), 2).unwrap();
    let mut frozen = 0;
    for (_, parameter) in model.parameters_mut().iter_mut() {
        if parameter.parts[0].key.contains("layer.0.") {
            parameter.trainable = false;
            frozen += parameter.parts.len();
        }
    }
    let all = audited(&model);
    let found: Vec<&Audited> = all.iter().filter(|one| one.finding == Finding::Frozen).collect();
    assert_eq!(found.len(), frozen);
    assert!(frozen > 10 && found.iter().all(|one| one.key.contains("layer.0.") && one.norm.is_none()));
}

#[test]
fn what_takes_no_part_in_the_loss_and_what_breaks_are_told_apart() {
    let mut model = SequenceClassifier::random(config(), 2).unwrap();
    // The loss of the pooled row alone: the classifier behind it takes no part.
    let tape = Tape::recording();
    let taps = vitrine_bert::Taps::new();
    let loss = model.forward(&tape, &batch(), &taps).unwrap().pooled.sum_all().unwrap().id();
    let gradients = tape.backward(loss, &[]).unwrap();
    let all = audit(model.config(), model.parameters(), &gradients, &batch()).unwrap();
    assert_eq!(of(&all, "classifier.weight").finding, Finding::Missing);
    assert_eq!(of(&all, "pooler.dense.weight").finding, Finding::Whole);

    let id =
        model.parameters().iter().find(|(_, p)| p.parts[0].key.ends_with("pooler.dense.bias")).unwrap().0;
    model.parameters_mut().get_mut(id).value.as_mut_slice::<f32>().unwrap().fill(f32::NAN);
    let all = audited(&model);
    assert_eq!(of(&all, "pooler.dense.weight").finding, Finding::NonFinite);
}

#[test]
fn a_masked_language_model_trains_every_word_but_not_every_position() {
    let model = MaskedLm::random(config(), 2).unwrap();
    let tape = Tape::recording();
    let loss = model.loss(&tape, &batch(), &[1, 6].into(), &[7, 12].into()).unwrap().id();
    let gradients = tape.backward(loss, &[]).unwrap();
    let all = audit(model.config(), model.parameters(), &gradients, &batch()).unwrap();
    // Word embeddings are the output's weights, too.
    assert_eq!(of(&all, "word_embeddings.weight").finding, Finding::Whole);
    assert_eq!(of(&all, "position_embeddings.weight").idle_rows, 40 - 5);
}
