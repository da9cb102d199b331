//! Connections: how many, for how long, and their end.

use super::Limits;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Bytes of a request's headers.
const HEADERS: usize = 32 * 1024;
/// How long open requests may still take when the server stops.
const GRACE: Duration = Duration::from_millis(500);

/// Accepts connections until `stopped`, then ends those that are open.
pub(super) async fn accept(
    listener: std::net::TcpListener,
    router: Router,
    limits: Limits,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let open = Arc::new(GracefulShutdown::new());
    let watching = Arc::clone(&open);
    let accepting = tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(limits.connections));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.header_time).max_buf_size(HEADERS);
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Such as too many open files: others have to end first.
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            // Answers are small or sent at once.
            let _ = stream.set_nodelay(true);
            let stream = TokioIo::new(Impatient::new(stream, limits.write_time));
            let service = TowerToHyperService::new(router.clone());
            let connection = watching.watch(builder.serve_connection(stream, service));
            tokio::spawn(async move {
                // What is wrong with a connection is the other side's to know.
                let _ = connection.await;
                drop(slot);
            });
        }
    });
    let _ = stopped.await;
    accepting.abort();
    // The listener is closed, and nobody else holds the list of open connections.
    let _ = accepting.await;
    if let Some(open) = Arc::into_inner(open) {
        let _ = timeout(GRACE, open.shutdown()).await;
    }
    Ok(())
}

/// A stream whose other side has to take something of what is written within a time, or it ends.
struct Impatient {
    stream: TcpStream,
    patience: Duration,
    /// When it ends, once something is not taken.
    end: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Impatient { stream, patience, end: None }
    }

    /// The result of a write, or the end of patience.
    fn within<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.end = None;
            return written;
        }
        let patience = self.patience;
        let end =
            self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
