//! [`Source`]: where each operation stands in this crate, and its formulas, for those who read along with a trace.
//!
//! The lines are looked for by the compiler in the files themselves: they cannot be those of an older version, and an entry whose
//! operation has left its file does not compile.

/// An operation, for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name that tapes give it.
    pub name: &'static str,
    /// The file, from the root of the repository.
    pub file: &'static str,
    /// The line on which its definition begins, from 1.
    pub line: u32,
    /// What it computes.
    pub formula: &'static str,
    /// The gradients of its inputs; `d`-names are gradients of the loss.
    pub gradient: &'static str,
}

/// The operation of this name.
pub fn source(name: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|source| source.name == name)
}

/// The line of `text`, from 1, on which `begins` is found first.
const fn line_of(text: &str, begins: &str) -> u32 {
    let (text, begins) = (text.as_bytes(), begins.as_bytes());
    let (mut at, mut line) = (0, 1);
    while at + begins.len() <= text.len() {
        let mut same = 0;
        while same < begins.len() && text[at + same] == begins[same] {
            same += 1;
        }
        if same == begins.len() {
            return line;
        }
        if text[at] == b'\n' {
            line += 1;
        }
        at += 1;
    }
    panic!("internal: this operation is not in its file")
}

/// A line an operation: its name, its file, what its definition begins with there, its formula, its gradient.
macro_rules! sources {
    ($($name:literal $file:literal $begins:literal $formula:literal $gradient:literal;)*) => {
        /// Every operation that a tape records.
        pub static SOURCES: &[Source] = &[$(Source {
            name: $name,
            file: concat!("crates/tensor/src/", $file),
            line: const { line_of(include_str!(concat!("../", $file)), $begins) },
            formula: $formula,
            gradient: $gradient,
        }),*];
    };
}

sources! {
    "embed_layer_norm" "ops/embedding/mod.rs" "pub fn embed_layer_norm("
        "y = LayerNorm(word[id] + token_type[type] + position[position])"
        "dsum through LayerNorm; a row of a table gets the sum of dsum over its tokens";
    "linear" "ops/linear/mod.rs" "pub fn linear("
        "y = act(x W^T + b)" "dpre = dy act'(pre); dx = dpre W, dW = dpre^T x, db = sum of the rows of dpre";
    "attention" "ops/attention/mod.rs" "pub fn attention("
        "out = dropout(softmax(softmax_scale * Q K^T)) V, for each head of each text"
        "dV = Z^T dO, dS = P (dP - sum_j P dP), dQ = softmax_scale * dS K, dK = softmax_scale * dS^T Q";
    "dropout" "ops/dropout/mod.rs" "pub fn dropout(" "y = x * keep / (1 - p)" "dx = dy * keep / (1 - p)";
    "dropout_add_layer_norm" "ops/dropout_add_layer_norm/mod.rs" "pub fn dropout_add_layer_norm("
        "y = LayerNorm(residual + dropout(x))" "dresidual = dsum, dx = dropout(dsum), dsum being the gradient through LayerNorm";
    "gather_rows" "ops/movement/mod.rs" "pub fn gather_rows(" "y_i = x[index_i]" "dx[v] = sum of dy_i over index_i = v";
    "cross_entropy" "ops/cross_entropy/mod.rs" "pub fn cross_entropy("
        "loss = 1/B sum_b (logsumexp(x_b) - x_b[label_b])" "dx = dloss / B * (softmax(x) - onehot(label))";
    "add" "ops/elementwise/mod.rs" "binary add, Add" "y = a + b" "da = db = dy";
    "sub" "ops/elementwise/mod.rs" "binary sub, Sub" "y = a - b" "da = dy, db = -dy";
    "mul" "ops/elementwise/mod.rs" "binary mul, Mul" "y = a * b" "da = dy b, db = dy a";
    "div" "ops/elementwise/mod.rs" "binary div, Div" "y = a / b" "da = dy / b, db = -dy y / b";
    "scale" "ops/elementwise/mod.rs" "pub fn scale(" "y = factor * x" "dx = factor * dy";
    "add_scalar" "ops/elementwise/mod.rs" "pub fn add_scalar(" "y = x + term" "dx = dy";
    "exp" "ops/elementwise/mod.rs" "unary exp, Exp" "y = e^x" "dx = dy y";
    "ln" "ops/elementwise/mod.rs" "unary ln, Ln" "y = ln x" "dx = dy / x";
    "sqrt" "ops/elementwise/mod.rs" "unary sqrt, Sqrt" "y = sqrt x" "dx = dy / (2 y)";
    "tanh" "ops/elementwise/mod.rs" "unary tanh, Tanh" "y = tanh x" "dx = dy (1 - y^2)";
    "relu" "ops/elementwise/mod.rs" "unary relu, Relu" "y = max(x, 0)" "dx = dy where y > 0, else 0";
    "gelu_erf" "ops/gelu.rs" "pub fn gelu_erf(" "y = x (1 + erf(x / sqrt 2)) / 2" "dx = dy (Phi(x) + x phi(x))";
    "gelu_tanh" "ops/gelu.rs" "pub fn gelu_tanh("
        "y = x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2" "dx = dy times the derivative of y";
    "softmax" "ops/softmax/mod.rs" "pub fn softmax("
        "y_i = exp(x_i - max) / sum_j exp(x_j - max)" "dx = y (dy - sum_j dy_j y_j)";
    "log_softmax" "ops/softmax/mod.rs" "pub fn log_softmax("
        "y_i = x_i - max - ln sum_j exp(x_j - max)" "dx = dy - exp(y) sum_j dy_j";
    "layer_norm" "ops/layer_norm/mod.rs" "pub fn layer_norm("
        "y = (x - mean) * rstd * weight + bias"
        "dx = rstd (g - mean(g) - x_hat mean(g x_hat)) with g = dy weight; dweight = sum of dy x_hat, dbias = sum of dy";
    "rms_norm" "ops/rms_norm.rs" "pub fn rms_norm("
        "y = x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + eps)"
        "dx = rstd (g - x_hat mean(g x_hat)) with g = dy weight; dweight = sum of dy x_hat";
    "embedding" "ops/embedding/mod.rs" "pub fn embedding(" "y_t = table[id_t]" "dtable[v] = sum of dy_t over id_t = v";
    "matmul" "ops/matmul/mod.rs" "pub fn matmul(" "y = a b" "da = dy b^T, db = a^T dy";
    "transpose" "tensor.rs" "pub fn transpose(" "y = x with two dimensions swapped" "dx = dy, swapped back";
    "reshape" "tensor.rs" "pub fn reshape(" "y = x under another shape" "dx = dy under the old shape";
    "cast" "ops/cast/mod.rs" "pub fn to_dtype(" "y = x in another dtype, rounded" "dx = dy in the old dtype";
    "narrow" "tensor.rs" "pub fn narrow(" "y = x[start .. start + len]" "dx = dy there, 0 elsewhere";
    "broadcast_to" "tensor.rs" "pub fn broadcast_to(" "y = x, dimensions of length 1 repeated" "dx = sum of dy over what was repeated";
    "cat" "ops/movement/mod.rs" "pub fn cat(" "y = one input after the other" "each input gets its part of dy";
    "max" "ops/reduce/mod.rs" "pub fn max(" "y = largest x along a dimension" "dx = dy at the first largest x, else 0";
    "sum" "ops/reduce/mod.rs" "pub fn sum(" "y = sum of x along a dimension" "dx = dy, broadcast";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_line_is_that_of_its_operation() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut names = std::collections::BTreeSet::new();
        for source in SOURCES {
            let text = std::fs::read_to_string(root.join(source.file)).expect(source.file);
            let line = text.lines().nth(source.line as usize - 1).expect(source.name);
            // The cast is a method of tensors under PyTorch's name.
            let name = if source.name == "cast" { "to_dtype" } else { source.name };
            let defines = [format!("pub fn {name}("), format!("unary {name}, "), format!("binary {name}, ")];
            assert!(defines.iter().any(|begins| line.contains(begins)), "{}: {line}", source.name);
            assert!(!source.formula.is_empty() && !source.gradient.is_empty(), "{}", source.name);
            assert!(names.insert(source.name), "{} twice", source.name);
        }
        assert_eq!(
            source("layer_norm").map(|source| source.file),
            Some("crates/tensor/src/ops/layer_norm/mod.rs")
        );
        assert_eq!(source("layer"), None);
    }
}
