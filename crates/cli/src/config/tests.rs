use super::*;

fn root() -> Command {
    crate::args::command()
}

/// What a config file adds to these arguments of `train`.
fn added(text: &str, typed: &[&str]) -> Outcome<Vec<String>> {
    let root = root();
    let matches = root.clone().try_get_matches_from([&["vitrine", "train"], typed].concat()).unwrap();
    let file = ConfigFile { path: "run.toml".into(), text: text.into() };
    let arguments = file.arguments(&root, "train", matches.subcommand().unwrap().1)?;
    Ok(arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect())
}

#[test]
fn keys_are_options() {
    let text = "# a run\nmodel = \"m\"\nbatch_size = 1_6\nlr = 2e-5\nno-shuffle = true\ngroup-by-length = false\n\
                train-samples = 0x10\ntest-samples = \"all\"\nlabel-map = [\"0=neg\", \"1=pos\"]\n";
    let expected = [
        "--model=m",
        "--batch-size=16",
        "--lr=2e-5",
        "--no-shuffle",
        "--train-samples=16",
        "--test-samples=all",
        "--label-map=0=neg,1=pos",
    ];
    assert_eq!(added(text, &[]).unwrap(), expected);
    assert!(added("", &[]).unwrap().is_empty());
}

#[test]
fn what_is_typed_wins() {
    assert_eq!(added("lr = 2e-5\nepochs = 4", &["--lr", "1e-5"]).unwrap(), ["--epochs=4"]);
    // Also what a typed option excludes, in either direction.
    assert!(added("warmup-ratio = 0.1", &["--warmup-steps", "10"]).unwrap().is_empty());
    assert!(added("warmup-steps = 10", &["--warmup-ratio", "0.1"]).unwrap().is_empty());
    assert!(added("group-by-length = true", &["--no-shuffle"]).unwrap().is_empty());
    // A default does not win.
    assert_eq!(added("schedule = \"cosine\"", &[]).unwrap(), ["--schedule=cosine"]);
    // What is typed does not excuse a mistake.
    assert!(added("epochs = 0", &["--epochs", "3"]).is_err());
}

#[test]
fn damaged_files_get_a_line_each() {
    let deep = format!("epochs = {}", "[".repeat(5000));
    let long = format!("{} = 1", "k".repeat(5000));
    let cases: &[(&str, &[&str])] = &[
        ("lr = ", &["run.toml:1"]),
        ("lr 5", &["run.toml:1"]),
        ("= 5", &["run.toml:1"]),
        ("lr = 5 5", &["run.toml:1"]),
        ("epochs = 3\nmodel = \"abc", &["run.toml:2"]),
        ("lr = 1e-5\nlr = 2e-5", &["run.toml:2", "duplicate"]),
        ("batch-size = 1\nbatch_size = 2", &["run.toml:2", "twice"]),
        ("epochs = 3\n\n[train]\nlr = 1", &["run.toml:3", "no option `train`"]),
        ("[lr]\nvalue = 1", &["run.toml:1", "`lr` must be a number, and is a table"]),
        ("epochs = \"3\"", &["run.toml:1", "`epochs` must be a number, and is a string"]),
        ("epochs = 3.0", &["`epochs`", "whole number"]),
        ("epochs = 0", &["`epochs`", "from 1 to"]),
        ("epochs = -1", &["`epochs`"]),
        ("epochs = true", &["must be a number, and is true or false"]),
        ("epochs = [3]", &["must be a number, and is an array"]),
        ("epochs = 99999999999999999999", &["`epochs`", "too large"]),
        ("model = 3", &["`model` must be a string, and is a number"]),
        ("model = [\"a\"]", &["must be a string, and is an array"]),
        ("no-shuffle = 1", &["must be true or false, and is a number"]),
        ("no-shuffle = \"yes\"", &["must be true or false, and is a string"]),
        ("learning-rate = 1", &["no option `learning-rate`"]),
        ("lr = 1e-5\nepoch = 3", &["run.toml:2", "did you mean `epochs`?"]),
        ("bacth-size = 16", &["did you mean `batch-size`?"]),
        ("schedule = \"square\"", &["`schedule`", "linear"]),
        ("schedule = 5", &["`schedule`"]),
        ("recipe = \"book\"", &["`recipe`", "notebook"]),
        ("warmup-steps = 5\nwarmup-ratio = 0.1", &["run.toml:2", "exclude each other"]),
        ("lr = nan", &["`lr`", "above 0"]),
        ("lr = inf", &["`lr`"]),
        ("lr = 1979-05-27", &["must be a number, and is a date"]),
        ("seed = -1", &["`seed`"]),
        ("threads = 0", &["`threads`"]),
        ("train-samples = 0", &["`train-samples`", "all"]),
        ("label-map = [1]", &["`label-map`", "OLD=NEW"]),
        ("label-map = [\"a=b,c=d\"]", &["`label-map`", "has a `,`"]),
        ("label-map = { a = \"b\" }", &["`label-map`", "is a table"]),
        ("config = \"other.toml\"", &["only for the command line"]),
        ("print-config = true", &["only for the command line"]),
        ("help = true", &["only for the command line"]),
        ("\"lr\\n\" = 5", &["no option"]),
        ("\"\\u001b[31mlr\" = 5", &["no option"]),
        ("\0", &["run.toml:1"]),
        ("epochs = 3 \u{7}", &["run.toml:1"]),
        (&deep, &["run.toml:1"]),
        (&long, &["no option `kkkk"]),
    ];
    assert!(cases.len() >= 30);
    for (text, words) in cases {
        let Err(Failure::Usage(message)) = added(text, &[]) else { panic!("accepted: {text:?}") };
        assert!(message.starts_with("run.toml:"), "{text:?}: {message}");
        assert!(!message.contains(['\n', '\u{1b}']) && message.len() < 400, "{text:?}: {message:?}");
        for word in *words {
            assert!(message.contains(word), "{text:?}: expected {word:?} in {message}");
        }
    }
}

#[test]
fn every_flipped_bit_is_read_or_refused() {
    let text = "model = \"m\"\nepochs = 3\nlr = 2e-5 # peak\nno-shuffle = true\nlabel-map = [\"0=neg\"]\n";
    let mut refused = 0;
    for at in 0..text.len() {
        for bit in 0..7 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            if let Err(failure) = added(&text, &[]) {
                let message = failure.to_string();
                assert!(message.starts_with("run.toml:") && !message.contains('\n'), "{text:?}: {message}");
                refused += 1;
            }
        }
    }
    assert!(refused > 200, "{refused}");
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        (folder.path().join("none.toml"), "none.toml"),
        (folder.path().to_owned(), "--config"),
        (write("latin1.toml", b"epochs = 3\nmodel = \"caf\xe9\""), "line 2 is not UTF-8"),
        (write("large.toml", &vec![b'#'; 2 << 20]), "more than"),
    ];
    for (path, word) in cases {
        let Err(Failure::Usage(message)) = ConfigFile::read(&path) else { panic!("read: {path:?}") };
        assert!(message.contains(word) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn what_is_printed_is_read_again() {
    let root = root();
    let resolve = |typed: &[&str]| {
        let matches = root.clone().try_get_matches_from([&["vitrine", "train"], typed].concat()).unwrap();
        let train = root.find_subcommand("train").unwrap();
        let options: Vec<&Arg> = train
            .get_arguments()
            .filter(|arg| !NOT_KEYS.contains(&arg.get_long().unwrap_or("help")))
            .collect();
        resolved(
            &options,
            matches.subcommand().unwrap().1,
            &[("epochs", "3".into()), ("lr", "0.00005".into())],
        )
    };
    let odd = "a \"quoted\" \\ path\n\u{1b}é";
    let typed = [
        "--model",
        odd,
        "--lr",
        "1e-5",
        "--label-map",
        "0=neg,1=pos",
        "--no-shuffle",
        "--train-samples",
        "all",
    ];
    let first = resolve(&typed);
    let value = |name: &str| first.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(
        (value("lr"), value("epochs"), value("schedule")),
        (Some("1e-5"), Some("3"), Some("\"linear\""))
    );
    assert_eq!(value("label-map"), Some("[\"0=neg\", \"1=pos\"]"));
    let arguments = added(&to_file(&first), &[]).unwrap();
    assert!(arguments.contains(&format!("--model={odd}")), "{arguments:?}");
    let again = resolve(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(again, first);
}

#[test]
fn distances() {
    assert_eq!(distance("lr", "lr"), 0);
    assert_eq!(distance("batch-size", "bacth-size"), 2);
    assert_eq!(distance("", "abc"), 3);
    assert_eq!(distance("kitten", "sitting"), 3);
}
