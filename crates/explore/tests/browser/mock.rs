//! A server with known numbers: what the page shows is compared with these.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vitrine_explore::contract::{
    Ablations, AblationsRequest, Attention, AttentionRequest, Attributions, AttributionsRequest, Bytes,
    ErrorLine, HeadNumbers, Input, Lens, LensRequest, Method, Model, Models, Overview, Prediction, Run,
    Token,
};
use vitrine_explore::{CONTENT_SECURITY_POLICY, FILES};

/// A number from 0 to 1 that depends on numbers (splitmix64).
fn chance(parts: &[usize]) -> f32 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for &part in parts {
        state = (state ^ part as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    (state >> 40) as f32 / (1u64 << 24) as f32
}

/// Models of a server.
pub fn models(sizes: &[(&str, usize, usize)]) -> Models {
    let classes = || Some(vec!["negative".to_owned(), "positive".to_owned()]);
    let models = sizes.iter().enumerate().map(|(id, &(name, layers, heads))| Model {
        id,
        name: name.to_owned(),
        layers,
        heads,
        hidden: 64 * heads,
        vocabulary: 8000,
        max_tokens: 512,
        classes: (name != "bare").then(classes).flatten(),
        masked_lm: id == 0 && name != "bare",
        lens_head_of: None,
    });
    Models {
        models: models.collect(),
        methods: vec![Method::GradientXInput, Method::IntegratedGradients, Method::Occlusion],
    }
}

/// A token a word and a mark; words over 8 letters are two. Offsets are in UTF-16 units.
fn tokens(text: &str) -> Vec<Token> {
    let special = |text: &str, at| Token {
        text: text.to_owned(),
        id: 1,
        start: at,
        end: at,
        special: true,
        continues: false,
    };
    let mut tokens = vec![special("[CLS]", 0)];
    let (mut at, mut word) = (0, None::<(usize, String)>);
    let mut finish = |word: &mut Option<(usize, String)>| {
        let Some((start, word)) = word.take() else { return };
        let letters: Vec<char> = word.chars().collect();
        let mut from = start;
        for (i, piece) in letters.chunks(8).enumerate() {
            let piece: String = piece.iter().collect();
            let end = from + piece.encode_utf16().count();
            let id = piece.bytes().fold(7, |sum: u32, byte| sum.wrapping_mul(31) + u32::from(byte)) % 8000;
            let text = format!("{}{}", if i > 0 { "##" } else { "" }, piece.to_lowercase());
            tokens.push(Token { text, id, start: from, end, special: false, continues: i > 0 });
            from = end;
        }
    };
    for letter in text.chars() {
        if letter.is_alphanumeric() {
            word.get_or_insert((at, String::new())).1.push(letter);
        } else {
            finish(&mut word);
            if !letter.is_whitespace() {
                finish(&mut Some((at, letter.to_string())));
            }
        }
        at += letter.len_utf16();
    }
    finish(&mut word);
    tokens.push(special("[SEP]", at));
    tokens
}

/// `[S, S]` probabilities of a head: a diagonal of its own, some noise, and a share that goes to [SEP].
pub fn map(input: &Input, layer: usize, head: usize) -> Vec<f32> {
    let tokens = read(input);
    let size = tokens.len();
    let shift = (chance(&[input.model, layer, head]) * 5.0) as isize - 2;
    let sink = chance(&[input.model, layer, head, 1]) * 0.5;
    let mut map = Vec::with_capacity(size * size);
    for query in 0..size {
        let row: Vec<f32> = (0..size)
            .map(|key| {
                let distance = (key as isize - query as isize - shift).unsigned_abs();
                let near = if distance < 4 { 0.6f32.powi(2 * distance as i32) } else { 0.0 };
                let blocked = |edge: &&vitrine_explore::contract::Edge| {
                    edge.query == query
                        && edge.key == key
                        && edge.layer.is_none_or(|l| l == layer)
                        && edge.head.is_none_or(|h| h == head)
                };
                let taken = input.edges.iter().find(blocked).is_none();
                let mixed =
                    tokens[query].id as usize * 31 + tokens[key].id as usize * 17 + layer * 7 + head * 3;
                let noise = 0.02 * (mixed % 97) as f32 / 97.0;
                if taken { near + noise + if key + 1 == size { 2.0 * sink } else { 0.0 } } else { 0.0 }
            })
            .collect();
        let sum: f32 = row.iter().sum();
        map.extend(row.iter().map(|value| value / sum));
    }
    map
}

fn read(input: &Input) -> Vec<Token> {
    let mut tokens = tokens(&input.text);
    if tokens.len() > 512 {
        let last = tokens.pop().unwrap();
        tokens.truncate(511);
        tokens.push(last);
    }
    tokens
}

/// The logit of "positive"; that of "negative" is its opposite.
pub fn logit(input: &Input) -> f32 {
    let of_text = 2.0 * chance(&[input.model, input.text.len()]) - 0.5;
    let heads: f32 = input.ablate.iter().map(|&(layer, head)| effect(input.model, layer, head)).sum();
    of_text + heads - 0.125 * input.edges.len() as f32
}

/// What blocking a head adds to that logit.
pub fn effect(model: usize, layer: usize, head: usize) -> f32 {
    chance(&[model, layer, head, 2]) - 0.5
}

/// The attribution of a token, for "positive".
pub fn attribution(token: &Token) -> f32 {
    let known = match token.text.as_str() {
        "not" => 0.7,
        "bad" | "hated" | "waste" => -1.25,
        "fantastic" | "loved" | "great" => 1.1,
        _ => 0.5 * chance(&[token.id as usize]) - 0.25,
    };
    if token.special { 0.0 } else { known }
}

fn run(model: &Model, input: &Input) -> Run {
    let all = tokens(&input.text).len();
    let tokens = read(input);
    let (size, cells) = (tokens.len(), tokens.len().min(64));
    let mut data = Vec::new();
    let mut heads = Vec::new();
    for layer in 0..model.layers {
        let mut row = Vec::new();
        for head in 0..model.heads {
            let map = map(input, layer, head);
            let range = |cell: usize| cell * size / cells..(cell + 1) * size / cells;
            for query in 0..cells {
                for key in 0..cells {
                    let rows = range(query).map(|query| &map[query * size..][range(key)]);
                    data.push(rows.flatten().fold(0.0f32, |most, &value| most.max(value)));
                }
            }
            let mean =
                |of: &dyn Fn(usize) -> f32| (0..size).map(|i| f64::from(of(i))).sum::<f64>() / size as f64;
            row.push(HeadNumbers {
                entropy: -map
                    .iter()
                    .filter(|value| **value > 0.0)
                    .map(|value| f64::from(value * value.ln()))
                    .sum::<f64>()
                    / size as f64,
                cls: mean(&|i| map[i * size]),
                sep: mean(&|i| map[i * size + size - 1]),
                previous: mean(&|i| if i > 0 { map[i * size + i - 1] } else { 0.0 }),
                next: mean(&|i| if i + 1 < size { map[i * size + i + 1] } else { 0.0 }),
                same: mean(&|i| map[i * size + i]),
            });
        }
        heads.push(row);
    }
    let z = logit(input);
    let positive = 1.0 / (1.0 + (-2.0 * z).exp());
    let prediction = Prediction { logits: vec![-z, z], probabilities: vec![1.0 - positive, positive] };
    let overview = Overview { cells, data: Bytes::of_probabilities(&data) };
    let prediction = model.classes.is_some().then_some(prediction);
    Run { tokens, truncated: all.saturating_sub(512), prediction, overview, heads, milliseconds: 12.5 }
}

/// The answer to a request; an error is a line.
pub fn answer(models: &Models, path: &str, body: &Value) -> Result<Value, String> {
    fn typed<T: serde::de::DeserializeOwned>(body: &Value) -> Result<T, String> {
        serde_json::from_value(body.clone()).map_err(|error| format!("the request: {error}"))
    }
    if path == "/api/models" {
        return Ok(json!(models));
    }
    let input: Input = typed(body)?;
    let model = &models.models[input.model];
    let size = read(&input).len();
    if input.text.trim().is_empty() {
        return Err("The text is empty. Type a sentence.".to_owned());
    }
    if let Some(edge) = input.edges.iter().find(|edge| edge.query.max(edge.key) >= size) {
        return Err(format!(
            "The edge {} to {} is outside of the text's {size} tokens.",
            edge.query, edge.key
        ));
    }
    let sign = |class: usize| if class == 1 { 1.0 } else { -1.0 };
    Ok(match path {
        "/api/run" => json!(run(model, &input)),
        "/api/attention" => {
            let request: AttentionRequest = typed(body)?;
            let probabilities = Bytes::of_floats(&map(&input, request.layer, request.head));
            json!(Attention { size, probabilities })
        }
        "/api/attributions" => {
            let request: AttributionsRequest = typed(body)?;
            let (class, sign) = (request.class, sign(request.class));
            let values: Vec<f32> = read(&input).iter().map(|token| sign * attribution(token)).collect();
            let sums = request.method != Method::GradientXInput;
            let total = sums.then(|| values.iter().map(|&value| f64::from(value)).sum());
            let steps = (request.method == Method::IntegratedGradients).then_some(64);
            json!(Attributions { class, values, total, gap: sums.then_some(0.0042), steps, converged: true })
        }
        "/api/lens" if !model.masked_lm => {
            json!(Lens::Unavailable { unavailable: "This model's file has no masked-LM head.".to_owned() })
        }
        "/api/lens" => {
            let request: LensRequest = typed(body)?;
            let tokens = read(&input);
            let words = |layer: usize, at: usize| {
                let likely = 0.2 + 0.7 * layer as f32 / model.layers as f32 * chance(&[layer, at]);
                let word = if layer < 2 { "the" } else { &tokens[at].text };
                vec![(word.to_owned(), likely), ("film".to_owned(), (1.0 - likely) / 2.0)]
            };
            let row =
                |layer| (request.from..request.from + request.count).map(|at| words(layer, at)).collect();
            json!(Lens::Words { from: request.from, layers: (0..=model.layers).map(row).collect() })
        }
        "/api/ablations" => {
            let request: AblationsRequest = typed(body)?;
            let (class, sign) = (request.class, sign(request.class));
            let row = |layer| (0..model.heads).map(|head| sign * effect(input.model, layer, head)).collect();
            json!(Ablations {
                class,
                logit: sign * logit(&input),
                changes: (0..model.layers).map(row).collect()
            })
        }
        _ => return Err(format!("There is no {path}.")),
    })
}

/// A server on a port of its own.
pub struct Server {
    /// `http://127.0.0.1:PORT/`.
    pub address: String,
    /// What was requested of it: path and body.
    pub requests: Arc<Mutex<Vec<(String, Value)>>>,
    shared: Arc<Shared>,
}

/// What the threads of a server share.
struct Shared {
    models: Models,
    /// Answers that were computed ahead, by path and body.
    ready: Mutex<HashMap<String, Vec<u8>>>,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    /// Serves the page and these models until the process ends. A text that begins with "slow" is answered after a second.
    pub fn new(models: Models) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let requests = Arc::default();
        let shared = Arc::new(Shared { models, ready: Mutex::default(), requests: Arc::clone(&requests) });
        let server = Server { address, requests, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A request that the page aborts is a broken pipe.
                std::thread::spawn(move || serve(&stream, &shared).unwrap_or_default());
            }
        });
        server
    }

    /// Computes an answer ahead, so that a measurement is of the page.
    pub fn prepare(&self, path: &str, body: &Value) {
        let Shared { models, ready, .. } = &*self.shared;
        let bytes = answer(models, path, body).unwrap().to_string().into_bytes();
        ready.lock().unwrap().insert(format!("{path} {body}"), bytes);
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    // A browser opens connections ahead, and closes those that it does not need.
    let Some(path) = line.split(' ').nth(1).map(str::to_owned) else { return Ok(()) };
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? < 3 {
            break;
        }
        let value = header.to_lowercase();
        length = value.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let file =
        FILES.iter().find(|(name, _, _)| path[1..] == **name || (path == "/" && *name == "index.html"));
    let (status, mime, content) = match file {
        Some((_, mime, content)) => (200, *mime, content.to_vec()),
        None => {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            shared.requests.lock().unwrap().push((path.clone(), body.clone()));
            if body["text"].as_str().is_some_and(|text| text.starts_with("slow")) {
                std::thread::sleep(Duration::from_secs(1));
            }
            let Shared { models, ready, .. } = shared;
            let prepared = ready.lock().unwrap().get(&format!("{path} {body}")).cloned();
            let answer = prepared
                .map_or_else(|| answer(models, &path, &body).map(|value| value.to_string().into_bytes()), Ok);
            match answer {
                Ok(bytes) => (200, "application/json", bytes),
                Err(error) => (422, "application/json", json!(ErrorLine { error }).to_string().into_bytes()),
            }
        }
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: {mime}\r\nContent-Length: {}\r\nContent-Security-Policy: {CONTENT_SECURITY_POLICY}\r\nConnection: close\r\n\r\n",
        content.len()
    )?;
    stream.write_all(&content)
}
