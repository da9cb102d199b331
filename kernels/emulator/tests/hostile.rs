//! PTX that nobody means well with: each text ends in one line that says what and where, soon and in little memory. So do
//! launches of hostile shapes, and kernels that pile up work.

mod common;

use common::{Given, launch, load};
use cudarc::driver::{DriverError, result, sys};
use std::ffi::CString;
use vitrine_emulator::{FindingKind, take_findings};

const HEAD: &str = ".version 8.4\n.target sm_80\n.address_size 64\n";

/// The text that a program gets for a failure.
fn text(error: DriverError) -> String {
    error.error_string().unwrap().to_string_lossy().into_owned()
}

/// Loads a text that must be refused with this message.
#[track_caller]
fn refused(ptx: &str, expected: &str) {
    let shown: String = ptx.chars().take(300).collect();
    let Err(error) = load(ptx) else { panic!("accepted: {shown}") };
    assert_eq!(error.0, sys::CUresult::CUDA_ERROR_INVALID_PTX, "{shown}");
    assert_eq!(text(error), expected, "{shown}");
}

/// A module that begins as it should.
#[track_caller]
fn refused_module(rest: &str, expected: &str) {
    refused(&format!("{HEAD}{rest}"), expected);
}

/// A kernel; its body begins in line 6.
#[track_caller]
fn refused_body(body: &str, expected: &str) {
    refused_module(&format!(".visible .entry k()\n{{\n{body}\nret;\n}}\n"), expected);
}

fn limit(line: u32, most: usize, what: &str) -> String {
    format!("PTX line {line}: more than {most} {what}, which is the emulator's limit")
}

/// `.func f0` to `.func fN`, each of which calls the one before so many times, and a kernel that calls the last.
fn calls(depth: usize, times: usize, body: &str) -> String {
    let mut out = format!(".func f0() {{ {body} ret; }}\n");
    for i in 1..=depth {
        out += &format!(".func f{i}() {{ {} ret; }}\n", format!("call.uni f{};", i - 1).repeat(times));
    }
    out + &format!(".visible .entry k() {{ call.uni f{depth}; ret; }}\n")
}

#[test]
fn registers() {
    let most = |line| limit(line, 65536, "registers of a function");
    refused_body(".reg .b32 %r<4294967295>;", &most(6));
    refused_body(".reg .b32 %r<18446744073709551615>;", &most(6));
    refused_body(".reg .b32 %r<-1>;", &most(6));
    refused_body(&"{\n.reg .b32 %r<40000>;\n}\n".repeat(2), &most(10));
    refused_body(".reg .b32 %r<3>;\n.reg .f32 %r<3>;", "PTX line 7: `%r` is declared twice");
    refused_body(".reg .b32 %x, %x;", "PTX line 6: `%x` is declared twice");
    // Names end where the range ends, and have no leading zeros.
    refused_body(".reg .b32 %r<3>;\nmov.u32 %r3, 1;", "PTX line 7: `%r3` is not declared");
    refused_body(".reg .b32 %r<30>;\nmov.u32 %r01, 1;", "PTX line 7: `%r01` is not declared");
    refused_module(
        &calls(10, 4, ".reg .b32 %r<2>;"),
        &limit(5, 65536, "registers of a kernel, calls inlined"),
    );
    load(&format!("{HEAD}.entry k() {{ .reg .b32 %r1<20>, %r<9>; mov.u32 %r119, %r8; ret; }}")).unwrap();
}

#[test]
fn calls_that_double_or_nest() {
    let registers = limit(4, 65536, "registers of a kernel, calls inlined");
    refused_module(&calls(30, 2, ""), &registers.replace("line 4", "line 8"));
    let instructions = limit(4, 524_288, "instructions in the kernels of a module, calls inlined");
    refused_module(&calls(10, 4, &"membar.gl; ".repeat(1000)), &instructions);
    // Each kernel alone would fit.
    let kernels: String = (0..80).map(|i| format!(".entry k{i}() {{ call.uni f4; ret; }}\n")).collect();
    refused_module(&format!("{}{kernels}", calls(4, 8, "membar.gl; bar.sync 0;")), &instructions);
    refused_module(&calls(100_000, 1, ""), &limit(4100, 4096, "functions"));
    refused_module(&calls(4000, 1, ""), &limit(3941, 64, "calls inside each other"));
    load(&format!("{HEAD}{}", calls(63, 1, ""))).unwrap();
    refused_module(
        ".func a();\n.func b() { call.uni a; ret; }\n.func a() { call.uni b; ret; }\n.entry k() { call.uni a; ret; }",
        "PTX line 5: `a` calls itself: recursion is not emulated",
    );
    refused_module(
        ".entry k() { call.uni k; ret; }",
        "PTX line 4: `k` calls itself: recursion is not emulated",
    );
    refused_module(".entry k() { ret; }\n.entry k() { ret; }", "PTX line 5: `k` is declared twice");
    refused_module(".func f();\n.entry k() { call.uni f; ret; }", "PTX line 5: `f` is not declared");
}

#[test]
fn arguments_of_calls_are_variables_of_the_caller() {
    let module = |body: &str| {
        format!(
            ".func (.param .b32 y) f(.param .b32 x) {{ ret; }}\n.entry k(.param .b32 p) {{ {body} ret; }}"
        )
    };
    let wrong = "PTX line 5: `call.uni` has operands that do not fit it";
    for body in [
        "call.uni f;",
        ".param .b32 a; call.uni f, (a);",
        ".param .b32 a; call.uni (a), f, (a, a);",
        ".param .b32 a; call.uni (a), f, (0);",
        ".param .b32 a; call.uni (a), f, (p);",
        ".param .b32 a; call.uni (0), f, (a);",
        ".param .b8 a; call.uni (a), f, (a);",
        ".param .b32 a; .reg .b32 %r; call.uni (a), f, (%r);",
    ] {
        refused_module(&module(body), wrong);
    }
    load(&format!("{HEAD}{}", module(".param .b32 a; call.uni (a), f, (a);"))).unwrap();
}

#[test]
fn nesting() {
    refused_body(&"{".repeat(1 << 20), &limit(6, 64, "blocks `{ }` inside each other"));
    // Vectors and addresses do not nest at all.
    let deep = |open: &str| format!("mov.b32 {};", open.repeat(1 << 20));
    refused_body(&deep("{"), "PTX line 6: expected a register, a variable or a constant in bits, found `{`");
    refused_body(&deep("["), "PTX line 6: expected a register, a variable or a constant in bits, found `[`");
    refused_body(&deep("!"), "PTX line 6: expected a plain operand, found `!`");
    refused_body(&deep("("), "PTX line 6: expected a register, a variable or a constant in bits, found `(`");
    refused_body(&deep("-"), "PTX line 6: expected a number, found `-`");
    refused_body(
        &"@".repeat(1 << 20),
        "PTX line 6: expected a register, a variable or a constant in bits, found `@`",
    );
}

#[test]
fn memory() {
    refused_module(".global .b8 x[8589934592];", &limit(4, 64 << 20, "bytes of `.global` variables"));
    refused_module(
        ".global .b8 x[60000000];\n.global .b8 y[60000000];",
        &limit(5, 64 << 20, "bytes of `.global` variables"),
    );
    // The product of the extents is 2^64.
    let product = ".global .b64 x[65536][65536][65536][8192];";
    refused_module(product, &limit(4, 64 << 20, "bytes of `.global` variables"));
    refused_module(".global .b8 x[0][4294967296];", &limit(4, 64 << 20, "bytes of `.global` variables"));
    refused_module(".const .b8 x[65537];", &limit(4, 65536, "bytes of `.const` variables"));
    refused_module(".shared .b8 x[166913];", &limit(4, 166_912, "bytes of shared memory"));
    refused_body(".shared .b8 x[-1];", &limit(6, 166_912, "bytes of shared memory"));
    refused_body(".local .b8 x[524289];", &limit(6, 524_288, "bytes of local memory"));
    refused_body(".local .b8 x[524288];\n.param .b8 y;", &limit(7, 524_288, "bytes of local memory"));
    refused_module(".entry k(.param .b8 p[32765]) { ret; }", &limit(4, 32764, "bytes of parameters"));
    refused_module(".func f(.param .b8 p[4294967295]);", &limit(4, 32764, "bytes of parameters"));
    let many = ".shared .b8 x[100000];";
    refused_module(
        &format!("{many}\n.entry k() {{ {} ret; }}", many.replace('x', "y")),
        &limit(5, 166_912, "bytes of shared memory of a kernel, calls inlined"),
    );
    refused_module(
        &calls(3, 9, ".local .b8 x[1000];"),
        &limit(5, 524_288, "bytes of local memory of a kernel, calls inlined"),
    );
    let variables: String = (0..5000).map(|i| format!(".global .b8 x{i};\n")).collect();
    refused_module(&variables, &limit(4100, 4096, "variables"));
    let power = "expected an alignment: a power of two up to 1024, found";
    for wrong in ["0", "3", "2048", "9223372036854775808"] {
        refused_module(&format!(".global .align {wrong} .b8 x;"), &format!("PTX line 4: {power} `{wrong}`"));
    }
    refused_module(
        ".global .b8 x[2] = {1, 2, 3};",
        "PTX line 4: expected no more values than the variable has elements, found `;`",
    );
    refused_module(".global .b8 x;\n.const .b8 x;", "PTX line 5: `x` is declared twice");
}

/// What a refused module had of the device is free again.
#[test]
fn a_module_that_is_refused_late_leaves_nothing() {
    load(&format!("{HEAD}.entry k() {{ ret; }}")).unwrap();
    let free = || result::mem_get_info().unwrap().0;
    let before = free();
    refused_module(
        ".global .b8 x[1000000];\n.func f();\n.entry k() { call.uni f; ret; }",
        "PTX line 6: `f` is not declared",
    );
    assert_eq!(free(), before);
}

#[test]
fn texts() {
    let version = "PTX line 1: expected a version of PTX from 1.0 to 9.9, found";
    let with = |version: &str, target: &str| {
        format!(".version {version}\n.target {target}\n.address_size 64\n.entry k() {{ ret; }}")
    };
    for wrong in ["0.0", "99.9", "8", "8.4.1", "18446744073709551615"] {
        refused(&with(wrong, "sm_80"), &format!("{version} `{wrong}`"));
    }
    for wrong in ["banana", "sm_", "sm_1", "sm_99999999999999999999"] {
        let expected = format!("PTX line 2: expected a target such as `sm_80`, found `{wrong}`");
        refused(&with("8.4", wrong), &expected);
    }
    for right in ["sm_90a", "sm_52, debug", "sm_100f"] {
        load(&with("9.0", right)).unwrap();
    }
    refused_module(&" ".repeat(17 << 20), &limit(1, 16 << 20, "bytes of text"));
    load(&format!("{HEAD}{}.entry k() {{ ret; }}", "/* a page of comment */ // and more\n".repeat(200_000)))
        .unwrap();
    refused_module("/* ", "PTX line 4: expected `*/` after `/*`, found `the end`");
    refused_module(".file 1 \"a\nb\"", "PTX line 4: expected a second `\"` in the line, found `the end`");
    // Messages stay short and have no control characters.
    let long = "a".repeat(100_000);
    let cut = format!("{}...", "a".repeat(80));
    refused_body(&format!("mov.u32 {long}, 1;"), &format!("PTX line 6: `{cut}` is not declared"));
    refused_body(&format!("{long} 1;"), &limit(6, 128, "characters of an opcode"));
    refused_body("\u{1b}[m;", "PTX line 6: expected a name, found `\\u{1b}`");
    refused_body(".pragma \"\u{7}\u{7}\" \"\t\";", "PTX line 6: expected `;`, found `\\t`");
    refused_body("é;", "PTX line 6: expected a name, found `é`");
}

#[test]
fn a_text_that_is_not_utf_8_is_named() {
    load(&format!("{HEAD}.entry k() {{ ret; }}")).unwrap();
    let image = CString::new([HEAD.as_bytes(), b"\xff\xfe"].concat()).unwrap();
    // SAFETY: the image ends with a zero.
    let error = unsafe { result::module::load_data(image.as_ptr().cast()) }.expect_err("not UTF-8");
    assert_eq!(text(error), "the PTX is not UTF-8");
}

#[test]
fn instructions_have_their_operands() {
    for (instruction, opcode) in [
        ("ld.global.u32 %r1;", "ld.global.u32"),
        ("ld.global.u32 %r1, %r2;", "ld.global.u32"),
        ("ld.global.v2.u32 %r1, [%r2];", "ld.global.v2.u32"),
        ("ld.global.v2.u32 {%r1, %r2, %r3}, [%r2];", "ld.global.v2.u32"),
        ("ld.global.u32 5, [%r2];", "ld.global.u32"),
        ("st.global.u32 [%r1];", "st.global.u32"),
        ("st.global.v4.u32 [%r1], {%r1};", "st.global.v4.u32"),
        ("ld.param.u32 %r1, [_];", "ld.param.u32"),
        ("atom.global.add.u32 %r1, [%r2];", "atom.global.add.u32"),
        ("atom.global.cas.b32 %r1, [%r2], %r3;", "atom.global.cas.b32"),
        ("red.global.add.u32 [%r2];", "red.global.add.u32"),
        ("cvta.to.global.u64 %r1;", "cvta.to.global.u64"),
        ("shfl.sync.bfly.b32 %r1, %r2, 1, 31;", "shfl.sync.bfly.b32"),
        ("shfl.sync.bfly.b32 {%r1}, %r2, 1, 31, -1;", "shfl.sync.bfly.b32"),
        ("vote.sync.all.pred %r1;", "vote.sync.all.pred"),
        ("match.any.sync.b32 %r1, %r2;", "match.any.sync.b32"),
        ("redux.sync.add.u32 %r1;", "redux.sync.add.u32"),
        ("activemask.b32;", "activemask.b32"),
        ("bar.warp.sync;", "bar.warp.sync"),
        ("bar.sync 0, 32, 5;", "bar.sync"),
        ("bar.arrive 0;", "bar.arrive"),
        ("cp.async.ca.shared.global [%r1], [%r2];", "cp.async.ca.shared.global"),
        ("cp.async.wait_group;", "cp.async.wait_group"),
        ("cp.async.wait_group %r1;", "cp.async.wait_group"),
        ("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1};", "ldmatrix.sync.aligned.m8n8.x1.shared.b16"),
        ("setp.eq.u32 %r1, %r2;", "setp.eq.u32"),
        ("setp.eq.u32 {%r1}, %r2, %r3;", "setp.eq.u32"),
        ("setp.eq.u32 1, %r2, %r3;", "setp.eq.u32"),
        ("add.cc.u32 %r1, %r2;", "add.cc.u32"),
        ("add.u32 5, %r1, %r2;", "add.u32"),
        ("add.u32 %r1, [%r1], %r2;", "add.u32"),
        ("add.u32 %r1, _, %r2;", "add.u32"),
        ("mov.b32 {}, %r1;", "mov.b32"),
        ("mov.b32 {%r1, %r2}, {%r1, %r2};", "mov.b32"),
        ("mov.b32 {%r1, %r2, %r3}, %r1;", "mov.b32"),
        ("mov.u32 %r1, {%r2};", "mov.u32"),
        ("ret %r1;", "ret"),
    ] {
        let expected = format!("PTX line 7: `{opcode}` has operands that do not fit it");
        refused_body(&format!(".reg .b32 %r<4>;\n{instruction}"), &expected);
    }
    for instruction in ["ld.global.v4.u64", "mad.cc.u32", "redux.sync.add.f32", "shfl.sync.b32"] {
        let expected = format!("PTX line 6: instruction `{instruction}` is not emulated");
        refused_body(&format!("{instruction};"), &expected);
    }
    let many = format!("mov.b32 {{{}}}, 0;", vec!["_"; 1000].join(", "));
    refused_body(&many, &limit(6, 256, "operands in a list"));
    let many = format!("add.u32 {};", vec!["1"; 1000].join(", "));
    refused_body(&many, &limit(6, 256, "operands of an instruction"));
}

#[test]
fn numbers() {
    let number = |text: &str| format!("PTX line 6: expected a number, found `{text}`");
    for wrong in ["18446744073709551616", "0x10000000000000000", "0f3F8", "1e5", "099"] {
        refused_body(&format!("mov.u32 %r1, {wrong};"), &number(wrong));
    }
    // Not the integer 1.
    refused_body(
        ".reg .f32 %f;\nmov.f32 %f, 1.5;",
        "PTX line 7: expected a register, a variable or a constant in bits, found `1.5`",
    );
    refused_body(".loc 1 4294967296 0", "PTX line 6: expected a number of 32 bits, found `4294967296`");
    refused_module(".entry k() .maxntid 4294967297, 1, 1 { ret; }", &limit(4, 1024, "threads of a block"));
    refused_module(".entry k() .maxntid 65536, 65536, 65536 { ret; }", &limit(4, 1024, "threads of a block"));
}

#[test]
fn labels() {
    refused_body("L: L: ret;", "PTX line 6: `L` is declared twice");
    refused_body("{ L: ret; }\nbra L;", "PTX line 7: `L` is not declared");
    refused_body("bra L0;\nL0:\nbra L1;", "PTX line 8: `L1` is not declared");
    refused_body("T: .branchtargets A, B;\nbrx.idx %r1, T;", "PTX line 6: `A` is not declared");
    refused_body(&"ret;".repeat(600_000), &limit(6, 524_288, "instructions"));
}

/// A label belongs to its block, as in inline assembly that is there twice.
#[test]
fn labels_of_different_blocks_do_not_meet() {
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 p) {{ .reg .b64 %rd<3>; .reg .b32 %r<3>; .reg .pred %p;
        ld.param.u64 %rd1, [p]; mov.u32 %r1, 0;
        {{ bra L; L: add.u32 %r1, %r1, 1; }}
        {{ setp.eq.u32 %p, %r1, 1; @%p bra OUT; L: add.u32 %r1, %r1, 100; }}
        OUT: st.global.u32 [%rd1], %r1; ret; }}"
    );
    let arrays = launch(load(&ptx).unwrap(), "k", 1, 1, 0, &[Given::Room(4)]).unwrap();
    assert_eq!(arrays[0], 1u32.to_le_bytes());
}

/// Special registers are values in every instruction, and arguments are read for each lane.
#[test]
fn special_registers_and_arguments_by_lane() {
    let ptx = format!(
        "{HEAD}.visible .entry k(.param .u64 p, .param .align 4 .b8 table[8]) {{ .reg .b64 %rd<5>; .reg .b32 %r<6>;
        ld.param.u64 %rd1, [p]; mov.b64 %rd2, {{%tid.x, %ntid.x}}; mov.b64 {{%r1, %r2}}, %rd2;
        add.cc.u32 %r3, %tid.x, %r2; mul.wide.u32 %rd3, %r1, 4; mov.u64 %rd4, table; add.u64 %rd4, %rd4, %rd3;
        ld.param.u32 %r4, [%rd4]; add.u32 %r3, %r3, %r4; add.u64 %rd1, %rd1, %rd3; st.global.u32 [%rd1], %r3; ret; }}"
    );
    // The table's second word lies beyond the 8 bytes that the launcher's number has: its first is 50, its second 0.
    let arrays = launch(load(&ptx).unwrap(), "k", 1, 2, 0, &[Given::Room(8), Given::Int(50)]).unwrap();
    let expected: Vec<u8> = [2 + 50u32, 1 + 2].into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(arrays[0], expected);
}

/// The kernel's body, which must end with a finding of this kind whose text contains `expected`.
#[track_caller]
fn found(body: &str, threads: u32, kind: FindingKind, expected: &str) {
    let ptx = format!("{HEAD}.global .align 16 .b8 g[16];\n.visible .entry k()\n{{\n{body}\nret;\n}}\n");
    let error = launch(load(&ptx).unwrap(), "k", 1, threads, 0, &[]).expect_err("a finding");
    let findings = take_findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].kind, kind, "{}", findings[0]);
    assert!(findings[0].message.contains(expected), "{}", findings[0]);
    assert_eq!(text(error), findings[0].to_string());
}

#[test]
fn kernels_that_pile_up_work() {
    let kind = FindingKind::UnfinishedCopy;
    let nothing = "more than 65536 `cp.async` and groups of them, which nothing waits for";
    found("L: cp.async.commit_group;\nbra L;", 32, kind, nothing);
    let copy = ".shared .align 16 .b8 s[16];\nL: cp.async.ca.shared.global [s], [g], 16;\nbra L;";
    found(copy, 1, kind, "while a `cp.async` to it is under way");
    let kind = FindingKind::DivergentBarrier;
    found("bar.sync 0, 0;", 32, kind, "barrier 0 for 0 threads: a block has 1 to 1024");
    found("bar.sync 0, 4294967295;", 32, kind, "barrier 0 for 4294967295 threads: a block has 1 to 1024");
    found("bar.sync 4294967295;", 32, kind, "barrier 4294967295: there are 16, numbered from 0");
    let kind = FindingKind::OutOfBounds;
    let param = ".reg .b32 %r;\nld.param.u32 %r, [18446744073709551614];";
    found(param, 1, kind, "4 bytes at offset 18446744073709551614 of 0 of arguments");
    found(".reg .b32 %r;\nld.global.u32 %r, [-4];", 1, kind, "4 bytes at 0xfffffffffffffffc");
    found(".reg .b32 %r;\nld.shared.u32 %r, [-4];", 1, kind, "4 bytes at offset 4294967292 of 0 bytes");
    found(
        ".local .b8 l[4];\n.reg .b32 %r;\nld.local.u32 %r, [l+4];",
        1,
        kind,
        "4 bytes at offset 4 of 4 bytes",
    );
}

#[test]
fn launches_of_hostile_shapes() {
    let module = load(&format!(
        "{HEAD}.visible .entry k() {{ ret; }}\n.visible .entry narrow() .maxntid 64 {{ ret; }}"
    ))
    .unwrap();
    let function = |name| {
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(module, CString::new(name).unwrap()) }.unwrap()
    };
    let refused = |name, grid: (u32, u32, u32), block: (u32, u32, u32), expected: &str| {
        // SAFETY: the kernels have no arguments.
        let outcome =
            unsafe { result::launch_kernel(function(name), grid, block, 0, std::ptr::null_mut(), &mut []) };
        let error = outcome.expect_err("refused");
        assert_eq!(error.0, sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        assert!(text(error).ends_with(expected), "{}", text(error));
    };
    let most = u32::MAX;
    refused("k", (most, most, most), (1, 1, 1), "is not a grid (at most 2^31 - 1, 65535, 65535; none 0)");
    refused(
        "k",
        (i32::MAX as u32, 65535, 65535),
        (1, 1, 1),
        "has 9223090559730712575 blocks, of at most 16777216 that are emulated",
    );
    // 2^32 blocks: not 0 of them.
    refused(
        "k",
        (1 << 20, 1 << 12, 1),
        (1, 1, 1),
        "has 4294967296 blocks, of at most 16777216 that are emulated",
    );
    // 2^64 threads and 32: not 32 of them.
    refused("k", (1, 1, 1), (most, most, most), "threads in a block, of at most 1024");
    refused(
        "k",
        (1, 1, 1),
        (1 << 31, 1 << 31, 4),
        "has 18446744073709551616 threads in a block, of at most 1024",
    );
    refused("k", (1, 1, 1), (1, 1, 128), "is not a block (at most 1024, 1024, 64; none 0)");
    refused("k", (1, 1, 1), (0, 1, 1), "is not a block (at most 1024, 1024, 64; none 0)");
    refused("narrow", (1, 1, 1), (65, 1, 1), "has 65 threads in a block, of at most 64");
}

#[test]
fn arguments_that_are_not_there_are_named() {
    let module = load(&format!("{HEAD}.visible .entry k(.param .u64 p) {{ ret; }}")).unwrap();
    // SAFETY: a launch without arguments is refused before anything is read.
    let error = unsafe {
        let function = result::module::get_function(module, CString::new("k").unwrap()).unwrap();
        let none = std::ptr::null_mut();
        sys::cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, std::ptr::null_mut(), none, none.cast()).result()
    };
    assert_eq!(text(error.expect_err("refused")), "no arguments for k, which has 1");
}
