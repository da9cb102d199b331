//! `vitrine extract`: what a model computes at some of its points, as arrays in a file.

mod file;

use super::{Resolved, resolve};
use crate::args::{Extract, Pool};
use crate::hub::resolve_data;
use crate::output::{self, Align, Failure, Outcome, bytes, line, note, table, thousands, warn};
use crate::progress::Progress;
use crate::report;
use file::{Array, ArrayFile, Kind, is_npy};
use serde::Serialize;
use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;
use vitrine_autograd::Tape;
use vitrine_bert::{Extent, LayerPoint, Loaded, Point, Tap, TappedModel, Taps, TokenBatch};
use vitrine_tensor::{DType, Device};
use vitrine_train::data::{self, LoadOptions, Purpose};

/// Tokens that are run at once: of matrices and of logits over a vocabulary one text's.
const BATCH_TOKENS: usize = 4096;
/// The largest number of arrays: more would make a header that no program reads at ease.
const MOST_ARRAYS: usize = 100_000;

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    output: String,
    bytes: u64,
    texts: usize,
    tokens: usize,
    truncated: usize,
    pool: String,
    arrays: Vec<Value>,
    seconds: f64,
    resolved: Resolved,
}

/// The texts, as tokens.
struct Texts {
    ids: Vec<Vec<u32>>,
    labels: Option<Vec<u32>>,
    truncated: usize,
}

/// A point, and the array (of the first text, for one that has a value for each) that it is written to.
struct Column {
    point: Point,
    tap: Tap,
    array: usize,
}

/// Runs the command.
pub fn run(arguments: &Extract) -> Outcome {
    let started = Instant::now();
    check_output(arguments)?;
    let resolved = resolve(&arguments.compute)?;
    let Loaded { mut model, tokenizer, notes } = TappedModel::load(&arguments.model.trained()?)?;
    notes.iter().for_each(warn);
    let wanted = points(arguments, &model)?;
    let max_length = report::max_length(arguments.max_length, model.config())?;
    let tokenizer = report::truncating(tokenizer, arguments.truncate, false);
    let texts = read(arguments, &model, |text| tokenizer.encode(text, max_length))?;
    if texts.truncated > 0 {
        let (cut, of) = (thousands(texts.truncated), thousands(texts.ids.len()));
        warn(format!("{cut} of {of} texts are longer than {max_length} tokens and were cut"));
    }
    let mut taps = Taps::new();
    let mut arrays = Vec::new();
    let columns: Vec<Column> = wanted
        .iter()
        .map(|&point| {
            let column = Column { point, tap: taps.read(point), array: arrays.len() };
            arrays.extend(arrays_of(point, arguments, &model, &texts));
            column
        })
        .collect();
    let floats = arrays.len();
    if floats > MOST_ARRAYS {
        return Err(Failure::Usage(format!(
            "{} arrays: scores and probabilities have one a text; choose fewer texts with --rows, or fewer --taps",
            thousands(floats)
        )));
    }
    if is_npy(&arguments.output) {
        if floats != 1 {
            return Err(Failure::Usage(format!(
                "--output {}: a .npy file holds one array, and --taps make {floats}; use .safetensors",
                arguments.output.display()
            )));
        }
    } else {
        arrays.extend(places(&texts));
    }
    model.prepare(resolved.place, resolved.compute)?;
    note(resolved.line());
    let mut output = ArrayFile::new(&arguments.output, arrays, &metadata(arguments, &wanted))?;
    write_places(&mut output, floats, &texts)?;
    extract(&model, &texts, &taps, &columns, &wanted, arguments.pool, &mut output)?;
    let (size, described) = (output.bytes(), output.arrays().map(described).collect::<Vec<_>>());
    output.finish()?;
    let summary = Summary {
        output: arguments.output.display().to_string(),
        bytes: size,
        texts: texts.ids.len(),
        tokens: texts.tokens(),
        truncated: texts.truncated,
        pool: name_of(arguments.pool),
        arrays: described,
        seconds: started.elapsed().as_secs_f64(),
        resolved,
    };
    if arguments.json { output::json(&summary) } else { print(&summary) }
}

/// Refuses an output that cannot be written, before anything is computed.
fn check_output(arguments: &Extract) -> Outcome {
    let path = &arguments.output;
    let refuse = |why: &str| Err(Failure::Usage(format!("--output {}: {why}", path.display())));
    if !is_npy(path) && path.extension().is_none_or(|extension| extension != "safetensors") {
        return refuse("name a .safetensors or a .npy file");
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) || path.is_dir() {
        return refuse("name a file in a folder that is there");
    }
    if path.exists() && !arguments.overwrite {
        return refuse("there is a file already; name another, or give --overwrite");
    }
    Ok(())
}

/// The points that are asked for.
fn points(arguments: &Extract, model: &TappedModel) -> Outcome<Vec<Point>> {
    let last = Point::Layer(model.config().num_hidden_layers.saturating_sub(1), LayerPoint::Output);
    if arguments.taps.is_empty() {
        return Ok(vec![last]);
    }
    let chosen = Point::choose(model.points(), &arguments.taps);
    let chosen = chosen.map_err(|error| Failure::Usage(format!("--taps: {error}")))?;
    if arguments.pool != Pool::None
        && let Some(point) = chosen.iter().find(|point| point.by_sequence())
    {
        let pool = name_of(arguments.pool);
        return Err(Failure::Usage(format!("--pool {pool}: {point} is a matrix of tokens; use --pool none")));
    }
    Ok(chosen)
}

/// The texts that are asked for.
fn read(
    arguments: &Extract,
    model: &TappedModel,
    encode: impl Fn(&str) -> vitrine_bert::Result<vitrine_bert::Encoding>,
) -> Outcome<Texts> {
    let remembered = model.config().data_columns();
    let options = LoadOptions {
        text_column: arguments.text_column.clone(),
        remembered_text_column: remembered.text,
        remembered_label_column: remembered.label,
        ..LoadOptions::default()
    };
    let data = arguments.data.as_deref().map(|path| resolve_data(path, Purpose::Labelled)).transpose()?;
    let (mut texts, mut labels) = match &data {
        None => (arguments.texts.clone(), None),
        Some(folder) if folder.is_dir() => {
            let (rows, remarks) = data::load_evaluation(folder, &options)?;
            remarks.iter().for_each(warn);
            let pairs = rows.examples.into_iter().map(|example| (example.text, example.label));
            let (texts, labels): (Vec<String>, Vec<u32>) = pairs.unzip();
            (texts, Some(labels))
        }
        Some(file) => {
            let (texts, remarks) = data::read_texts(file, &options)?;
            remarks.iter().for_each(note);
            (texts, None)
        }
    };
    let rows = arguments.rows.unwrap_or(texts.len());
    texts.truncate(rows);
    labels.iter_mut().for_each(|labels| labels.truncate(rows));
    let mut progress = Progress::new("tokenize", texts.len());
    let (mut ids, mut truncated) = (Vec::with_capacity(texts.len()), 0);
    for (index, text) in texts.iter().enumerate() {
        let encoding = encode(text)?;
        truncated += usize::from(encoding.truncated);
        ids.push(encoding.ids);
        progress.set(index + 1, String::new);
    }
    Ok(Texts { ids, labels, truncated })
}

impl Texts {
    fn tokens(&self) -> usize {
        self.ids.iter().map(Vec::len).sum()
    }

    /// Runs of texts that have at most [`BATCH_TOKENS`] tokens, or `one` text.
    fn batches(&self, one: bool) -> Vec<Range<usize>> {
        let mut batches: Vec<Range<usize>> = Vec::new();
        let mut tokens = 0;
        for (index, ids) in self.ids.iter().enumerate() {
            tokens += ids.len();
            match batches.last_mut() {
                Some(last) if !one && tokens <= BATCH_TOKENS => last.end = index + 1,
                _ => {
                    batches.push(index..index + 1);
                    tokens = ids.len();
                }
            }
        }
        batches
    }
}

/// Whether a point has a row a token.
fn has_token_rows(point: Point) -> bool {
    matches!(point.shape().first(), Some(Extent::Tokens | Extent::Rows))
}

/// The columns of a point that has rows.
fn width(point: Point, model: &TappedModel) -> usize {
    let size = |&extent: &Extent| TappedModel::size(model.config(), extent);
    point.shape().last().and_then(size).unwrap_or(0)
}

fn arrays_of(point: Point, arguments: &Extract, model: &TappedModel, texts: &Texts) -> Vec<Array> {
    let kind = Kind::Float(arguments.store);
    if point.by_sequence() {
        let heads = model.config().num_attention_heads;
        let matrix = |(index, ids): (usize, &Vec<u32>)| {
            let dims = vec![heads, ids.len(), ids.len()];
            Array { name: format!("{point}.{index}"), dims, kind }
        };
        return texts.ids.iter().enumerate().map(matrix).collect();
    }
    let is_by_token = has_token_rows(point) && arguments.pool == Pool::None;
    let rows = if is_by_token { texts.tokens() } else { texts.ids.len() };
    vec![Array { name: point.to_string(), dims: vec![rows, width(point, model)], kind }]
}

/// The arrays that say what the rows are.
fn places(texts: &Texts) -> Vec<Array> {
    let whole = |name: &str, len| Array { name: name.to_owned(), dims: vec![len], kind: Kind::Whole };
    let mut arrays = vec![whole("token_ids", texts.tokens()), whole("offsets", texts.ids.len() + 1)];
    arrays.extend(texts.labels.iter().map(|labels| whole("labels", labels.len())));
    arrays
}

fn write_places(output: &mut ArrayFile, first: usize, texts: &Texts) -> Outcome {
    if output.arrays().count() == first {
        return Ok(());
    }
    output.whole_numbers(first, texts.ids.iter().flatten().map(|&id| id.into()))?;
    let mut end = 0;
    let ends = texts.ids.iter().map(move |ids| {
        end += ids.len() as u64;
        end
    });
    output.whole_numbers(first + 1, std::iter::once(0).chain(ends))?;
    match &texts.labels {
        Some(labels) => output.whole_numbers(first + 2, labels.iter().map(|&label| label.into())),
        None => Ok(()),
    }
}

fn metadata(arguments: &Extract, wanted: &[Point]) -> Vec<(&'static str, String)> {
    let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    vec![
        ("made_by", format!("vitrine {}", env!("CARGO_PKG_VERSION"))),
        ("model", arguments.model.to_string()),
        ("taps", names.join(",")),
        ("pool", name_of(arguments.pool)),
    ]
}

/// Runs the texts and writes what the taps see.
fn extract(
    model: &TappedModel,
    texts: &Texts,
    taps: &Taps,
    columns: &[Column],
    wanted: &[Point],
    pool: Pool,
    output: &mut ArrayFile,
) -> Outcome {
    let one = wanted.iter().any(|point| point.by_sequence() || point.shape().contains(&Extent::Vocabulary));
    let mut progress = Progress::new("extract", texts.ids.len());
    let mut tokens = 0;
    for range in texts.batches(one) {
        let batch = TokenBatch::new(&texts.ids[range.clone()], None, model.config())?;
        model.run(&Tape::inference(), &batch, taps, wanted)?;
        let lens: Vec<usize> = texts.ids[range.clone()].iter().map(Vec::len).collect();
        for column in columns {
            for (place, value) in taps.values(column.tap)?.iter().enumerate() {
                let numbers: Vec<f32> =
                    value.contiguous()?.to_device(Device::Cpu)?.to_dtype(DType::F32)?.to_vec()?;
                let width = width(column.point, model);
                match (column.point.by_sequence(), has_token_rows(column.point)) {
                    (true, _) => output.floats(column.array + range.start + place, 0, &numbers)?,
                    (false, true) if pool == Pool::None => {
                        output.floats(column.array, tokens * width, &numbers)?;
                    }
                    (false, true) => {
                        let rows = pooled(&numbers, &lens, width, pool);
                        output.floats(column.array, range.start * width, &rows)?;
                    }
                    (false, false) => output.floats(column.array, range.start * width, &numbers)?,
                }
            }
        }
        tokens += batch.len();
        progress.set(range.end, || format!("{} tokens", thousands(tokens)));
    }
    Ok(())
}

/// A row for each text: `lens` are the rows of each in `numbers`, of `width` columns.
fn pooled(numbers: &[f32], lens: &[usize], width: usize, pool: Pool) -> Vec<f32> {
    let mut rows = Vec::with_capacity(lens.len() * width);
    let mut rest = numbers;
    for &len in lens {
        let (text, others) = rest.split_at(len * width);
        rest = others;
        let column = |c: usize| text.iter().skip(c).step_by(width).copied();
        rows.extend((0..width).map(|c| match pool {
            Pool::None | Pool::Cls => text[c],
            Pool::Mean => (column(c).map(f64::from).sum::<f64>() / len as f64) as f32,
            // A NaN stays one.
            Pool::Max => {
                column(c).fold(f32::NEG_INFINITY, |most, x| if x > most || x.is_nan() { x } else { most })
            }
        }));
    }
    rows
}

fn name_of(pool: Pool) -> String {
    clap::ValueEnum::to_possible_value(&pool).map_or_else(String::new, |value| value.get_name().to_owned())
}

fn described(array: &Array) -> Value {
    json!({ "name": array.name, "dtype": array.kind.name(), "shape": array.dims })
}

fn print(summary: &Summary) -> Outcome {
    /// Lines of a table on a terminal.
    const SHOWN: usize = 40;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |array: &Value| ["name", "dtype", "shape"].map(|key| text(&array[key])).to_vec();
    let rows: Vec<Vec<String>> = summary.arrays.iter().take(SHOWN).map(row).collect();
    line(table(&[("array", Align::Left), ("type", Align::Left), ("shape", Align::Left)], &rows))?;
    if let Some(more) = summary.arrays.len().checked_sub(SHOWN).filter(|&more| more > 0) {
        line(format!("and {} more", thousands(more)))?;
    }
    line(format!(
        "{} texts, {} tokens: {} in {}, {:.1} s",
        thousands(summary.texts),
        thousands(summary.tokens),
        bytes(summary.bytes as usize),
        Path::new(&summary.output).display(),
        summary.seconds
    ))
}
