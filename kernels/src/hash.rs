// What a PTX file is made from, and its hash. Included by the generator and by the test that finds stale files.

/// The options that decide the PTX, beside the target `compute_80`.
const OPTIONS: [&str; 2] = ["--std=c++17", "--generate-line-info"];

/// The `.cu` files in order of their names.
fn sources(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// SHA-256 of a `.cu` file, of the headers it includes (in order, each once, theirs too), and of the options.
fn hash(path: &Path) -> std::io::Result<String> {
    let mut files = vec![path.to_owned()];
    let mut hasher = Sha256::new();
    let mut next = 0;
    while next < files.len() {
        let text = fs::read_to_string(&files[next])?;
        hasher.update(&text);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) {
                let header = path.with_file_name(name);
                if !files.contains(&header) {
                    files.push(header);
                }
            }
        }
        next += 1;
    }
    hasher.update(OPTIONS.join(" "));
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
