//! Attributions beside closed forms, central differences and runs of the model itself.

mod tiny;

use tiny::{UNWATCHED, assert_close, classifier, config, text, tokenizer};
use vitrine_autograd::Tape;
use vitrine_bert::{ModelConfig, Point, SequenceClassifier, Taps, TokenBatch};
use vitrine_explain::{Attributions, Baseline, Blocks, Edge, Method, Steps, Subject, Text, Wanted};
use vitrine_tensor::{DType, Tensor};

fn attribute(subject: &Subject, text: &Text, blocks: &Blocks, wanted: &Wanted) -> Attributions {
    subject.attribute(text, blocks, wanted, UNWATCHED).unwrap()
}

fn wanted(method: Method, baseline: Baseline, steps: usize) -> Wanted {
    Wanted { method, class: 1, baseline, steps: Steps::Fixed(steps) }
}

/// Heads and edges of every kind.
fn blocks() -> Blocks {
    let edges = [(Some(0), Some(1), 2, 3), (None, None, 4, 1), (Some(2), None, 0, 5)];
    let edge = |(layer, head, query, key)| Edge { layer, head, query, key };
    Blocks { heads: vec![(1, 0)], edges: edges.map(edge).to_vec() }
}

/// The logit of class 1 with these word embeddings, through the model and not the library.
fn logit_of(model: &SequenceClassifier, ids: &[u32], words: &[f64]) -> f64 {
    let batch = TokenBatch::new([ids], None, model.config()).unwrap();
    let mut taps = Taps::new();
    taps.set(Point::Words, vec![Tensor::from_slice(words, &[ids.len(), words.len() / ids.len()]).unwrap()]);
    let tape = Tape::inference();
    let logits = model.forward(&tape, &batch, &taps).unwrap().logits;
    logits.value().to_vec::<f64>().unwrap()[1]
}

/// Rows of the word embeddings.
fn words_of(model: &SequenceClassifier, ids: &[u32]) -> Vec<f64> {
    let key = "bert.embeddings.word_embeddings.weight";
    let parts = model.parameters().parts().unwrap();
    let table = parts.iter().find(|(name, _)| *name == key).unwrap().1.to_vec::<f64>().unwrap();
    let width = model.config().hidden_size;
    ids.iter().flat_map(|&id| table[id as usize * width..][..width].to_vec()).collect()
}

/// `sum_c x_c df/dx_c` of a token is the derivative of the logit by a factor of its embedding.
#[test]
fn gradient_x_input_equals_central_differences() {
    const STEP: f64 = 1e-5;
    let (model, subject) = (tiny::model(DType::F64), classifier(DType::F64));
    let text = text(&subject);
    let (ids, words) = (text.ids(), words_of(&model, &text.ids()));
    let got = attribute(&subject, &text, &Blocks::none(), &Wanted::new(Method::GradientXInput, 1));
    let width = words.len() / ids.len();
    let expected: Vec<f64> = (0..ids.len())
        .map(|token| {
            let scaled = |factor: f64| {
                let mut words = words.clone();
                words[token * width..][..width].iter_mut().for_each(|x| *x *= factor);
                logit_of(&model, &ids, &words)
            };
            (scaled(1.0 + STEP) - scaled(1.0 - STEP)) / (2.0 * STEP)
        })
        .collect();
    assert_close("gradient x input", &got.values, &expected, 1e-7);
    assert_close("logit", &[got.logit], &[logit_of(&model, &ids, &words)], 1e-12);
    assert_eq!((got.total, got.gap, got.steps, got.converged), (None, None, None, true));
}

/// The integral of central differences along the same line, by Simpson's rule: another integral and another derivative.
#[test]
fn integrated_gradients_equal_an_integral_of_differences() {
    const PARTS: usize = 400;
    const STEP: f64 = 1e-5;
    let (model, subject) = (tiny::model(DType::F64), classifier(DType::F64));
    let text = text(&subject);
    let (ids, to) = (text.ids(), words_of(&model, &text.ids()));
    let mut from_ids = ids.clone();
    let last = ids.len() - 1;
    from_ids[1..last].fill(4);
    let from = words_of(&model, &from_ids);
    let width = to.len() / ids.len();
    let got =
        attribute(&subject, &text, &Blocks::none(), &wanted(Method::IntegratedGradients, Baseline::Mask, 64));
    for token in [1, 4, last - 1] {
        // How the logit changes at a place of the line when only this token moves on.
        let slope = |place: f64| {
            let moved = |more: f64| {
                let at = |i: usize| {
                    from[i] + (place + if i / width == token { more } else { 0.0 }) * (to[i] - from[i])
                };
                logit_of(&model, &ids, &(0..to.len()).map(at).collect::<Vec<_>>())
            };
            (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
        };
        let weight = |k: usize| if k == 0 || k == PARTS { 1.0 } else { 2.0 + 2.0 * (k % 2) as f64 };
        let sum: f64 = (0..=PARTS).map(|k| weight(k) * slope(k as f64 / PARTS as f64)).sum();
        assert_close(&format!("token {token}"), &[got.values[token]], &[sum / (3.0 * PARTS as f64)], 1e-5);
    }
    assert_eq!((got.values[0], got.values[last]), (0.0, 0.0));
    let total = logit_of(&model, &ids, &to) - logit_of(&model, &ids, &from);
    assert_close("total", &[got.total.unwrap()], &[total], 1e-10);
    assert_close("sum", &[got.values.iter().sum::<f64>()], &[total], 1e-8);
}

/// Embeddings so small that LayerNorms divide by `sqrt(eps) = 1` and tanh is a straight line, attention that does not look, no feed-forward
/// network: the logit is linear in the embeddings, so every integral is one gradient, and occlusion by nothing is that too.
#[test]
fn in_a_linear_model_all_methods_agree() {
    let config = ModelConfig { layer_norm_eps: 1.0, ..config() };
    let mut model = SequenceClassifier::random(config, 5).unwrap();
    *model.parameters_mut() = model.parameters().to_dtype(DType::F64).unwrap();
    for (_, parameter) in model.parameters_mut().iter_mut() {
        let name = parameter.name();
        let factor = match name.as_str() {
            _ if name.contains("_embeddings.") => 1e-4,
            _ if name.contains("intermediate") => 0.0,
            "classifier.weight" => 1e4,
            _ => 1.0,
        };
        let mut values = parameter.value.to_vec::<f64>().unwrap();
        values.iter_mut().for_each(|value| *value *= factor);
        if name.contains("query") {
            let third = values.len() / 3;
            values[..third].fill(0.0);
        }
        parameter.value = Tensor::from_slice(&values, parameter.value.dims()).unwrap();
    }
    let subject = Subject::from_classifier(model, tokenizer());
    let text = text(&subject);
    let content = 1..text.size() - 1;
    let values = |wanted: Wanted| attribute(&subject, &text, &Blocks::none(), &wanted);
    let gradient = values(Wanted::new(Method::GradientXInput, 1)).values;
    assert!(gradient[content.clone()].iter().all(|value| value.abs() > 1e-3), "{gradient:?}");
    for steps in [1, 3] {
        let integrated = values(wanted(Method::IntegratedGradients, Baseline::Zero, steps));
        assert_close("integrated", &integrated.values[content.clone()], &gradient[content.clone()], 1e-6);
        assert!(integrated.converged && integrated.gap.unwrap() < 1e-6, "{integrated:?}");
    }
    let occluded = values(wanted(Method::Occlusion, Baseline::Zero, 1)).values;
    assert_close("occlusion", &occluded[content.clone()], &gradient[content], 1e-6);
}

#[test]
fn occlusion_equals_runs_with_replaced_tokens() {
    let subject = classifier(DType::F64);
    let text = text(&subject);
    for (baseline, id) in [(Baseline::Pad, 0), (Baseline::Mask, 4)] {
        let got = attribute(&subject, &text, &blocks(), &wanted(Method::Occlusion, baseline, 1));
        let logit = |text: &Text| f64::from(subject.predict(text, &blocks()).unwrap().unwrap().logits[1]);
        let mut expected = vec![0.0; text.size()];
        for place in text.content() {
            let mut replaced = text.clone();
            replaced.tokens[place].id = id;
            expected[place] = logit(&text) - logit(&replaced);
        }
        // Predictions are rounded to F32.
        assert_close("occlusion", &got.values, &expected, 1e-5);
        assert_close("logit", &[got.logit], &[logit(&text)], 1e-6);
    }
}

/// Steps double until the sum is as close as asked, and a cap is said. Blocked heads and edges stay blocked on the whole line.
#[test]
fn steps_adapt_and_blocks_are_respected() {
    let subject = classifier(DType::F64);
    let text = text(&subject);
    let adaptive = |tolerance, most| Wanted {
        steps: Steps::Adaptive { tolerance, most },
        ..wanted(Method::IntegratedGradients, Baseline::Pad, 1)
    };
    let coarse = attribute(&subject, &text, &blocks(), &adaptive(0.5, 256));
    let fine = attribute(&subject, &text, &blocks(), &adaptive(1e-12, 256));
    assert!(coarse.converged && fine.converged, "{coarse:?} {fine:?}");
    assert_eq!(coarse.steps, Some(16));
    assert!(fine.steps > coarse.steps && fine.gap.unwrap() < 1e-12, "{fine:?}");
    let capped = attribute(&subject, &text, &blocks(), &adaptive(1e-12, 16));
    assert!(!capped.converged && capped.steps == Some(16), "{capped:?}");
    let mut baseline = text.clone();
    text.content().for_each(|place| baseline.tokens[place].id = 0);
    let logit = |text: &Text| f64::from(subject.predict(text, &blocks()).unwrap().unwrap().logits[1]);
    assert_close("total", &[fine.total.unwrap()], &[logit(&text) - logit(&baseline)], 1e-5);
    let open = attribute(&subject, &text, &Blocks::none(), &adaptive(1e-9, 256));
    assert!((open.total.unwrap() - fine.total.unwrap()).abs() > 1e-3);
}

#[test]
fn a_text_without_words_has_nothing_to_attribute() {
    let subject = classifier(DType::F32);
    let text = subject.read("").unwrap();
    for method in [Method::IntegratedGradients, Method::Occlusion] {
        let got = attribute(&subject, &text, &Blocks::none(), &Wanted::new(method, 0));
        assert!(got.converged && got.values == [0.0, 0.0], "{got:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let subject = classifier(DType::F32);
    let text = text(&subject);
    let refused = |blocks: &Blocks, wanted: Wanted| {
        let error = subject.attribute(&text, blocks, &wanted, UNWATCHED).unwrap_err();
        assert!(error.is_usage(), "{error}");
        error.to_string()
    };
    let gradient = Wanted::new(Method::GradientXInput, 1);
    let integrated = Wanted::new(Method::IntegratedGradients, 1);
    let edge = |query, key| Edge { layer: None, head: None, query, key };
    let blocked = |heads: Vec<(usize, usize)>, edges: Vec<Edge>| Blocks { heads, edges };
    assert!(refused(&Blocks::none(), Wanted { class: 2, ..gradient }).contains("no class 2"));
    assert!(refused(&blocked(vec![(3, 0)], vec![]), gradient).contains("no layer 3"));
    assert!(refused(&blocked(vec![(0, 2)], vec![]), gradient).contains("no head 2"));
    assert!(refused(&blocked(vec![], vec![edge(0, 9)]), gradient).contains("no token 9"));
    let all = (0..9).map(|key| edge(2, key)).collect();
    assert!(refused(&blocked(vec![], all), gradient).contains("every edge from token 2"));
    for steps in [Steps::Fixed(0), Steps::Fixed(5000), Steps::Adaptive { tolerance: f64::NAN, most: 32 }] {
        refused(&Blocks::none(), Wanted { steps, ..integrated });
    }
    let stop = subject.attribute(&text, &Blocks::none(), &integrated, &|done, _| done == 0).unwrap_err();
    assert!(stop.is_stopped());
    let lm = Subject::from_masked_lm(tiny::masked_lm(), tokenizer());
    let error = lm.attribute(&text, &Blocks::none(), &gradient, UNWATCHED).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("no classifier"), "{error}");
}
