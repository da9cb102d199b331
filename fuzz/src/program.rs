//! Kernels from bytes: each instruction is a template that is right by itself, filled with registers, constants and addresses
//! that the bytes choose. Changing the bytes of a text seldom gives a kernel that runs; this always does.

/// `r`, `d`, `f`, `p`: registers of 32 and 64 bits, floats, predicates. `i`: a constant. `v`: any 32-bit value. `m`, `s`, `l`:
/// addresses in device, shared and local memory. `a`: any address. `j`: a label. Each stands alone.
const TEMPLATES: &[&str] = &[
    "mov.u32 r, v",
    "mov.b64 d, i",
    "mov.b64 d, {v, v}",
    "mov.b64 {r, r}, d",
    "mov.b32 {h, h}, r",
    "mov.u64 d, g",
    "mov.pred p, p",
    "add.s32 r, v, v",
    "sub.u64 d, d, d",
    "mul.hi.u64 d, d, d",
    "mul.hi.s32 r, v, v",
    "mul.wide.s32 d, v, v",
    "mad.lo.s32 r, v, v, v",
    "mad.hi.u64 d, d, d, d",
    "div.s32 r, v, v",
    "div.u64 d, d, d",
    "rem.s64 d, d, d",
    "sad.s32 r, v, v, v",
    "neg.s32 r, v",
    "abs.s64 d, d",
    "min.s32 r, v, v",
    "max.u64 d, d, d",
    "shl.b32 r, v, v",
    "shr.s64 d, d, v",
    "bfe.s32 r, v, v, v",
    "bfe.u64 d, d, v, v",
    "bfi.b64 d, d, d, v, v",
    "prmt.b32 r, v, v, v",
    "lop3.b32 r, v, v, v, v",
    "shf.l.wrap.b32 r, v, v, v",
    "shf.r.clamp.b32 r, v, v, v",
    "dp4a.s32.s32 r, v, v, v",
    "popc.b64 r, d",
    "clz.b32 r, v",
    "bfind.s32 r, v",
    "bfind.shiftamt.u64 r, d",
    "brev.b32 r, v",
    "add.cc.u32 r, v, v",
    "addc.cc.s32 r, v, v",
    "subc.u64 d, d, d",
    "mad.lo.cc.u32 r, v, v, v",
    "madc.hi.s64 d, d, d, d",
    "fma.rn.f32 f, f, f, f",
    "fma.rz.f32 f, f, f, f",
    "fma.rn.ftz.f32 f, f, f, f",
    "add.rm.f32 f, f, f",
    "mul.rp.f32 f, f, f",
    "div.rn.f32 f, f, f",
    "min.f32 f, f, f",
    "max.NaN.f32 f, f, f",
    "sqrt.rn.f32 f, f",
    "ex2.approx.ftz.f32 f, f",
    "lg2.approx.f32 f, f",
    "sin.approx.f32 f, f",
    "tanh.approx.f32 f, f",
    "fma.rn.f64 d, d, d, d",
    "rcp.approx.ftz.f64 d, d",
    "fma.rn.bf16x2 r, v, v, v",
    "max.f16x2 r, v, v",
    "cvt.rn.bf16x2.f32 r, f, f",
    "cvt.rzi.s32.f32 r, f",
    "cvt.rni.u64.f32 d, f",
    "cvt.rn.f32.s64 f, d",
    "cvt.s64.s8 d, v",
    "cvt.sat.u8.s32 r, v",
    "cvt.rna.tf32.f32 r, f",
    "cvt.f64.f32 d, f",
    "cvt.rp.f32.f64 f, d",
    "cvt.rn.f16.f64 h, d",
    "setp.lt.s32 p, v, v",
    "setp.gt.and.u32 p, v, v, p",
    "setp.neu.f32 p|p, f, f",
    "setp.nan.f64 p, d, d",
    "selp.b32 r, v, v, p",
    "ld.param.u64 d, [k]",
    "ld.param.u32 r, [k1]",
    "ld.global.u32 r, a",
    "ld.global.v4.f32 {f, f, f, f}, m",
    "ld.global.nc.s8 r, m",
    "ld.shared.v2.u64 {d, d}, s",
    "ld.local.b16 h, l",
    "ld.u64 d, a",
    "ld.const.u32 r, [c]",
    "st.global.u32 a, v",
    "st.u8 a, v",
    "st.global.v2.u32 m, {v, v}",
    "st.shared.u32 s, v",
    "st.shared.v4.u32 s, {v, v, v, v}",
    "st.local.u64 l, d",
    "st.volatile.shared.u8 s, v",
    "cvta.to.global.u64 d, d",
    "cvta.shared.u64 d, d",
    "isspacep.local p, d",
    "atom.global.add.u32 r, m, v",
    "atom.shared.cas.b64 d, s, d, d",
    "atom.add.f32 f, a, f",
    "atom.global.inc.u32 r, m, v",
    "red.shared.max.s64 s, d",
    "red.global.add.noftz.bf16x2 m, v",
    "atom.cas.b16 h, a, h, h",
    "bar.sync 0",
    "bar.sync v, v",
    "bar.arrive 1, 64",
    "bar.warp.sync v",
    "bar.warp.sync -1",
    "membar.gl",
    "fence.acq_rel.gpu",
    "shfl.sync.bfly.b32 r|p, v, v, v, -1",
    "shfl.sync.up.b32 r, v, v, v, v",
    "shfl.sync.idx.b32 r, v, v, 31, -1",
    "vote.sync.ballot.b32 r, p, v",
    "vote.sync.all.pred p, p, -1",
    "match.all.sync.b64 r|p, d, -1",
    "match.any.sync.b32 r, v, v",
    "redux.sync.add.s32 r, v, -1",
    "redux.sync.xor.b32 r, v, v",
    "activemask.b32 r",
    "cp.async.cg.shared.global s, m, 16",
    "cp.async.ca.shared.global s, a, 8, v",
    "cp.async.commit_group",
    "cp.async.wait_group 1",
    "cp.async.wait_all",
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {r, r, r, r}, s",
    "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {r}, s",
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {f, f, f, f}, {r, r, r, r}, {r, r}, {f, f, f, f}",
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {f, f, f, f}, {r, r, r, r}, {r, r}, {f, f, f, f}",
    "bra j",
    "bra.uni j",
    "ret",
    "trap",
    "call.uni (y), t, (x)",
    "st.param.b32 [x], v",
    "ld.param.b32 r, [y]",
    "nanosleep.u32 v",
    "prefetch.global.L2 m",
];

const VALUES: [&str; 12] = [
    "%tid.x",
    "%ctaid.x",
    "%laneid",
    "%lanemask_le",
    "%clock",
    "%ntid.x",
    "%nctaid.y",
    "%warpid",
    "0",
    "-1",
    "31",
    "0x80000000",
];

/// The text of a module with a kernel `k0` that the bytes describe.
pub fn compose(bytes: &[u8]) -> String {
    let mut bytes = bytes.iter().copied();
    let mut text = String::from(
        ".version 8.4\n.target sm_80\n.address_size 64\n.global .align 16 .b8 g[128];\n.const .b32 c[4] = {1, 2, 3, 4};
.func (.param .b32 o) t(.param .b32 n) {\n.reg .b32 %r;\nld.param.b32 %r, [n];\nadd.s32 %r, %r, 1;\nst.param.b32 [o], %r;\n}
.visible .entry k0(.param .u64 k, .param .u64 k1) {
.reg .b32 %r<6>; .reg .b64 %d<6>; .reg .f32 %f<6>; .reg .pred %p<4>; .reg .b16 %h<3>; .param .b32 x; .param .b32 y;
.shared .align 16 .b8 s[512]; .local .align 16 .b8 l[64];
ld.param.u64 %d0, [k];\nst.param.b32 [x], 1;\nst.param.b32 [y], 1;\nL0:\n",
    );
    let mut lines = 0;
    while let Some(first) = bytes.next() {
        lines += 1;
        if lines % 4 == 0 {
            text += &format!("L{}:\n", lines / 4);
        }
        let mut next = || bytes.next().unwrap_or_default();
        if first & 1 == 1 {
            let guard = next();
            text += &format!("@{}%p{} ", if guard & 4 == 4 { "!" } else { "" }, guard & 3);
        }
        let template = TEMPLATES[(usize::from(first >> 1) | usize::from(next() & 1) << 7) % TEMPLATES.len()];
        let at = |i: usize| template.as_bytes().get(i).copied().unwrap_or(b' ');
        let (name, rest) = template.split_once(' ').unwrap_or((template, ""));
        let start = template.len() - rest.len();
        text += name;
        text.push(' ');
        for (i, c) in rest.char_indices() {
            let alone = !at(start + i + 1).is_ascii_alphanumeric()
                && (start + i == 0
                    || !(at(start + i - 1).is_ascii_alphanumeric() || at(start + i - 1) == b'['));
            if !alone {
                text.push(c);
                continue;
            }
            let n = next();
            let offset = i32::from(n as i8);
            text += &match c {
                'r' => format!("%r{}", n % 6),
                'd' => format!("%d{}", n % 6),
                'f' => format!("%f{}", n % 6),
                'p' => format!("%p{}", n % 4),
                'h' => format!("%h{}", n % 3),
                'i' => format!("{}", i64::from(offset) << (n & 31)),
                'v' if n < 96 => format!("%r{}", n % 6),
                'v' => VALUES[usize::from(n) % VALUES.len()].to_owned(),
                'm' if n < 128 => format!("[g+{}]", n & 0x70),
                'm' => format!("[%d0+{}]", offset & 0x70),
                's' => format!("[s+{}]", offset * 4),
                'l' => format!("[l+{}]", offset),
                'a' if n < 64 => format!("[%d0+{offset}]"),
                'a' => format!("[%d{}+{offset}]", n % 6),
                'j' => format!("L{}", usize::from(n) % (lines / 4 + 2)),
                other => other.to_string(),
            };
        }
        text += ";\n";
    }
    text + &format!("L{}:\nret;\n}}\n", lines / 4 + 1)
}
