//! Paths, and the statuses of what goes wrong.

use super::Limits;
use super::guard::{Guard, seal};
use super::work::{Busy, Queue};
use crate::FILES;
use crate::contract::{ErrorLine, Models};
use crate::engine::{Refusal, Request as Asked};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::LengthLimitError;
use std::net::SocketAddr;
use std::sync::Arc;
use tower_http::limit::RequestBodyLimitLayer;

const JSON: &str = "application/json";

/// What all handlers see.
pub(super) struct Shared {
    models: Models,
    /// The answer of `/api/models`.
    listed: Vec<u8>,
    queue: Arc<Queue>,
    limits: Limits,
}

impl Shared {
    pub fn new(models: Models, listed: Vec<u8>, queue: Arc<Queue>, limits: &Limits) -> Arc<Self> {
        Arc::new(Shared { models, listed, queue, limits: limits.clone() })
    }
}

/// All paths of a server that listens there.
pub(super) fn router(address: SocketAddr, shared: Arc<Shared>) -> Router {
    let file = |name: &str| {
        FILES
            .iter()
            .find(|file| file.0 == name)
            .map(|&(_, mime, bytes)| get(async move || ([(header::CONTENT_TYPE, mime)], Body::from(bytes))))
    };
    let mut router = Router::new().route("/api/models", get(list));
    for path in Asked::PATHS {
        router = router.route(path, post(answer));
    }
    for (name, ..) in FILES {
        if let Some(route) = file(name) {
            router = router.route(&format!("/{name}"), route);
        }
    }
    if let Some(index) = file("index.html") {
        router = router.route("/", index);
    }
    let limit = RequestBodyLimitLayer::new(shared.limits.body);
    router.with_state(shared).layer(limit).layer(from_fn_with_state(Guard { address }, watch))
}

/// Before and after every request.
async fn watch(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(line) => error(StatusCode::FORBIDDEN, line),
    };
    // What axum and tower say of a path, a method or a size is no line of ours yet.
    let status = response.status();
    if !status.is_success() && response.headers().get(header::CONTENT_TYPE).is_none_or(|mime| mime != JSON) {
        let line = match status {
            StatusCode::NOT_FOUND => "There is no such path.".to_owned(),
            StatusCode::METHOD_NOT_ALLOWED => "This path takes another method.".to_owned(),
            StatusCode::PAYLOAD_TOO_LARGE => "The request is too large. Shorten the text.".to_owned(),
            other => format!("The request was refused: {other}."),
        };
        let allow = response.headers().get(header::ALLOW).cloned();
        response = error(status, line);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    seal(response.headers_mut());
    response
}

fn error(status: StatusCode, error: String) -> Response {
    let body = serde_json::to_vec(&ErrorLine { error }).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], shared.listed.clone()).into_response()
}

/// Reads, checks and computes a request.
async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    // A form of another page can send text without being allowed to; JSON it cannot.
    if !is_json(request.headers()) {
        let line = "The request must have the content-type application/json.".to_owned();
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, line);
    }
    let path = request.uri().path().to_owned();
    let read = to_bytes(request.into_body(), shared.limits.body);
    let body = match tokio::time::timeout(shared.limits.body_time, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(cause)) if is_too_large(&cause) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Ok(Err(_)) => {
            let line = "The body of the request is not what its headers say.".to_owned();
            return closing(error(StatusCode::BAD_REQUEST, line));
        }
        Err(_) => {
            let line = "The request took too long to arrive.".to_owned();
            return closing(error(StatusCode::REQUEST_TIMEOUT, line));
        }
    };
    let checked = Asked::read(&path, &body).and_then(|asked| asked.check(&shared.models).map(|()| asked));
    drop(body);
    let asked = match checked {
        Ok(asked) => asked,
        Err(refusal) => return refused(&refusal),
    };
    match shared.queue.ask(asked).await {
        Ok(Ok(json)) => ([(header::CONTENT_TYPE, JSON)], json).into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        Err(Busy::Full) => {
            let line = "The server is busy: too many requests wait. Try again in a moment.".to_owned();
            let mut response = error(StatusCode::SERVICE_UNAVAILABLE, line);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        Err(Busy::Stopping) => {
            closing(error(StatusCode::SERVICE_UNAVAILABLE, "The server is stopping.".to_owned()))
        }
    }
}

/// Whether a body is larger than the limit, as the layer of the limit says it.
fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(<dyn std::error::Error>::is::<LengthLimitError>)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.map(|value| value.split(';').next().unwrap_or_default().trim());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(JSON))
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Path(_) => StatusCode::NOT_FOUND,
        Refusal::Unreadable(_) => StatusCode::BAD_REQUEST,
        Refusal::Request(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::Overtaken => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, refusal.to_string())
}

/// The last answer of a connection.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
