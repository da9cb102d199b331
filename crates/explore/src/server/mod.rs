//! The server: the page's files and an [`Engine`]'s answers over HTTP/1.1, on this machine.
//!
//! It trusts nobody who connects. A browser lets any page of the web send requests to `127.0.0.1`, so `guard` looks at `Host` and
//! `Origin`. Headers, bodies and readers that are slow lose their connection, sizes and numbers of everything are limited
//! ([`Limits`]), and one request is computed at a time (`work`).

mod connections;
mod guard;
mod routes;
mod work;

use crate::engine::{Engine, to_json};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What one who connects may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; others wait until one ends.
    pub connections: usize,
    /// Requests that wait for the engine, beside the one that it computes.
    pub queue: usize,
    /// Bytes of a body.
    pub body: usize,
    /// How long the headers of a request may take, and how long a connection may be without one.
    pub header_time: Duration,
    /// How long the body of a request may take.
    pub body_time: Duration,
    /// How long a reader may take nothing of an answer.
    pub write_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Limits {
            connections: 64,
            queue: 32,
            // A byte of text takes up to six of JSON; the rest is room for blocked heads and edges.
            body: 6 * crate::engine::MOST_TEXT + 200_000,
            header_time: seconds(10),
            body_time: seconds(10),
            write_time: seconds(30),
        }
    }
}

/// How often the end is looked for.
const TICK: Duration = Duration::from_millis(50);

/// Serves the page until `stopped`. The engine computes on the calling thread, so a pool of threads that this one belongs to stays
/// whole; everything else runs on another.
///
/// `listener` says at which address: bound to a loopback address, only this machine can connect.
///
/// # Errors
/// When the system gives no thread, or does not let the listener be used.
pub fn serve(
    listener: TcpListener,
    engine: &dyn Engine,
    limits: &Limits,
    stopped: &dyn Fn() -> bool,
) -> io::Result<()> {
    let address: SocketAddr = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let models = engine.models();
    let listed = to_json(&models).map_err(|refusal| io::Error::other(refusal.to_string()))?;
    let queue = work::Queue::new(limits.queue);
    let router = routes::router(address, routes::Shared::new(models, listed, Arc::clone(&queue), limits));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (stop, when_stopped) = oneshot::channel::<()>();
    let for_connections = limits.clone();
    let connections = std::thread::Builder::new().name("explore".into()).spawn(move || {
        runtime.block_on(connections::accept(listener, router, for_connections, when_stopped))
    })?;
    while !stopped() && !connections.is_finished() {
        if let Some(job) = queue.next(TICK) {
            work::compute(job, &queue, engine, stopped);
        }
    }
    queue.close();
    let _ = stop.send(());
    connections
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("internal: the thread of the connections ended")))
}
