"""Writes the seeds of every target into seeds/. They are committed; run this again only to change them.

Needs pyarrow (written with 26.0.1, Python 3) for the parquet files; everything else is text.
"""

import json
import pathlib
import struct

import pyarrow
import pyarrow.parquet

HERE = pathlib.Path(__file__).parent / "seeds"


def write(target: str, name: str, content: bytes | str) -> None:
    folder = HERE / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


# ---- config ----
SMALL = {"model_type": "bert", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
write("config", "small.json", json.dumps(SMALL))
write("config", "named.json", json.dumps(SMALL | {
    "architectures": ["BertForSequenceClassification"], "id2label": {"0": "NEG", "1": "POS"}, "label2id": {"NEG": 0, "POS": 1},
    "classifier_dropout": None, "hidden_act": "gelu_new", "layer_norm_eps": 1e-12, "pad_token_id": 0, "torch_dtype": "float32",
}))
write("config", "numbered.json", json.dumps(SMALL | {"num_labels": 3, "problem_type": None, "is_decoder": False}))
write("config", "roberta.json", json.dumps(SMALL | {"model_type": "roberta", "pad_token_id": 1}))
write("config", "distilbert.json", json.dumps({
    "model_type": "distilbert", "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "activation": "relu",
    "dropout": 0.1, "attention_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False}))

# ---- tokenizer: tokenizer.json, tokenizer_config.json, vocab.txt, text ----
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "##ly", "film", "!"]
VOCABULARY = "\n".join(TOKENS) + "\n"
ids = {token: i for i, token in enumerate(TOKENS)}
added = [{"id": ids[t], "content": t, "special": True, "normalized": False, "single_word": False, "lstrip": False, "rstrip": False}
         for t in TOKENS[:5]]
WHOLE = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [], "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ["[CLS]", "[SEP]"]},
    },
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
              "vocab": ids},
}
SETTINGS = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True, "unk_token": {"content": "[UNK]"},
            "tokenizer_class": "BertTokenizer"}


def parts(*texts: str) -> str:
    return "\0".join(texts)


write("tokenizer", "json", parts(json.dumps(WHOLE), "", "", "a goodly film!"))
write("tokenizer", "vocabulary", parts("", "", VOCABULARY, "Goodly [SEP] film"))
BYTES = {
    "version": "1.0",
    "added_tokens": [{"id": 4, "content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False,
                      "normalized": False, "special": True}],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
                       "add_prefix_space": False},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": {
        token: number for number, token in
        enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "Ġ", "Ġa", "ab", "Ã", "©"])},
        "merges": [["Ġ", "a"], ["a", "b"]]},
}
write("tokenizer", "byte_level", parts(json.dumps(BYTES), '{"tokenizer_class": "RobertaTokenizer"}', "", "a ab<mask> é"))
write("tokenizer", "byte_level_alone", parts(json.dumps(BYTES), "", "", "ab a"))
write("tokenizer", "settings", parts("", json.dumps(SETTINGS), VOCABULARY, "A film"))
write("tokenizer", "both", parts(json.dumps(WHOLE | {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}}),
                                 json.dumps(SETTINGS), VOCABULARY, "film"))


# ---- weights ----
def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict | None = None) -> bytes:
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def floats(count: int) -> bytes:
    return struct.pack(f"<{count}f", *[i / 4 for i in range(count)])


write("weights", "f32", safetensors({"classifier.bias": ("F32", [2], floats(2)), "classifier.weight": ("F32", [2, 4], floats(8))}))
write("weights", "half", safetensors({"module.bert.embeddings.LayerNorm.gamma": ("F16", [4], b"\0<" * 4),
                                      "bert.embeddings.position_ids": ("I64", [1], b"\0" * 8)}, {"format": "pt"}))
write("weights", "index.json", '{"weight_map": {"classifier.bias": "model-00001-of-00001.safetensors"}, "metadata": {"total_size": 8}}')

# ---- tables ----
write("csv", "plain", b"\0text,label\ngood film,1\n\"bad, \"\"very\"\" bad\",0\n")
write("csv", "tabs", b"\1sentence\tlabel\nit 's fine\t1\nnot so\t0\n")
write("csv", "names", b"\0review,sentiment\r\n\"two\r\nlines\",positive\r\nnone,negative\r\n")
write("csv", "chosen", b"\6t,l\na,0\nb,1\n")
write("jsonl", "plain", b"\0{\"text\": \"good\", \"label\": 1}\n{\"text\": \"b\\u00e4d\", \"label\": 0}\n")
write("jsonl", "names", b"\1{\"review\": \"x\", \"sentiment\": \"neg\", \"id\": [1, {}]}\n\n{\"review\": \"y\", \"sentiment\": \"pos\"}\n")
write("jsonl", "array", b"\1[{\"text\": \"good\", \"label\": 1}, {\"text\": \"bad\", \"label\": 0}]")


def parquet(name: str, table: pyarrow.Table, **options) -> None:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, **({"store_schema": False, "compression": "none"} | options))
    write("parquet", name, sink.getvalue().to_pybytes())


texts = ["good film", "bad", "", "good film"]
parquet("plain", pyarrow.table({"text": texts, "label": [1, 0, 0, 1]}), use_dictionary=False, write_statistics=False)
parquet("dictionary", pyarrow.table({"text": texts, "label": ["pos", "neg", "neg", "pos"]}), compression="snappy")
parquet("groups", pyarrow.table({"text": texts, "label": pyarrow.array([1, 0, 0, 1], pyarrow.int8())}), row_group_size=2,
        compression="zstd", write_statistics=False)
parquet("nulls", pyarrow.table({"text": [None, "a", "b", None], "label": [0, None, 1, 1]}), compression="gzip", write_statistics=False)
parquet("delta", pyarrow.table({"text": texts, "label": [1, 0, 0, 1]}), use_dictionary=False, write_statistics=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED"}, data_page_version="2.0")
names = json.dumps({"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}})
parquet("names", pyarrow.table({"text": texts, "label": [1, 0, 0, 1]}).replace_schema_metadata({"huggingface": names}),
        write_statistics=False)
parquet("types", pyarrow.table({"text": pyarrow.array(["a", "b"], pyarrow.large_string()), "label": pyarrow.array([True, False]),
                                "x": pyarrow.array([[1], []])}), write_statistics=False)

# ---- folders: a path a line, perhaps a tab and content with | for line breaks ----
write("folders", "imdb", "train/neg/0_1.txt\tbad\ntrain/pos/0_9.txt\tgood\ntest/neg/1_2.txt\tx\ntest/pos/1_8.txt\ty\ntrain/unsup/\n")
write("folders", "tables", "train.csv\ntest.csv\ttext,label|c,1|\n.hidden.csv\ndev.jsonl\t{\"text\": \"a\", \"label\": 1}\n")
write("folders", "shards", "data/train-00000-of-00002.parquet\tx\ndata/train-00001-of-00002.parquet\tx\n")
write("folders", "model", f"config.json\t{json.dumps(SMALL)}\nvocab.txt\t{VOCABULARY.replace(chr(10), '|')}\nmodel.safetensors\tx\npytorch_model.bin\tx\n")
write("folders", "classes", "train/1/a.txt\tgood\ntrain/2/b.txt\tbad\n\xe4/train.tsv\ttext\n")

# ---- PTX ----
HEAD = ".version 8.4\n.target sm_80\n.address_size 64\n"
PTX = {
    "vector": """.visible .entry k(.param .u64 p, .param .u32 n) .maxntid 128, 1, 1 {
.reg .pred %p<3>; .reg .b32 %r<8>; .reg .b64 %rd<4>; .reg .f32 %f<6>;
ld.param.u64 %rd1, [p]; cvta.to.global.u64 %rd2, %rd1;
mov.u32 %r1, %tid.x; setp.ge.u32 %p1, %r1, 8; @%p1 bra $L_end;
mul.wide.u32 %rd3, %r1, 16; add.s64 %rd2, %rd2, %rd3;
st.global.v4.f32 [%rd2], {%f1, %f2, %f3, 0f3F800000}; ld.global.v2.u32 {%r2, %r3}, [%rd2+8];
fma.rn.f32 %f4, %f1, %f2, 0f40000000; cvt.rzi.s32.f32 %r4, %f4;
mov.b64 {%r5, %r6}, %rd2; selp.b32 %r7, %r5, %r6, %p1;
$L_end: ret; }
""",
    "shared": """.extern .shared .align 16 .b8 dynamic[]; .shared .b32 fixed[4]; .global .align 4 .b32 g[4] = {1, 2, 3}; .const .f32 c = 0f3F800000;
.visible .entry k() { .reg .b32 %r<6>; .reg .pred %p; .reg .b64 %rd;
mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; mov.u32 %r3, dynamic; add.u32 %r3, %r3, %r2; st.shared.u32 [%r3], %r1; bar.sync 0;
ld.shared.u32 %r4, [dynamic+4]; shfl.sync.bfly.b32 %r4|%p, %r4, 1, 31, -1; vote.sync.ballot.b32 %r5, %p, -1; redux.sync.add.u32 %r5, %r5, -1;
mov.u64 %rd, g; atom.global.add.u32 %r5, [%rd], 1; membar.gl; red.shared.max.u32 [fixed], %r5; cp.async.ca.shared.global [%r3], [%rd], 4;
cp.async.commit_group; cp.async.wait_group 0; bar.warp.sync -1; trap; }
""",
    "calls": """.func (.param .b32 out) twice(.param .b32 in) { .reg .b32 %r<3>; ld.param.b32 %r1, [in]; add.cc.u32 %r2, %r1, %r1; addc.u32 %r2, %r2, 0;
st.param.b32 [out], %r2; ret; }
.visible .entry k(.param .align 8 .b8 p[16]) { .reg .b32 %a, %b; .reg .pred %p<2>; .local .align 8 .b8 l[32]; .reg .b64 %l;
mov.u64 %l, l; cvta.local.u64 %l, %l; st.u64 [%l], %l; setp.lt.and.s32 %p0|%p1, %a, 7, %p1; setp.ne.s32 %p0, %a, 3;
{ .param .b32 x; .param .b32 y; st.param.b32 [x+0], 5; call.uni (y), twice, (x); ld.param.b32 %b, [y+0]; } @!%p0 exit; }
""",
    "matrix": """.visible .entry k() { .reg .b32 %r<9>; .reg .f32 %f<9>; .shared .align 16 .b8 s[512];
.loc 1 7 0, function_name $n+3, inlined_at 1 9 2
ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r1, %r2}, [s];
mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r3}, {%f1, %f2, %f3, %f4};
prmt.b32 %r3, %r1, %r2, 0x5410; lop3.b32 %r4, %r1, %r2, %r3, 0x96; bfe.u32 %r5, %r4, 3, 5; match.any.sync.b32 %r6, %r5, -1; activemask.b32 %r7;
ex2.approx.ftz.f32 %f5, %f1; rsqrt.approx.f32 %f6, %f5; div.rn.f32 %f7, %f6, %f5; max.NaN.f32 %f7, %f7, %f6; ret; }
.file 1 "a.cu"
.section .debug_str { .b8 1 }
""",
}
for name, body in PTX.items():
    write("ptx", name, HEAD + body)

# Composed kernels: a zero byte, then what src/program.rs makes instructions of.
for name, step in [("composed", 37), ("composed_more", 101)]:
    write("ptx", name, bytes([0] + [(i * step + i // 7) % 256 for i in range(300)]))
write("ptx", "registers", HEAD + ".entry k() { .reg .b32 %r<4294967295>; ret; }")
write("ptx", "doubling", HEAD + ".func a() { ret; }\n.func b() { call.uni a; call.uni a; ret; }\n.entry k() { call.uni b; call.uni b; ret; }")
