//! Data files and texts as spreadsheets, exports and people make them.

use crate::common::{model, path, refuse};
use std::fs;

/// Files that cannot be read without losing or inventing rows end in one line that says where and what to do.
#[test]
fn tables_that_would_lose_rows_are_refused_in_one_line() {
    let (folder, model) = model();
    let cases: [(&str, &[u8], &[&str]); 12] = [
        ("unclosed.csv", b"label,text\n0,bad\n1,\"good\n0,worse\n", &["unclosed.csv:3", "never ends"]),
        ("merged.csv", b"label,text\n0,x\n1,y\n0,\"a\n1,b\n0,c\"\n", &["merged.csv:4", "3 rows"]),
        ("escaped.csv", b"text,label\n\"a \\\"b\\\" c\",0\n", &["escaped.csv:2", "backslash", "\"\""]),
        ("twice.csv", b"text,label,text\na,0,b\n", &["twice.csv:1", "2 columns", "`text`"]),
        ("bare.csv", b"a good film,1\na bad film,0\n", &["bare.csv:1", "header", "--text-column"]),
        ("western.csv", b"text,label\ncaf\xe9,1\n", &["western.csv:2", "UTF-8", "iconv"]),
        ("really.csv", b"{\"text\": \"a\", \"label\": 0}\n", &["really.csv", "JSON", ".jsonl"]),
        ("page.csv", b"<!doctype html>\n<html>", &["page.csv", "web page"]),
        ("columns.json", b"{\"text\": [\"a\"], \"label\": [0]}", &["columns.json", "whole table", "records"]),
        ("nan.jsonl", b"{\"text\": \"a\", \"label\": NaN}\n", &["nan.jsonl:1", "NaN", "null"]),
        ("zipped.csv.gz", b"\x1f\x8b\x08\0", &["zipped.csv.gz", "gunzip"]),
        ("book.xlsx", b"PK\x03\x04", &["book.xlsx", "save the sheet as CSV"]),
    ];
    for (name, content, words) in cases {
        let data = folder.path().join(name);
        fs::write(&data, content).expect("a temporary file");
        refuse(1, &["eval", "--model", path(&model), "--data", path(&data)], words);
    }
}
