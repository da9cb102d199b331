//! `cargo run -p vitrine-report --example report -- RUN [RUN ..] > report.html`

fn main() -> vitrine_report::Result<()> {
    let runs: Vec<vitrine_report::Run> = std::env::args_os()
        .skip(1)
        .map(|folder| vitrine_report::Run::read(folder.as_ref()))
        .collect::<vitrine_report::Result<_>>()?;
    println!("{}", vitrine_report::report(&runs));
    Ok(())
}
