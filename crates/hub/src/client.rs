//! Requests to the hub: redirects, the access token, retries, and what a status code means.

use crate::address::{encoded, is_loopback, joined, site};
use crate::listing::Listing;
use crate::{Event, HubError, Kind, Observer, RepoId, Result, Settings};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Error, Timeout};

/// The most redirects of a request.
const REDIRECTS: usize = 8;
/// The most bytes of a description of a repository.
const MAX_ANSWER: u64 = 64 << 20;
/// The longest wait that a server may ask for; it is not slept longer without a word.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// The hub, as requests are made to it.
pub(crate) struct Client {
    agent: Agent,
    settings: Settings,
}

/// How often a request may still fail.
pub(crate) struct Retries {
    attempt: u32,
    attempts: u32,
    backoff: Duration,
}

impl Retries {
    /// Counts from the beginning: there was progress.
    pub fn reset(&mut self) {
        self.attempt = 1;
    }

    /// Waits before the next attempt, `after` or with a doubling wait; false if there is none.
    pub fn wait(&mut self, why: &str, after: Option<Duration>, observer: &mut Observer<'_>) -> bool {
        let wait = after.unwrap_or(self.backoff * 2u32.saturating_pow(self.attempt - 1));
        if self.attempt >= self.attempts || wait > LONGEST_WAIT {
            return false;
        }
        self.attempt += 1;
        observer(Event::Retry { why, seconds: wait.as_secs_f64() });
        std::thread::sleep(wait);
        true
    }
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &settings.certificates {
            tls = tls.root_certs(certificates(path)?);
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here: the token must not go with them.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .timeout_per_write(Some(settings.read_timeout))
            .user_agent(concat!("vitrine/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build());
        if is_loopback(&settings.endpoint) {
            config = config.proxy(None);
        }
        Ok(Client { agent: config.build().into(), settings: settings.clone() })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn retries(&self) -> Retries {
        Retries { attempt: 1, attempts: self.settings.attempts, backoff: self.settings.backoff }
    }

    /// What the hub says of a revision.
    pub fn listing(&self, id: &RepoId, observer: &mut Observer<'_>) -> Result<Listing> {
        let (kind, revision) = (id.kind.plural(), encoded(&id.revision, ""));
        let url = format!("{}/api/{kind}/{}/revision/{revision}?blobs=true", self.settings.endpoint, id.name);
        let mut retries = self.retries();
        loop {
            let mut response = self.request(id, None, &url, 0, &mut retries, false, observer)?;
            match response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec() {
                Ok(json) => return Listing::from_answer(id, &url, &json),
                Err(error) if is_transient(&error) => {
                    let why = error.to_string();
                    if !retries.wait(&why, None, observer) {
                        return Err(HubError::Dropped { what: url, attempts: self.settings.attempts, why });
                    }
                }
                Err(error) => return Err(HubError::Protocol { url, why: error.to_string() }),
            }
        }
    }

    /// The answer for a file, from byte `from` on. Its status is 200, 206 or 416.
    pub fn file(
        &self,
        id: &RepoId,
        commit: &str,
        file: &str,
        from: u64,
        retries: &mut Retries,
        observer: &mut Observer<'_>,
    ) -> Result<Response<Body>> {
        let (endpoint, prefix) = (&self.settings.endpoint, id.kind.prefix());
        let url = format!("{endpoint}/{prefix}{}/resolve/{commit}/{}", id.name, encoded(file, "/"));
        self.request(id, Some(file), &url, from, retries, true, observer)
    }

    /// A request that is made until it is answered. `reached`: the hub has answered before, so that a connection which cannot be made
    /// is worth another attempt.
    fn request(
        &self,
        id: &RepoId,
        file: Option<&str>,
        url: &str,
        from: u64,
        retries: &mut Retries,
        reached: bool,
        observer: &mut Observer<'_>,
    ) -> Result<Response<Body>> {
        let mut reached = reached;
        loop {
            let (why, after, error) = match self.get(url, from) {
                Ok(response) => match response.status().as_u16() {
                    200 | 206 | 416 => return Ok(response),
                    status => {
                        reached = true;
                        let after = retry_after(response.headers());
                        let error = self.refused(id, file, url, &response);
                        if status != 429 && status < 500 {
                            return Err(error);
                        }
                        (format!("{} answers {status}", self.settings.endpoint), after, error)
                    }
                },
                Err(error) => {
                    let (why, transient) = (explained(&error, &self.settings), is_transient(&error));
                    let what = file.map_or(id.to_string(), |file| format!("{file} of {id}"));
                    if !transient || !reached && is_unreachable(&error) {
                        let (endpoint, cache) = (self.settings.endpoint.clone(), self.settings.cache.clone());
                        return Err(HubError::Unreachable { what, cache, endpoint, why });
                    }
                    let dropped =
                        HubError::Dropped { what, attempts: self.settings.attempts, why: why.clone() };
                    (why, None, dropped)
                }
            };
            if !retries.wait(&why, after, observer) {
                return Err(error);
            }
        }
    }

    /// One attempt, with its redirects. Only the hub itself is shown the token, never the server that it keeps large files on.
    fn get(&self, url: &str, from: u64) -> std::result::Result<Response<Body>, Error> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            // What is hashed and counted are the bytes of the file.
            let mut request = self.agent.get(&url).header("Accept-Encoding", "identity");
            if let Some(token) = &self.settings.token
                && site(&url) == site(&self.settings.endpoint)
            {
                request = request.header("Authorization", format!("Bearer {}", token.secret));
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let response = request.call()?;
            let location = text(response.headers(), "location");
            match (response.status().as_u16(), location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => {
                    let next = joined(&url, location);
                    if url.starts_with("https://") && !next.starts_with("https://") {
                        return Err(Error::RequireHttpsOnly(next));
                    }
                    url = next;
                }
                _ => return Ok(response),
            }
        }
        Err(Error::TooManyRedirects)
    }

    /// What an answer other than the file means.
    fn refused(&self, id: &RepoId, file: Option<&str>, url: &str, response: &Response<Body>) -> HubError {
        let (status, headers) = (response.status().as_u16(), response.headers());
        let code = text(headers, "x-error-code").unwrap_or_default();
        let message = text(headers, "x-error-message").unwrap_or_default();
        let endpoint = self.settings.endpoint.clone();
        let page = format!("{endpoint}/{}{}", id.kind.prefix(), id.name);
        let (name, token) = (id.name.clone(), self.settings.token.as_ref());
        match (status, code) {
            (401 | 403, "GatedRepo") => {
                let token = match token {
                    None => "and set HF_TOKEN to an access token of that account (or run `hf auth login`)",
                    Some(_) => "with the account that the access token (HF_TOKEN) is of",
                };
                HubError::Gated { id: name, page, token }
            }
            (404, "RevisionNotFound") => {
                let page = format!("{page}/tree/main");
                HubError::Revision { id: name, revision: id.revision.clone(), page }
            }
            (404, "EntryNotFound") if file.is_some() => {
                HubError::Entry { id: name, file: file.unwrap_or_default().to_owned() }
            }
            (401, _) if message.starts_with("Invalid") && token.is_some() => {
                let origin = token.map(|token| token.origin.clone()).unwrap_or_default();
                HubError::Token { id: name, origin, endpoint }
            }
            // The hub answers 401 for repositories that are not there, too, so that nobody finds out which ones are private.
            (404, "RepoNotFound") | (401, _) | (404, "") => {
                let token = match (token, id.kind) {
                    (None, Kind::Model) => {
                        ", and for a private one set HF_TOKEN; a data set is fetched with --dataset or --data"
                    }
                    (None, Kind::Dataset) => {
                        ", and for a private one set HF_TOKEN; a model is fetched without --dataset or with --model"
                    }
                    (Some(_), _) => ", and whether the access token (HF_TOKEN) may read it",
                };
                HubError::NotFound { kind: id.kind.word(), id: name, endpoint, token }
            }
            _ => {
                let hint = match status {
                    403 => "; see whether the access token (HF_TOKEN) may read it".to_owned(),
                    429 => match retry_after(headers) {
                        Some(wait) => {
                            format!("; too many requests, it wants {} s of patience", wait.as_secs())
                        }
                        None => "; too many requests, try again in some minutes".to_owned(),
                    },
                    500.. => "; try again later".to_owned(),
                    _ => String::new(),
                };
                let shown: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
                let message = if shown.is_empty() { shown } else { format!(" ({shown})") };
                HubError::Status { url: url.to_owned(), status, message, hint }
            }
        }
    }
}

fn certificates(path: &Path) -> Result<RootCerts> {
    let refuse = |why: String| HubError::Setting {
        variable: "SSL_CERT_FILE",
        value: path.display().to_string(),
        why: format!(
            "{why}; a file of certificates (PEM) is expected (or REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE)"
        ),
    };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let found = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(refuse("no certificates in it".into()));
    }
    Ok(RootCerts::Specific(std::sync::Arc::new(found)))
}

/// A header as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What a busy server asks for: whole seconds (RFC 9110, 10.2.3). A date is not read; the wait then doubles as otherwise.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text(headers, "retry-after")?.trim().parse().ok().map(Duration::from_secs)
}

/// Whether another attempt may go better.
pub(crate) fn is_transient(error: &Error) -> bool {
    matches!(
        error,
        Error::Io(_) | Error::Timeout(_) | Error::Protocol(_) | Error::ConnectionFailed | Error::HostNotFound
    )
}

/// Whether no connection could be made.
fn is_unreachable(error: &Error) -> bool {
    match error {
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::Timeout(Timeout::Connect | Timeout::Resolve) => true,
        // The lookup of a name and a certificate have kinds of their own on every system; a connection that was there breaks like this.
        Error::Io(error) => !matches!(
            error.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock
        ),
        _ => false,
    }
}

/// What went wrong, for people.
pub(crate) fn explained(error: &Error, settings: &Settings) -> String {
    match error {
        Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            format!("no connection within {} s", settings.connect_timeout.as_secs_f64())
        }
        Error::Timeout(_) => {
            format!("nothing came for {} s (HF_HUB_DOWNLOAD_TIMEOUT)", settings.read_timeout.as_secs_f64())
        }
        Error::HostNotFound => "its name is not known".into(),
        Error::Io(error) => error.to_string(),
        Error::RequireHttpsOnly(to) => {
            format!("it leads from https to {to}, which anybody can change on the way")
        }
        Error::TooManyRedirects => "it leads in circles".into(),
        error => error.to_string(),
    }
}
