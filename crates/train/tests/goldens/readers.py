"""Small tables in the shapes that people have, what pandas or pyarrow reads in them, and what Vitrine does.

Writes readers.json: for each case its bytes (hexadecimal), the rows of the reference ([text, label as text or null], or
its error), and `ours`: "same", {"rows", "why"} where Vitrine reads otherwise on purpose, or {"refused", "why"} with parts
of the message. Run: python readers.py  (pandas 3.1.1, pyarrow 26.0.1)
"""

import datetime
import decimal
import io
import json
import math

import pandas
import pyarrow
import pyarrow.parquet

CASES = []


def label(value):
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pandas.NA:
        return None
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    if type(value).__name__ in ("bool", "bool_"):
        return str(bool(value)).lower()
    if type(value).__name__ == "float64" and not math.isnan(value) and value == int(value):
        return str(int(value))
    return str(value)


def text(value):
    return None if not isinstance(value, str) else value


def reference(read):
    try:
        frame = read()
        rows = list(zip(frame["text"].tolist(), frame["label"].tolist()))
        return {"rows": [[text(t), label(l)] for t, l in rows]}
    except Exception as error:  # The kind of failure is part of the table.
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"}


def add(name, content, read, ours="same"):
    CASES.append({"name": name, "hex": content.hex(), "reference": reference(read), "ours": ours})


def csv(name, content, ours="same", **options):
    content = content if isinstance(content, bytes) else content.encode()
    if name.endswith(".tsv"):
        options.setdefault("sep", "\t")
    add(name, content, lambda: pandas.read_csv(io.BytesIO(content), **options), ours)


def refused(why, *parts):
    return {"refused": list(parts), "why": why}


def rows(why, *found):
    return {"rows": [list(row) for row in found], "why": why}


csv("quotes.csv", 'text,label\n"a, ""b""\nc",0\n"",1\nplain,0\n', rows("an empty text is a text", ['a, "b"\nc', "0"], ["", "1"], ["plain", "0"]))
csv("quote in the middle.csv", 'text,label\na 5" disc,0\nit"s "so" good,1\n')
csv("blank lines.csv", "text,label\n\na,0\n\n\nb,1\n\n")
csv("lines of spaces.csv", "text,label\na,0\n   \nb,1\n")
csv("crlf in quotes.csv", 'text,label\r\n"a\r\nb",0\r\nc,1\r\n')
csv("old mac.csv", 'text,label\ra,0\r"b\rc",1\rd,0')
csv("line ends translated twice.csv", "text,label\r\r\na,0\r\r\nb,1\r\r\n")
csv("index without a name.csv", ",text,label\n0,a,0\n1,b,1\n")
csv("a float column.csv", "text,label\na,1.0\nb,\nc,0.0\n")
csv("na.csv", "text,label\nNA,0\nnull,1\nNone,0\n", rows("these are texts", ["NA", "0"], ["null", "1"], ["None", "0"]))
csv("semicolons.csv", "text;label\na, b;0\nc;1\n", rows("read as such, with a note", ["a, b", "0"], ["c", "1"]))
csv("tabs.csv", "text\tlabel\na, b\t0\nc\t1\n", rows("read as such, with a note", ["a, b", "0"], ["c", "1"]))
csv("bars.csv", "id|text|label\n1|a|0\n2|b|1\n", rows("read as such, with a note", ["a", "0"], ["b", "1"]))
csv("excel separator.csv", "sep=;\r\ntext;label\r\na,b;0\r\n", rows("Excel's own line", ["a,b", "0"]))
csv("unclosed.csv", 'text,label\na,0\n"b,1\nc,0\n', refused("a row would be lost", ".csv:3", "never ends"))
csv("text after a quote.csv", 'text,label\n"a"b,0\n', refused("pandas reads ab", ".csv:2", "before more text"))
csv("two stray quotes.csv", 'label,text\n0,"a\n1,b\n0,"c" d\n', refused("rows would be merged", ".csv:2", "line 4"))
csv("rows inside of quotes.csv", 'label,text\n0,x\n1,y\n0,"a\n1,b\n0,c"\n', refused("rows would be merged", ".csv:4", "3 rows"))
csv("backslashes.csv", 'text,label\n"say \\"no\\", he said",0\n', refused("quotes are doubled", ".csv:2", "backslash"))
csv("backslash at the end.csv", 'text,label\n"a path C:\\",0\nb,1\n')
csv("trailing delimiters in rows.csv", "text,label\na,1,\nb,0,\n", refused("pandas shifts the columns", ".csv:2", "3 fields", "line's end"))
csv("trailing delimiters.csv", "text,label,\na,1,\nb,0,\n")
csv("too few fields.csv", "text,label\na,1\nb\n", refused("a label would be missing", ".csv:3", "1 fields"))
csv("a name twice.csv", "text,label,text\na,1,b\n", refused("which is it", "2 columns", "`text`"))
csv("spaces in the header.csv", "text, label\na,1\nb,0\n", rows("spaces around a name are none of it", ["a", "1"], ["b", "0"]))
csv("quoted header.csv", '"text","label"\n"a",1\n')
csv("utf-16.csv", "text,label\nä,1\n".encode("utf-16"), rows("the byte order mark says it", ["ä", "1"]))
csv("windows-1252.csv", "text,label\na,1\ncafé,0\n".encode("cp1252"), refused("bytes of another encoding", ".csv:3", "UTF-8"))
csv("byte order mark.csv", "text,label\nä,1\n".encode("utf-8-sig"))
csv("a carriage return.csv", "label,text\n0,a\rb\n", refused("pandas starts a row there", ".csv:2", "carriage return"))
csv("quotes after spaces.csv", 'text,label\na,1\n "b c" ,0\n', refused("the quotes would be text", ".csv:3", "space"))
csv("form feeds.csv", "text,label\na\x0cb\x0bc\u2028d\x85e,1\n")
csv("only delimiters.csv", "text,label\na,1\n,\n", rows("an empty text is a text", ["a", "1"], ["", None]))
csv("truth.csv", "text,label\na,TRUE\nb,FALSE\n", rows("labels as they stand", ["a", "TRUE"], ["b", "FALSE"]))
csv("comment.csv", "# exported\ntext,label\na,1\n", refused("the first line is the header", ":1", "`# exported`", "header"))
csv("no header.csv", "a good film,1\na bad film,0\n", refused("the first row would be lost", ":1", "`a good film`", "header"))
csv("json.csv", '[{"text": "a", "label": 0}]', refused("not CSV", "JSON", ".jsonl"))
csv("page.csv", "<!DOCTYPE html><html>", refused("not CSV", "web page"))
csv("zip.csv", b"PK\x03\x04\x14\0", refused("a workbook", "xlsx", "save"))
csv("unquoted.tsv", 'text\tlabel\na\t0\n"b\t1\nc "c"\t0\n"d\t1\n"e" f\t1\n', quoting=3)
csv("unquoted to the end.tsv", 'label\ttext\n0\ta\n1\t"b\n0\tc\n1\td"\n', quoting=3)
csv("quoted.tsv", 'text\tlabel\n"a\nb ""c"""\t0\n"d\te"\t1\n')
csv("spaces kept.tsv", "text\tlabel\n a \t1\n\tb\n", rows("an empty text is a text", [" a ", "1"], ["", "b"]))


def js(name, content, ours="same", lines=True):
    content = content if isinstance(content, bytes) else content.encode()
    options = {"dtype": False, "lines": lines}
    add(name, content, lambda: pandas.read_json(io.BytesIO(content), **options), ours)


ROW = '{"text": "a", "label": 0}'
js("lines.jsonl", ROW + "\n" + '{"label": 1, "text": "b\\nc"}\n')
js("lines.json", ROW + "\n" + ROW + "\n")
js("array.json", "[" + ROW + ",\n " + ROW + "]", lines=False)
js("array.jsonl", "[\n" + ROW + "\n]\n", lines=False)
js("blank lines.jsonl", "\n" + ROW + "\n\n" + ROW)
js("crlf.jsonl", ROW + "\r\n" + ROW + "\r\n")
js("floats.jsonl", '{"text": "a", "label": 1.0}\n{"text": "b", "label": null}\n')
js("fraction.jsonl", '{"text": "a", "label": 4.5}\n', refused("no class", ".jsonl:1", "`4.5`"))
js("too large.jsonl", '{"text": "a", "label": 9223372036854775808}\n', refused("no class", "`9223372036854775808`"))
js("names.jsonl", '{"text": "a", "label": "pos"}\n{"text": "b", "label": "neg"}\n')
js("truth.jsonl", '{"text": "a", "label": true}\n{"text": "b", "label": false}\n')
js("nan.jsonl", '{"text": "a", "label": NaN}\n', refused("not JSON", ".jsonl:1", "NaN", "null"))
js("repr.jsonl", "{'text': 'a', 'label': None}\n", refused("not JSON", ".jsonl:1", "single quote"))
js("a key twice.jsonl", '{"text": "a", "text": "b", "label": 0}\n', refused("which is it", ".jsonl:1", "twice"))
js("pretty.json", '{\n  "text": "a",\n  "label": 0\n}\n', rows("one object is one row", ["a", "0"]), lines=False)
js("pretty lines.json", '{\n "text": "a",\n "label": 0\n}\n{\n "text": "b",\n "label": 1\n}\n', rows("objects one after the other", ["a", "0"], ["b", "1"]))
js("columns.json", '{"text": ["a", "b"], "label": [0, 1]}', refused("write records", "whole table", "records"), lines=False)
js("indexed.json", '{"text": {"0": "a"}, "label": {"0": 1}}', refused("write records", "whole table", "records"), lines=False)
js("wrapped.json", '{"data": [' + ROW + "]}", refused("write records", "whole table"), lines=False)
js("number text.jsonl", '{"text": 5, "label": 0}\n', refused("no text", "`text` must hold a string", "`5`"))
js("list text.jsonl", ROW + '\n{"text": ["a", "b"], "label": 0}\n', refused("no text", ".jsonl:2", "an array"))
js("null text.jsonl", ROW + '\n{"text": null, "label": 0}\n', refused("no text", ".jsonl:2", "null"))
js("cut off.jsonl", ROW + '\n{"text": "a", "la', refused("a row would be lost", ".jsonl:2"))
js("label from the second row on.jsonl", '{"text": "a"}\n' + ROW + "\n", refused("labels would be lost", ".jsonl:2", "`label`"))
js("utf-16.jsonl", (ROW + "\n").encode("utf-16"), rows("the byte order mark says it", ["a", "0"]))


def parquet(name, labels, ours="same", texts=None, **options):
    texts = pyarrow.array(["a", "b"] if texts is None else texts) if not isinstance(texts, pyarrow.Array) else texts
    table = pyarrow.table({"label": labels, "text": texts})
    table_bytes(name, table, ours, **options)


def table_bytes(name, table, ours="same", **options):
    out = io.BytesIO()
    options = {"store_schema": False, "write_statistics": False, **options}
    pyarrow.parquet.write_table(table, out, **options)
    content = out.getvalue()

    def read():
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        return pandas.DataFrame({"text": table["text"].to_pylist(), "label": pandas.Series(table["label"].to_pylist(), dtype=object)})

    add(name + ".parquet", content, read, ours)


number = pyarrow.array([1, 0])
for codec in ["none", "snappy", "gzip", "zstd", "lz4"]:
    parquet("codec " + codec, number, compression=codec)
parquet("codec brotli", number, refused("not built in", "Brotli", "zstd"), compression="brotli")
for kind in ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]:
    parquet(kind, pyarrow.array([1, 0], kind))
parquet("uint32 above i32", pyarrow.array([2**32 - 1, 0], "uint32"))
parquet("uint64 above i64", pyarrow.array([2**64 - 1, 0], "uint64"), refused("no class", "row 1"))
parquet("double", pyarrow.array([1.0, 0.0]))
parquet("float with nan", pyarrow.array([1.0, math.nan], "float32"))
parquet("double with a fraction", pyarrow.array([1.0, 0.5]), refused("no class", "row 2", "`0.5`"))
parquet("half", pyarrow.array([1.0, 0.0], "float16"), refused("nobody stores labels so", "half-precision"))
parquet("decimal", pyarrow.array([decimal.Decimal("1.00"), decimal.Decimal("-1.00")], pyarrow.decimal128(5, 2)), rows("whole decimals are numbers", ["a", "1"], ["b", "-1"]))
parquet("decimal as integer", pyarrow.array([decimal.Decimal("1"), decimal.Decimal("0")], pyarrow.decimal128(5, 0)), store_decimal_as_integer=True)
parquet("decimal with a fraction", pyarrow.array([decimal.Decimal("1.50"), None], pyarrow.decimal128(5, 2)), refused("no class", "row 1"))
parquet("date", pyarrow.array([datetime.date(1970, 1, 2), None]), refused("no class", "dates"))
parquet("time", pyarrow.array([1, 0], pyarrow.time64("us")), refused("no class", "times"))
parquet("timestamp", pyarrow.array([1, 0], pyarrow.timestamp("ms")), refused("no class", "timestamps"))
parquet("int96", pyarrow.array([1, 0], pyarrow.timestamp("ns")), refused("no class", "timestamps"), use_deprecated_int96_timestamps=True)
parquet("fixed bytes", pyarrow.array([b"ab", b"cd"], pyarrow.binary(2)), refused("no text", "fixed-length bytes"))
parquet("booleans", pyarrow.array([True, False]))
parquet("names", pyarrow.array(["pos", "neg"]))
parquet("large strings", pyarrow.array(["pos", "neg"], pyarrow.large_string()), texts=pyarrow.array(["a", "b"], pyarrow.large_string()))
parquet("categorical", pyarrow.array(["pos", "neg"]).dictionary_encode(), store_schema=True)
parquet("null labels", pyarrow.array([1, None]))
parquet("only nulls", pyarrow.nulls(2))
parquet("minus one", pyarrow.array([-1, -1]))
parquet("null text", number, refused("no text", "row 2", "null"), texts=["a", None])
parquet("list labels", pyarrow.array([[1], [0]]), refused("no class", "lists or structures"))
parquet("structure labels", pyarrow.array([{"x": 1}, {"x": 0}]), refused("no class", "lists or structures"))
parquet("number texts", number, refused("no text", "must hold strings", "integers"), texts=[1, 2])
parquet("version 2 pages", number, data_page_version="2.0", use_dictionary=False)
parquet("version 2 pages gzip", number, data_page_version="2.0", compression="gzip")
many = pyarrow.table({"text": [f"text {row % 7}" for row in range(3000)], "label": [row % 3 for row in range(3000)]})
table_bytes("row groups and dictionaries", many, row_group_size=700, compression="zstd")
parquet("delta lengths", pyarrow.array([1, None]), use_dictionary=False, column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED"})
parquet("delta strings", number, refused("its cost has no bound", "DELTA_BYTE_ARRAY"), use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY", "label": "PLAIN"})
parquet("byte stream split", number, use_dictionary=False, column_encoding={"label": "BYTE_STREAM_SPLIT", "text": "PLAIN"})
parquet("statistics and indexes", number, write_statistics=True, write_page_index=True)
parquet("checksums", number, write_page_checksum=True)
table_bytes("no rows", pyarrow.table({"text": pyarrow.array([], "string"), "label": pyarrow.array([], "int64")}))

with open(__file__.replace(".py", ".json"), "w") as file:
    versions = {"pandas": pandas.__version__, "pyarrow": pyarrow.__version__}
    json.dump({"versions": versions, "cases": CASES}, file, indent=0, ensure_ascii=True)
    file.write("\n")
