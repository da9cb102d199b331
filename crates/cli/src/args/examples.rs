//! What `--help` shows at its end. A test parses every line.

pub const ALL: &str = "Examples:
  vitrine predict 'not bad at all'
  vitrine train
  vitrine train --model models/MiniLM --data data/imdb --recipe notebook
  vitrine predict --model runs/train-001 'a wonderful film'
  vitrine doctor

Every command has more: vitrine train --help";

pub const TRAIN: &str = "Examples:
  vitrine train
  vitrine train --data data/imdb --output runs/imdb
  vitrine train --model scratch --data data/imdb --output runs/scratch
  vitrine train --model models/MiniLM --data data/imdb --output runs/minilm
  vitrine train --model google-bert/bert-base-uncased --data stanfordnlp/imdb --recipe notebook
  vitrine train --model models/MiniLM --data reviews.csv --test-data held-out.csv --epochs 4 --lr 3e-5
  vitrine train --model models/MiniLM --data data/imdb --max-length 256 --truncate head-tail
  vitrine train --model models/small --data data/imdb --distill-from runs/imdb --unlabelled texts.txt
  vitrine train --config run.toml --seed 7
  vitrine train --recipe notebook --print-config";

pub const SWEEP: &str = "Examples:
  vitrine sweep --seeds 5 --output sweeps/seeds
  vitrine sweep --grid model=embedded,scratch --seeds 3 --output sweeps/pretraining --data data/imdb
  vitrine sweep --grid lr=1e-5,2e-5,5e-5 --seeds 3 --output sweeps/lr --model models/MiniLM --data data/imdb
  vitrine sweep --grid lr=1e-5,2e-5 --grid batch-size=16,32 --output sweeps/both --config run.toml

A sweep that was stopped goes on where it was: give the same command again.";

pub const DATA_INSPECT: &str = "Examples:
  vitrine data inspect data/imdb
  vitrine data inspect data/imdb --model models/MiniLM --max-length 256
  vitrine data inspect reviews.csv --text-column body --json";

pub const DATA: &str = "Examples:
  vitrine data inspect data/imdb --model models/MiniLM";

pub const BENCH: &str = "Examples:
  vitrine bench step --config bert-base --batch 16 --seq 512
  vitrine bench kernels --only gelu";

pub const FETCH: &str = "Examples:
  vitrine fetch google-bert/bert-base-uncased
  vitrine fetch sentence-transformers/all-MiniLM-L6-v2@main distilbert/distilbert-base-uncased --json
  vitrine fetch --dataset stanfordnlp/imdb
  vitrine fetch --dataset nyu-mll/glue --subset sst2";

pub const INIT: &str = "Examples:
  vitrine init --output models/fresh
  vitrine init --config embedded --tokenizer embedded --output models/scratch
  vitrine init --config bert-mini --tokenizer models/MiniLM --output models/mini --seed 7";

pub const EVAL: &str = "Examples:
  vitrine eval --data data/imdb
  vitrine eval --model runs/imdb --data data/imdb
  vitrine eval --model runs/imdb --data held-out.csv --samples 500 --json";

pub const PREDICT: &str = "Examples:
  vitrine predict 'not bad at all'
  vitrine predict --model runs/imdb 'a wonderful film' 'two lost hours'
  vitrine predict --model runs/imdb --file reviews.csv --json
  vitrine predict --model runs/imdb --top-k 2 -";

pub const INSPECT: &str = "Examples:
  vitrine inspect
  vitrine inspect --model models/MiniLM
  vitrine inspect --model models/MiniLM --tokens 128 --json";

pub const TRACE: &str = "Examples:
  vitrine trace 'a wonderful film'
  vitrine trace --backward --label neg 'a wonderful film'
  vitrine trace --break layer.1.attention 'not bad at all'
  vitrine trace --audit --freeze embeddings,0 'not bad at all'
  vitrine trace --model embedded --html trace.html 'the movie was [MASK]'";

pub const TAP: &str = "Examples:
  vitrine tap --list
  vitrine tap --list --model models/MiniLM";

pub const EXTRACT: &str = "Examples:
  vitrine extract --model models/MiniLM --taps layer.3.attention.probs --output maps.safetensors 'not bad at all'
  vitrine extract --model models/MiniLM --data data/imdb --pool mean --rows 1000 --output means.npy
  vitrine extract --model runs/imdb --data reviews.csv --taps layer.0-5.output,pooler --pool cls --output cls.safetensors

A .safetensors file has an array for each point, and token_ids and offsets: the rows of text I are offsets[I] to offsets[I + 1]. Scores and
probabilities have an array [heads, tokens, tokens] for each text, called NAME.I.";

pub const EXPLORE: &str = "Examples:
  vitrine explore
  vitrine explore --model runs/imdb --port 8080
  vitrine explore --model embedded --compare embedded-imdb
  vitrine explore --text 'not bad at all' --html not-bad.html

Everything is computed on this machine, and the page loads nothing from elsewhere.";

pub const LOOK: &str = "Examples:
  vitrine look 'not bad at all'
  vitrine look runs/imdb 'not bad at all' --output not-bad.html
  vitrine look models/MiniLM --compare runs/imdb 'not bad at all'";

pub const CLAIMS: &str = "Examples:
  vitrine claims list
  vitrine claims run all --quick";

pub const CLAIMS_LIST: &str = "Examples:
  vitrine claims list
  vitrine claims list --json";

pub const CLAIMS_RUN: &str = "Examples:
  vitrine claims run C5 C6
  vitrine claims run all --quick
  vitrine claims run all --data data/imdb --html claims.html --plots plots";

pub const DOCTOR: &str = "Examples:
  vitrine doctor
  vitrine doctor --json";

pub const BENCH_STEP: &str = "Examples:
  vitrine bench step
  vitrine bench step --config models/MiniLM --batch 16 --seq 256 --mode infer";

pub const BENCH_KERNELS: &str = "Examples:
  vitrine bench kernels
  vitrine bench kernels --only gelu --size 64 --json";

pub const COMPLETIONS: &str = "Examples:
  vitrine completions bash > ~/.local/share/bash-completion/completions/vitrine
  vitrine completions zsh > ~/.zfunc/_vitrine
  vitrine completions fish > ~/.config/fish/completions/vitrine.fish";

pub const MAN: &str = "Examples:
  vitrine man | man -l -
  vitrine man train | man -l -
  vitrine man --output ~/.local/share/man/man1";

pub const PRETRAIN: &str = "Examples:
  vitrine pretrain --data reviews.parquet --vocab-size 8000 --config mini --epochs 6 --output models/small
  vitrine pretrain --data texts.txt --init-from embedded --minutes 30 --output models/adapted
  vitrine pretrain --data texts.txt --output models/half --save-dtype f16
  vitrine pretrain --data texts.txt --init-from models/large --init-layers 0,1 --distill-from models/large --output models/small

A run that was stopped goes on with --resume.";

pub const FILL_MASK: &str = "Examples:
  vitrine fill-mask 'the movie was absolutely [MASK]'
  vitrine fill-mask --model models/small 'the movie was absolutely [MASK]'
  vitrine fill-mask --model models/small --top-k 10 --json 'a [MASK] film'";

pub const REPLAY: &str = "Examples:
  vitrine replay runs/imdb
  vitrine replay runs/imdb --dtype f32";

pub const BASELINE: &str = "Examples:
  vitrine baseline --data data/imdb --recipe notebook --test-samples all
  vitrine baseline --data reviews.csv --ngrams 1 --most-telling 10
  vitrine baseline --run runs/imdb";

pub const REPORT: &str = "Examples:
  vitrine report runs/imdb
  vitrine report runs/first runs/second --output comparison.html";

pub const EXPLAIN: &str = "Examples:
  vitrine explain attributions 'not bad at all'
  vitrine explain ablate 'not bad at all'
  vitrine explain lens 'the film was [MASK]'";

pub const EXPLAIN_ATTRIBUTIONS: &str = "Examples:
  vitrine explain attributions 'not bad at all'
  vitrine explain attributions --method occlusion --baseline mask --class positive 'not bad at all'
  vitrine explain attributions --model runs/imdb --ablate 2.1 --block bad:not@3 --json 'not bad at all'

Values are those of tokens' word embeddings, added up over a word's tokens. [CLS] and [SEP] stay in every baseline.";

pub const EXPLAIN_ATTENTION: &str = "Examples:
  vitrine explain attention 'not bad at all'
  vitrine explain attention --model models/MiniLM --head 3.7 'not bad at all'";

pub const EXPLAIN_LENS: &str = "Examples:
  vitrine explain lens 'the film was [MASK]'
  vitrine explain lens --tokens 4 --top-k 5 'the film was [MASK]'
  vitrine explain lens --model embedded-imdb --lens embedded 'the film was bad'
  vitrine explain lens --backward --class positive 'the film was bad'";

pub const EXPLAIN_ABLATE: &str = "Examples:
  vitrine explain ablate 'not bad at all'
  vitrine explain ablate --what layers 'not bad at all'
  vitrine explain ablate --what edges --tokens 1-4 'not bad at all'
  vitrine explain ablate --model runs/imdb --class negative --json 'not bad at all'";

pub const EXPLAIN_PATCH: &str = "Examples:
  vitrine explain patch 'the film was good' 'the film was bad'
  vitrine explain patch --what attention 'the film was good' 'the film was bad'";

pub const EXPLAIN_PROBE: &str = "Examples:
  vitrine explain probe
  vitrine explain probe --model models/MiniLM --data data/imdb --samples 2000 --test-samples 2000";

pub const EXPLAIN_DRIFT: &str = "Examples:
  vitrine explain drift
  vitrine explain drift --from models/MiniLM --model runs/imdb --data data/imdb --json";
