//! What `tensorboard` itself reads from an event file. Skipped, visibly, where no Python with the package is found: set
//! `VITRINE_PYTHON` to one.

use std::io::Write;
use std::process::Command;
use vitrine_report::tensorboard::EventWriter;

const READ: &str = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'tensors': 0, 'scalars': 0})
events.Reload()
for tag in sorted(events.Tags()['scalars']):
    print(tag, [(e.step, round(e.value, 6)) for e in events.Scalars(tag)])
for tag in sorted(events.Tags()['tensors']):
    print(tag, [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(tag)])
";

#[test]
fn tensorboard_reads_the_file() {
    let python = std::env::var("VITRINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import tensorboard"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        // The test runner holds back what `eprintln` writes.
        let said = format!(
            "SKIPPED: {python} has no package tensorboard; set VITRINE_PYTHON to a Python that has it"
        );
        let _ = writeln!(std::io::stderr(), "{said}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = EventWriter::create(folder.path(), "host", None).unwrap();
    writer.text(0, "settings", "| lr | 2e-5 |").unwrap();
    for step in 1..=300 {
        writer.scalars(step, &[("train/loss", 1.0 / step as f64), ("train/lr", 2e-5)]).unwrap();
    }
    // A run that was killed after step 300 and goes on from the checkpoint of step 200.
    let (mut writer, _) = EventWriter::create(folder.path(), "host", Some(201)).unwrap();
    writer.scalars(201, &[("train/loss", 7.0)]).unwrap();
    writer.scalars(201, &[("eval/accuracy", 0.875)]).unwrap();
    let output = Command::new(&python).args(["-c", READ]).arg(folder.path()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = |tag: &str| stdout.lines().find(|line| line.starts_with(tag)).unwrap_or_default().to_owned();
    assert_eq!(line("eval/accuracy"), "eval/accuracy [(201, 0.875)]");
    assert_eq!(line("settings"), "settings [(0, '| lr | 2e-5 |')]");
    let loss = line("train/loss");
    assert!(loss.starts_with("train/loss [(1, 1.0), (2, 0.5), (3, 0.333333)"), "{loss}");
    assert!(loss.ends_with("(200, 0.005), (201, 7.0)]"), "steps after 200 are dropped: {loss}");
}
