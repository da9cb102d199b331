//! `vitrine explore`: a page that shows what a model does with a text, served or in one file; `vitrine look` is its short way.

mod browser;
pub mod look;
mod saved;

use super::resolve;
use crate::args::{Compute, Explore};
use crate::interrupt::Interrupts;
use crate::names::{CLASSIFIER, ModelName, PRETRAINED};
use crate::output::{Failure, Outcome, line, note, warn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use vitrine_explain::Subject;
use vitrine_explore::server::{Limits, serve};
use vitrine_explore::{ModelEngine, Snapshot};

/// Runs the command.
pub fn run(arguments: &Explore) -> Outcome {
    let names = [Some(&arguments.model), arguments.compare.as_ref()];
    if let (Some(file), Some(text)) = (&arguments.html, &arguments.text) {
        saved::check(file, "--html")?;
        let engine = opened(names, arguments.lens.as_ref(), &arguments.compute)?;
        let written = saved::write(&engine, text, file)?;
        written.say();
        return line(file.display());
    }
    // Before models are read, which may take a while.
    let listener = listen(arguments.host, arguments.port)?;
    let address = listener.local_addr()?;
    let engine = opened(names, arguments.lens.as_ref(), &arguments.compute)?;
    let url = url(address, arguments.text.as_deref());
    line(&url)?;
    if !address.ip().is_loopback() {
        warn(format!(
            "anyone who reaches {address} can use this server and its models, unencrypted; without --host only this machine can"
        ));
    }
    note("open this address in a browser; Ctrl-C ends");
    if arguments.open {
        browser::open(&url);
    }
    let interrupts = Interrupts::watch();
    serve(listener, &engine, &Limits::default(), &|| interrupts.seen())
        .map_err(|error| Failure::Run(format!("the server at {address}: {error}")))
}

/// The models, ready to compute.
fn opened(
    names: [Option<&ModelName>; 2],
    lens: Option<&ModelName>,
    compute: &Compute,
) -> Outcome<ModelEngine> {
    let resolved = resolve(compute)?;
    let mut engine = ModelEngine::new();
    for name in names.into_iter().flatten() {
        let mut subject = Subject::load(name.trained()?)?;
        subject.notes().iter().for_each(warn);
        let head = head_for(&mut subject, name, lens)?;
        subject.prepare(resolved.place, resolved.compute)?;
        engine.add(name.to_string(), subject, head);
    }
    Ok(engine)
}

/// Gives a model without a masked-LM head that of another for the lens: of the one that is asked for, or for the embedded classifier of
/// the one that it was fine-tuned from. Its name.
fn head_for(subject: &mut Subject, name: &ModelName, lens: Option<&ModelName>) -> Outcome<Option<String>> {
    let pretrained = ModelName::Embedded(PRETRAINED);
    let own = (*name == ModelName::Embedded(CLASSIFIER)).then_some(&pretrained);
    let Some(lens) = lens.or(own).filter(|_| !subject.has_masked_lm()) else { return Ok(None) };
    subject.borrow_head(lens.source()?)?;
    Ok(Some(lens.to_string()))
}

/// A listener at an address.
fn listen(host: IpAddr, port: u16) -> Outcome<TcpListener> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).map_err(|error| {
        Failure::Usage(match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("--port {port}: something listens there already; name another, or --port 0 for any that is free")
            }
            io::ErrorKind::PermissionDenied => {
                format!("--port {port}: the system does not allow it ({error}); name one from 1024 on")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("--host {host}: this machine does not have this address; name one that it has, or 127.0.0.1")
            }
            _ => format!("--host {host} --port {port}: {error}"),
        })
    })
}

/// What a browser opens; every address of the machine has the loopback address among them.
fn url(address: SocketAddr, text: Option<&str>) -> String {
    let address = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        _ => address,
    };
    let hash = text.map_or(String::new(), |text| Snapshot::of_text(text, Vec::new()).hash);
    format!("http://{address}/{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_for_a_browser() {
        let of = |address: &str, text| url(address.parse().unwrap(), text);
        assert_eq!(of("127.0.0.1:70", None), "http://127.0.0.1:70/");
        assert_eq!(of("0.0.0.0:70", Some("a b")), "http://127.0.0.1:70/#text=a%20b");
        assert_eq!(of("[::1]:70", Some("é#")), "http://[::1]:70/#text=%C3%A9%23");
    }
}
