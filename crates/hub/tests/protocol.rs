//! Downloads from a hub on this machine, whole and broken in every way that networks have.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{COMMIT, Contents, Reply, Server, part};
use tempfile::TempDir;
use vitrine_hub::{Event, Hub, HubError, Kind, RepoId, Settings, Snapshot};

const CONFIG: &[u8] = b"{\"model_type\": \"bert\"}\n";

/// Bytes that are no pattern, so that a wrong offset shows.
fn weights() -> Vec<u8> {
    (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn model() -> Contents {
    let weights = weights();
    let files: [(&str, &[u8]); 4] = [
        ("config.json", CONFIG),
        ("model.safetensors", &weights),
        ("onnx/model.onnx", b"no"),
        ("empty.txt", b""),
    ];
    Contents::default().with("models/owner/name", &files)
}

/// The settings of a test: short waits, and nothing from the environment of whoever runs it.
fn settings(server: &str, cache: &Path) -> Settings {
    let variables = [("HF_ENDPOINT", server.to_owned()), ("HF_HUB_CACHE", cache.display().to_string())];
    let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    Settings {
        attempts: 3,
        backoff: Duration::from_millis(1),
        read_timeout: Duration::from_millis(400),
        ..Settings::from_variables(&variable).expect("these can be used")
    }
}

fn id() -> RepoId {
    RepoId::parse(Kind::Model, "owner/name").expect("a name")
}

/// Fetches files, and what happened meanwhile.
fn fetch(hub: &Hub, id: &RepoId, files: &[&str]) -> (Result<Snapshot, HubError>, Vec<String>) {
    let mut events = Vec::new();
    let mut observer = |event: Event<'_>| match event {
        Event::Bytes { .. } => {}
        other => events.push(format!("{other:?}")),
    };
    let wanted: Vec<String> = files.iter().map(|&name| name.to_owned()).collect();
    let result = hub.find(id, false, &|_| Ok(wanted.clone()), &mut observer).and_then(|(snapshot, files)| {
        hub.download(&snapshot, &files, &mut observer)?;
        snapshot.remember()?;
        Ok(snapshot)
    });
    (result, events)
}

const BOTH: [&str; 2] = ["config.json", "model.safetensors"];

/// Asserts that a download failed with one line that says these words, and that no file has its name.
fn refused(contents: Contents, words: &[&str]) -> (Server, String) {
    let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
    let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
    let message = fetch(&hub, &id(), &["model.safetensors"]).0.expect_err("nothing good came").to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} in {message}");
    }
    assert!(!message.contains('\n'), "{message}");
    let snapshot = cache.path().join(format!("models--owner--name/snapshots/{COMMIT}/model.safetensors"));
    assert!(!snapshot.exists());
    let blobs =
        std::fs::read_dir(cache.path().join("models--owner--name/blobs")).into_iter().flatten().flatten();
    for blob in blobs {
        assert!(blob.file_name().to_string_lossy().ends_with(".incomplete"), "{blob:?}");
    }
    (server, message)
}

/// What breaks requests for the weights only.
fn of_weights(fault: impl Fn(&support::Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Contents {
    model().failing(
        move |request, before| {
            if request.path.contains("large/") { fault(request, before) } else { None }
        },
    )
}

#[test]
fn files_come_once_into_the_layout_of_huggingface_hub() {
    let (server, cache) = (Server::start(model()), TempDir::new().unwrap());
    let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
    assert!(hub.cached(&id()).unwrap().is_none());
    let snapshot =
        fetch(&hub, &id(), &["config.json", "model.safetensors", "onnx/model.onnx", "empty.txt"]).0.unwrap();
    let storage = cache.path().join("models--owner--name");
    let folder = storage.join("snapshots").join(COMMIT);
    assert_eq!(snapshot.folder(), folder);
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(std::fs::read(folder.join("onnx/model.onnx")).unwrap(), b"no");
    assert_eq!(std::fs::read_to_string(storage.join("refs/main")).unwrap(), COMMIT);
    #[cfg(unix)]
    {
        // echo '{"model_type": "bert"}' | git hash-object --stdin
        let target = std::fs::read_link(folder.join("config.json")).unwrap();
        assert_eq!(target, Path::new("../../blobs/dc1fb7b6703fe03317c1a080b523bf475f3d4818"));
        let target = std::fs::read_link(folder.join("onnx/model.onnx")).unwrap();
        assert!(target.starts_with("../../../blobs"), "{target:?}");
    }
    let tree = std::fs::read_to_string(storage.join(format!("trees/{COMMIT}.json"))).unwrap();
    assert!(tree.contains("\"format_version\": 1") && tree.contains("\"lfs_sha256\""), "{tree}");
    for blob in std::fs::read_dir(storage.join("blobs")).unwrap() {
        assert!(!blob.unwrap().file_name().to_string_lossy().contains("incomplete"));
    }
    let before = server.seen().len();
    fetch(&hub, &id(), &BOTH).0.unwrap();
    assert_eq!(server.seen().len(), before, "what is there needs no request");
    // With `refresh` one request looks whether the branch has moved, and nothing is downloaded.
    let found = hub.find(&id(), true, &|_| Ok(BOTH.map(str::to_owned).to_vec()), &mut |_| ()).unwrap();
    assert!(found.0.missing(&found.1).is_empty());
    assert_eq!(server.seen().len(), before + 1);
    // A commit never moves.
    let commit = RepoId { revision: COMMIT.into(), ..id() };
    hub.find(&commit, true, &|_| Ok(BOTH.map(str::to_owned).to_vec()), &mut |_| ()).unwrap();
    assert_eq!(server.seen().len(), before + 1);
}

#[test]
fn a_blob_that_was_cut_is_fetched_again() {
    let (server, cache) = (Server::start(model()), TempDir::new().unwrap());
    let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
    let path = fetch(&hub, &id(), &BOTH).0.unwrap().folder().join("model.safetensors");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    fetch(&hub, &id(), &BOTH).0.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), weights());
}

#[test]
fn a_download_that_breaks_goes_on_where_it_ended() {
    // Each answer brings 100,000 bytes more: more breaks than attempts, but there is progress.
    let contents =
        of_weights(|request, _| Some(Reply { cut: Some(70_000), ..part(&weights(), request.from()) }));
    let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
    let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
    let (result, events) = fetch(&hub, &id(), &BOTH);
    assert_eq!(std::fs::read(result.unwrap().folder().join("model.safetensors")).unwrap(), weights());
    let starts: Vec<usize> = server.seen().iter().filter_map(support::Request::from).collect();
    assert!(starts.len() >= 4 && starts.is_sorted_by(|a, b| a <= b), "{starts:?}");
    assert!(events.iter().any(|event| event.starts_with("Retry")), "{events:?}");
}

#[test]
fn another_process_resumes_what_a_killed_one_has_left() {
    let weights = weights();
    for (left, resumed_at) in
        [(&weights[..123_456], Some(123_456)), (&weights[..], None), (&[0; 400_000][..], None)]
    {
        let (server, cache) = (Server::start(model()), TempDir::new().unwrap());
        let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
        let sha256 = match hub
            .look_up(&id(), &mut |_| ())
            .unwrap()
            .listing()
            .get("model.safetensors")
            .unwrap()
            .hash
            .clone()
        {
            vitrine_hub::Hash::Sha256(digits) => digits,
            other @ vitrine_hub::Hash::Git(_) => panic!("{other:?}"),
        };
        let blobs = cache.path().join("models--owner--name/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(format!("{sha256}.incomplete")), left).unwrap();
        let snapshot = fetch(&hub, &id(), &BOTH).0.unwrap();
        assert_eq!(std::fs::read(snapshot.folder().join("model.safetensors")).unwrap(), weights);
        let requests: Vec<_> =
            server.seen().into_iter().filter(|request| request.path.contains("large/")).collect();
        assert_eq!(requests.first().and_then(support::Request::from), resumed_at);
    }
}

#[test]
fn wrong_bytes_of_an_earlier_download_are_replaced() {
    let (server, cache) = (Server::start(model()), TempDir::new().unwrap());
    let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
    let snapshot = hub.look_up(&id(), &mut |_| ()).unwrap();
    let digits = snapshot.listing().get("model.safetensors").unwrap().hash.digits().to_owned();
    let blobs = cache.path().join("models--owner--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{digits}.incomplete")), [7; 1000]).unwrap();
    let (snapshot, events) = fetch(&hub, &id(), &BOTH);
    assert_eq!(std::fs::read(snapshot.unwrap().folder().join("model.safetensors")).unwrap(), weights());
    assert!(events.iter().any(|event| event.starts_with("Resumed")), "{events:?}");
}

#[test]
fn a_server_without_ranges_sends_the_whole_again() {
    for status in [200, 416] {
        let contents = of_weights(move |request, before| match (before, request.from(), status) {
            (0, ..) => Some(Reply { cut: Some(1000), ..Reply::file(&weights()) }),
            (_, Some(_), 416) => Some(Reply::status(416, &[])),
            _ => Some(Reply::file(&weights())),
        });
        let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
        let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
        let snapshot = fetch(&hub, &id(), &BOTH).0.unwrap();
        assert_eq!(std::fs::read(snapshot.folder().join("model.safetensors")).unwrap(), weights());
    }
    // And if it also breaks at the same byte for ever, there is an end.
    let contents = of_weights(|request, _| match request.from() {
        Some(_) => Some(Reply::status(416, &[])),
        None => Some(Reply { cut: Some(1000), ..Reply::file(&weights()) }),
    });
    refused(contents, &["model.safetensors", "failed 3 times"]);
}

#[test]
fn wrong_bytes_get_no_name() {
    let mut wrong = weights();
    wrong[200_000] ^= 1;
    let contents = of_weights(move |request, _| Some(part(&wrong, request.from())));
    refused(contents, &["model.safetensors", "SHA-256", "announced", "nothing was kept"]);
    let contents = model().failing(|request, _| {
        request.path.ends_with("config.json").then(|| Reply::file(b"{\"model_type\": \"evil\"}\n"))
    });
    let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
    let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
    let message = fetch(&hub, &id(), &["config.json"]).0.unwrap_err().to_string();
    assert!(message.contains("config.json: git's SHA-1"), "{message}");
}

#[test]
fn another_size_than_announced_is_refused_before_it_is_read() {
    for size in [299_999u64, 300_001, 1 << 40] {
        let contents = of_weights(move |_, _| {
            let mut reply = Reply::file(&weights());
            reply.headers.push(("Content-Length".into(), size.to_string()));
            Some(reply)
        });
        refused(contents, &["model.safetensors", &size.to_string(), "announced 300000"]);
    }
    // Chunked, so that only the end would say the size.
    let contents = of_weights(|_, _| {
        let chunk = [&b"20000\r\n"[..], &[7; 0x20000], b"\r\n"].concat();
        Some(Reply { body: chunk.repeat(4), ..Reply::status(200, &[("Transfer-Encoding", "chunked")]) })
    });
    refused(contents, &["model.safetensors", "more bytes came", "announced 300000"]);
}

#[test]
fn what_status_codes_mean_is_said_with_what_to_do() {
    let answers = |status, headers: &'static [(&'static str, &'static str)]| {
        model().failing(move |_, _| Some(Reply::status(status, headers)))
    };
    refused(
        answers(401, &[("X-Error-Code", "RepoNotFound")]),
        &["owner/name: no such model", "HF_TOKEN", "--dataset"],
    );
    refused(answers(404, &[("X-Error-Code", "RepoNotFound")]), &["no such model"]);
    refused(answers(401, &[]), &["no such model", "private"]);
    refused(answers(404, &[("X-Error-Code", "RevisionNotFound")]), &["no branch, tag or commit `main`"]);
    refused(answers(400, &[("X-Error-Message", "odd request")]), &["400", "odd request"]);
    let (server, message) =
        refused(answers(403, &[("X-Error-Code", "GatedRepo")]), &["accept its terms at", "HF_TOKEN"]);
    assert!(message.contains(&format!("{}/owner/name", server.address)), "{message}");
    // Metadata of gated repositories are public, and their files not.
    let gated = model().failing(|request, _| {
        request.path.contains("resolve").then(|| Reply::status(401, &[("X-Error-Code", "GatedRepo")]))
    });
    refused(gated, &["access is restricted"]);
    let (server, _) = refused(answers(503, &[]), &["503", "try again later"]);
    assert_eq!(server.count("/api/"), 3);
    let (server, _) = refused(answers(429, &[("Retry-After", "3600")]), &["429", "3600 s of patience"]);
    assert_eq!(server.count("/api/"), 1, "nobody sleeps an hour without a word");
    refused(
        model().failing(|_, _| Some(Reply::file(b"<html>"))),
        &["no description of a repository", "HF_ENDPOINT"],
    );
    refused(answers(302, &[("Location", "/again")]), &["circles"]);
}

#[test]
fn a_refused_token_is_named_by_where_it_is_from() {
    let contents = model().failing(|_, _| {
        Some(Reply::status(401, &[("X-Error-Message", "Invalid credentials in Authorization header")]))
    });
    let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
    let hub = Hub::new(with_token(&server, cache.path())).unwrap();
    let message = fetch(&hub, &id(), &BOTH).0.unwrap_err().to_string();
    assert!(
        message.contains("refuses the access token from HF_TOKEN") && !message.contains("hf_secret"),
        "{message}"
    );
}

fn with_token(server: &Server, cache: &Path) -> Settings {
    let token = |name: &str| match name {
        "HF_TOKEN" => Some("hf_secret".into()),
        "HF_HOME" => Some(cache.into()),
        _ => None,
    };
    let token = Settings::from_variables(&token).unwrap().token;
    Settings { token, ..settings(&server.address, cache) }
}

#[test]
fn the_token_goes_to_the_hub_and_not_where_that_redirects_to() {
    let large = Server::start(model());
    let contents = Contents { large_files_at: Some(large.address.clone()), ..model() };
    let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
    let hub = Hub::new(with_token(&server, cache.path())).unwrap();
    fetch(&hub, &id(), &BOTH).0.unwrap();
    let sent = |server: &Server| -> Vec<Option<String>> {
        server.seen().iter().map(|request| request.headers.get("authorization").cloned()).collect()
    };
    assert_eq!(sent(&server), vec![Some("Bearer hf_secret".to_owned()); 3]);
    assert_eq!(sent(&large), [None]);
}

#[test]
fn a_renamed_repository_is_followed() {
    let contents = model().failing(|request, _| {
        let renamed = request.path.replace("old-name", "owner/name");
        (renamed != request.path).then(|| Reply::status(307, &[("Location", &renamed)]))
    });
    let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
    let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
    let old = RepoId::parse(Kind::Model, "old-name").unwrap();
    assert!(fetch(&hub, &old, &BOTH).0.unwrap().folder().join("config.json").exists());
}

#[test]
fn a_busy_hub_is_asked_again_when_it_wants() {
    let contents = model().failing(|request, before| match (request.path.contains("/api/"), before) {
        (true, 0) => Some(Reply::status(429, &[("Retry-After", "1")])),
        (true, 1) | (false, 0) => Some(Reply::status(500, &[])),
        _ => None,
    });
    let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
    let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
    let started = Instant::now();
    let (result, events) = fetch(&hub, &id(), &["config.json"]);
    result.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(events[0].contains("answers 429") && events[0].contains("seconds: 1.0"), "{events:?}");
    assert_eq!(events.len(), 3, "{events:?}");
}

#[test]
fn a_slow_server_is_not_waited_for_without_end() {
    let started = Instant::now();
    let contents =
        of_weights(|_, _| Some(Reply { delay: Duration::from_secs(30), ..Reply::file(&weights()) }));
    refused(
        contents,
        &["model.safetensors", "failed 3 times", "nothing came for 0.4 s", "HF_HUB_DOWNLOAD_TIMEOUT"],
    );
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn a_file_outside_of_its_folder_is_refused() {
    let contents = model().failing(|request, _| {
        let json = format!(
            r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "../../../escaped", "size": 1, "blobId": "{COMMIT}"}}]}}"#
        );
        request.path.contains("/api/").then(|| Reply::file(json.as_bytes()))
    });
    refused(contents, &["../../../escaped", "would not stay in its folder"]);
}

#[test]
fn two_at_once_download_once() {
    static WAITED: AtomicBool = AtomicBool::new(false);
    let contents = of_weights(|request, _| {
        Some(Reply { delay: Duration::from_millis(200), ..part(&weights(), request.from()) })
    });
    let (server, cache) = (Server::start(contents), TempDir::new().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let hub = Hub::new(settings(&server.address, cache.path())).unwrap();
                let (snapshot, events) = fetch(&hub, &id(), &["model.safetensors"]);
                assert_eq!(
                    std::fs::read(snapshot.unwrap().folder().join("model.safetensors")).unwrap(),
                    weights()
                );
                if events.iter().any(|event| event.starts_with("Waiting")) {
                    WAITED.store(true, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(server.count("large/"), 1);
    assert!(WAITED.load(Ordering::Relaxed), "the second one says that it waits");
}

#[test]
fn without_a_network_the_cache_is_used_or_what_lacks_is_named() {
    let (server, cache) = (Server::start(model()), TempDir::new().unwrap());
    let there = |offline: bool, address: &str| Settings { offline, ..settings(address, cache.path()) };
    // Nothing listens on the port of a listener that is gone.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = format!("http://{gone}");
    let refused = |settings: Settings, files: &[&str]| {
        fetch(&Hub::new(settings).unwrap(), &id(), files).0.unwrap_err().to_string()
    };
    let cache_name = cache.path().display().to_string();
    for (settings, word) in [
        (there(true, &server.address), "HF_HUB_OFFLINE"),
        (there(false, &gone), "cannot be reached"),
        (there(false, "http://hub.invalid"), "cannot be reached"),
    ] {
        let message = refused(settings, &BOTH);
        assert!(message.starts_with("owner/name: not in the cache"), "{message}");
        assert!(
            message.contains(word) && message.contains(&cache_name) && !message.contains('\n'),
            "{message}"
        );
    }
    assert_eq!(server.seen().len(), 0);
    fetch(&Hub::new(there(false, &server.address)).unwrap(), &id(), &["config.json"]).0.unwrap();
    for settings in [there(true, &server.address), there(false, &gone)] {
        let hub = Hub::new(settings.clone()).unwrap();
        fetch(&hub, &id(), &["config.json"]).0.unwrap();
        let message = refused(settings, &BOTH);
        assert!(message.starts_with("model.safetensors of owner/name: not in the cache"), "{message}");
    }
    // What is there is also used where the hub should be asked again.
    let mut stale = false;
    let hub = Hub::new(there(false, &gone)).unwrap();
    let mut observer = |event: Event<'_>| stale |= matches!(event, Event::Stale { .. });
    hub.find(&id(), true, &|_| Ok(vec!["config.json".into()]), &mut observer).unwrap();
    assert!(stale);
}

#[test]
fn a_cache_that_another_program_filled_is_used_without_a_network_only() {
    let cache = TempDir::new().unwrap();
    let storage = cache.path().join("models--owner--name");
    let folder = storage.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::create_dir_all(storage.join("refs")).unwrap();
    std::fs::write(storage.join("refs/main"), COMMIT).unwrap();
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
    let server = Server::start(model());
    let offline = Settings { offline: true, ..settings(&server.address, cache.path()) };
    let (snapshot, events) = fetch(&Hub::new(offline).unwrap(), &id(), &["config.json"]);
    assert!(!snapshot.unwrap().is_listed() && events == ["Unlisted"], "{events:?}");
    let snapshot =
        fetch(&Hub::new(settings(&server.address, cache.path())).unwrap(), &id(), &BOTH).0.unwrap();
    assert!(snapshot.is_listed() && snapshot.has("model.safetensors"));
    assert_eq!(server.count("config.json"), 0, "it is there already");
}
