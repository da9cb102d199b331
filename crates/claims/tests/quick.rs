//! Every claim at its small sizes, on tiny random models: what comes out is whole, follows its rule, and comes out again.

use std::path::Path;
use tempfile::TempDir;
use vitrine_bert::{MaskedLm, ModelConfig, SequenceClassifier, Source, Tokenizer};
use vitrine_claims::{CLAIMS, Claim, ClaimError, Finding, Setting, Verdict, check_classifier, page};
use vitrine_train::corpus;
use vitrine_train::data::Dataset;

/// Words of the templates that the built-in reviews do not have.
const MORE: [&str; 6] = ["show", "stupid", "interesting", "must", "fair", "say"];

fn config(vocab_size: usize) -> ModelConfig {
    ModelConfig {
        vocab_size,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 512,
        ..ModelConfig::default()
    }
}

/// A folder with a masked language model and a classifier.
fn models(names: [&str; 2]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let mut vocabulary = corpus::vocabulary();
    for word in MORE {
        if vocabulary.lines().all(|line| line != word) {
            vocabulary = format!("{}\n{word}\n", vocabulary.trim_end());
        }
    }
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).expect("a tokenizer");
    let config = config(tokenizer.vocabulary_size());
    let names = names.map(str::to_owned);
    MaskedLm::random(config.clone(), 1)
        .expect("a model")
        .save(&folder.path().join("language"), &tokenizer)
        .expect("saved");
    SequenceClassifier::random(config.with_labels(&names), 2)
        .expect("a model")
        .save(&folder.path().join("classifier"), &tokenizer)
        .expect("saved");
    folder
}

fn setting<'a>(folder: &Path, watch: &'a (dyn Fn(&str) -> bool + Sync)) -> Setting<'a> {
    let splits = corpus::splits(0);
    let first = |rows: Dataset| rows.subset(&(0..400.min(rows.len())).collect::<Vec<_>>());
    Setting {
        quick: true,
        train: first(splits.train),
        test: first(splits.test.expect("the corpus has test rows")),
        data_name: "built-in reviews".into(),
        pretrained: Source::from(&folder.join("language")),
        pretrained_name: "tiny".into(),
        classifier: Source::from(&folder.join("classifier")),
        classifier_name: "tiny".into(),
        watch,
    }
}

fn assert_whole(finding: &Finding) {
    let (id, evidence) = (finding.id, &finding.evidence);
    assert!(!evidence.estimates.is_empty() && !evidence.plots.is_empty(), "{id}");
    assert!(evidence.estimates.iter().any(|estimate| estimate.decides), "{id}: nothing decides");
    assert!(!evidence.result.contains("NaN"), "{id}: {}", evidence.result);
    for estimate in &evidence.estimates {
        assert!(estimate.value.is_finite(), "{id}: {}", estimate.name);
        if let Some((low, high)) = estimate.interval {
            assert!(low <= estimate.value && estimate.value <= high, "{id}: {estimate:?}");
        }
    }
    for line in evidence.plots.iter().flat_map(|plot| &plot.lines) {
        assert!(
            !line.points.is_empty() && line.points.iter().all(|(x, y, _)| x.is_finite() && y.is_finite()),
            "{id}: {line:?}"
        );
    }
}

#[test]
fn every_claim_runs_follows_its_rule_and_comes_out_again() {
    let folder = models(["negative", "positive"]);
    let setting = setting(folder.path(), &|_| true);
    check_classifier(&setting).expect("a classifier of reviews");
    let run = |claim: &Claim| claim.run(&setting).unwrap_or_else(|error| panic!("{}: {error}", claim.id));
    let findings: Vec<Finding> = CLAIMS.iter().map(run).collect();
    for (finding, claim) in findings.iter().zip(&CLAIMS) {
        assert_whole(finding);
        assert_eq!((finding.id, finding.quick), (claim.id, true));
        let json = serde_json::to_value(finding).expect("JSON");
        assert!(json["verdict"].is_string() && json["estimates"].is_array(), "{json}");
    }
    let of = |id: &str| findings.iter().find(|finding| finding.id == id).expect(id);
    // No chance in it: the warmup never ends.
    assert_eq!(of("C6").evidence.verdict, Verdict::NotSupported);
    let largest = of("C6").evidence.estimates[0].value;
    assert!((largest - 1.88e-5).abs() < 1e-12, "{largest}");
    // Small sizes are not the recipe.
    assert_eq!(of("C1").evidence.verdict, Verdict::Inconclusive);
    // The same again, but for the seconds.
    for id in ["C3", "C4"] {
        let again = run(Claim::of(id).expect(id));
        assert_eq!(again.evidence, of(id).evidence, "{id}");
    }
    let page = page(&findings, "0");
    for claim in &CLAIMS {
        assert_eq!(page.matches(&format!("<article id=\"{}\"", claim.id)).count(), 1, "{}", claim.id);
    }
    let plots: usize = findings.iter().map(|finding| finding.evidence.plots.len()).sum();
    assert_eq!(page.matches("<figure>").count(), plots);
    for outside in ["http:", "https:", "src=", "@import", "<script", "NaN"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn a_watch_stops_a_claim_and_other_classes_are_refused() {
    let folder = models(["positive", "negative"]);
    let stopped = setting(folder.path(), &|_| false);
    for claim in &CLAIMS {
        assert!(matches!(claim.run(&stopped), Err(ClaimError::Stopped)), "{}", claim.id);
    }
    let error = check_classifier(&stopped).expect_err("positive is first");
    assert!(error.to_string().contains("negative has to be first"), "{error}");
}

#[test]
fn rules_are_thresholds_of_intervals() {
    let at_least = |interval| Verdict::at_least(interval, 0.5);
    assert_eq!(at_least(Some((0.5, 0.9))), Verdict::Supported);
    assert_eq!(at_least(Some((0.1, 0.49))), Verdict::NotSupported);
    assert_eq!((at_least(Some((0.4, 0.6))), at_least(None)), (Verdict::Inconclusive, Verdict::Inconclusive));
    assert_eq!(at_least(Some((f64::NAN, f64::NAN))), Verdict::Inconclusive);
    let (yes, no, open) = (Verdict::Supported, Verdict::NotSupported, Verdict::Inconclusive);
    assert_eq!((Verdict::all(&[yes, yes]), Verdict::all(&[yes, open])), (yes, open));
    assert_eq!((Verdict::all(&[open, no]), Verdict::all(&[])), (no, open));
}
