//! `report.html` as a browser sees it: headless Chromium reads the drawn values. Skipped, visibly, where there is no Chromium (the
//! Debian package `chromium`); set `VITRINE_CHROMIUM` to one.

mod fixture;
mod page;

use fixture::{fixture, loss_of, run_with};
use page::{Page, chromium};
use vitrine_report::{Run, report};

#[test]
fn a_browser_reads_the_numbers_of_the_run() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = fixture(&folder.path().join("a-run"), 120, 0);
    let page = Page::open(&chromium, &report(&[run]), 1200, false);

    // The training loss, turned back from coordinates: a step's, and its mean over 3 steps.
    let loss = page.polylines("loss");
    assert_eq!(loss.len(), 3, "a step's loss, its mean, evaluations");
    assert_eq!(loss[0].len(), 120);
    for (step, (x, y)) in (1..).zip(&loss[0]) {
        assert!((x - f64::from(step)).abs() < 0.05, "step {step} is drawn at {x}");
        assert!((y - loss_of(step, 0)).abs() < 1e-3, "step {step}: {y} is drawn, not {}", loss_of(step, 0));
    }
    let mean = (118..=120).map(|step| loss_of(step, 0)).sum::<f64>() / 3.0;
    assert!((loss[1][119].1 - mean).abs() < 1e-3);
    let evaluations: Vec<(f64, f64)> = loss[2].clone();
    assert_eq!(evaluations.len(), 3, "two during the run, one at the end: {evaluations:?}");
    assert!((evaluations[2].1 - 0.31).abs() < 1e-3 && (evaluations[2].0 - 120.0).abs() < 0.05);
    let lr = &page.polylines("lr")[0];
    assert!((lr[11].1 - 2e-5).abs() < 1e-8 && lr[119].1.abs() < 1e-8, "{lr:?}");
    let norms = &page.polylines("grad-norm")[0];
    assert!((norms[0].1 - 3.0).abs() < 0.01);

    assert_eq!(page.text("#evaluation tr[data-metric='Accuracy'] td"), "0.8800 0.8485 to 0.9057");
    assert_eq!(page.text("#evaluation tr[data-metric='AUROC'] td"), "0.9450");
    assert_eq!(page.counts(), [220, 30, 30, 220]);
    assert_eq!(page.value("calibration", 0, 1), Some((0.93, 0.9)));
    assert!(page.text("#lengths-0").contains("tokens"));
    assert_eq!(page.bars("lengths-0"), [100.0, 400.0, 300.0, 200.0]);
    assert!(
        page.text("h1").contains("classifies 88.0 % of 500 evaluated rows correctly (95 % interval"),
        "{}",
        page.text("h1")
    );
    assert_eq!(page.text("table.ops tbody tr th"), "linear");
    assert_eq!(page.console, Vec::<String>::new());
    assert_eq!(page.hidden(), 0, "texts and shapes are drawn");
    assert_eq!(page.visible_points(), 12, "3 evaluations twice, 3 bins, 3 lengths");
    // Reviews hold HTML; it is shown, not obeyed.
    assert!(
        page.text("blockquote").contains("<script>document.title = 'owned'</script><br /><img src=x onerror")
    );
    assert_eq!(page.count("blockquote img, blockquote br, blockquote script"), 0);
    assert!(page.text("title").starts_with("a-run: training report"), "{}", page.text("title"));
}

#[test]
fn a_phone_has_no_sideways_scroll_and_night_is_dark() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let long =
        "a-run-with-a-name-that-is-much-too-long-for-a-phone-and-has-no-place-to-break-it-and-goes-on-and-on";
    let runs: Vec<Run> = ["one", "two", long]
        .iter()
        .enumerate()
        .map(|(i, name)| fixture(&folder.path().join(name), 40, i as i32))
        .collect();
    for (runs, dark) in [(&runs[..1], false), (&runs[..1], true), (&runs[..], false), (&runs[2..], true)] {
        let page = Page::open(&chromium, &report(runs), 390, dark);
        assert_eq!(page.width(), 390, "the window is as wide as a phone");
        assert!(page.scroll_width() <= 390, "{} px in a window of 390", page.scroll_width());
        assert_eq!(page.console, Vec::<String>::new());
        assert_eq!(page.hidden(), 0);
        let [paper, ink] = page.brightness();
        let (low, high) = if dark { (paper, ink) } else { (ink, paper) };
        assert!(low < 0.2 && high > 0.85, "paper {paper}, ink {ink}, dark {dark}");
    }
}

#[test]
fn several_runs_are_side_by_side_also_unfinished_ones() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let finished = fixture(&folder.path().join("finished"), 50, 0);
    let going = run_with(&folder.path().join("going"), 20, 1, |json| {
        json["state"] = "running".into();
        json["eval"] = serde_json::Value::Null;
        json["train"] = serde_json::Value::Null;
        json["settings"]["lr"] = 3e-5.into();
    });
    let page = Page::open(&chromium, &report(&[finished, going]), 1200, false);
    assert_eq!(page.count("#loss g.series"), 4, "a line and the evaluations of each");
    assert!(page.text(".banner").contains("going: This run is not finished. What follows is as of step 20."));
    assert_eq!(page.text("#differences tbody tr th"), "lr");
    assert_eq!(page.text("#differences tbody tr td:last-child"), "0.00003");
    assert_eq!(page.console, Vec::<String>::new());
}
