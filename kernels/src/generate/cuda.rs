//! Reads what the launches need out of a `.cu` file: constants, structures, and the kernels with their parameters.
//!
//! It is no C++ front end. It knows the forms that the files of this package use: `constexpr uint32_t`, structures of numbers,
//! `extern "C" __global__` functions with `LAUNCH` and `NULLABLE` (see `primitives.cuh`), and macros that stamp such functions
//! out for several types. Function bodies are skipped. What it does not know in a kernel's signature is an error.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// What a `.cu` or `.cuh` file says.
pub struct File {
    /// The comment at its top.
    pub doc: Vec<String>,
    /// The headers it includes, without those that they include.
    pub includes: Vec<String>,
    /// `constexpr uint32_t`.
    pub constants: Vec<Constant>,
    /// Structures of numbers and pointers.
    pub structures: Vec<Structure>,
    /// Entry points.
    pub kernels: Vec<Kernel>,
}

/// A constant: its value is an expression in constants that reads the same in Rust.
pub struct Constant {
    /// Its name.
    pub name: String,
    /// The expression.
    pub value: Vec<String>,
}

/// A structure.
pub struct Structure {
    /// Its name.
    pub name: String,
    /// The comment above it.
    pub doc: Vec<String>,
    /// Its fields in order, each with the comment beside or above it.
    pub fields: Vec<(Parameter, Vec<String>)>,
}

/// An entry point.
pub struct Kernel {
    /// Its name in the PTX.
    pub name: String,
    /// The comment above it.
    pub doc: Vec<String>,
    /// Its parameters in order.
    pub parameters: Vec<Parameter>,
    /// What stands in `LAUNCH`.
    pub launch: LaunchShape,
}

/// A parameter, or a field of a structure.
#[derive(PartialEq, Eq, Clone, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// `uint32_t`, `float`, `bf16`, a structure, ..: for a pointer of what it points to.
    pub base: String,
    /// How it is passed.
    pub form: Form,
}

/// How a value is passed.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub enum Form {
    /// By value.
    Value,
    /// An array of this length inside of a structure.
    Array(usize),
    /// `const T*`, which may be null if `nullable`.
    Input {
        /// Marked `NULLABLE`.
        nullable: bool,
    },
    /// `T*`.
    Output {
        /// Marked `NULLABLE`.
        nullable: bool,
    },
}

/// The expressions of `LAUNCH`, as tokens.
#[derive(PartialEq, Eq, Default, Debug)]
pub struct LaunchShape {
    /// Numbers that only the launch needs.
    pub with: Vec<String>,
    /// Which number stands in the kernel's name.
    pub by: Option<Vec<String>>,
    /// Blocks along x, y, z.
    pub grid: Vec<Vec<String>>,
    /// Threads of a block.
    pub block: Vec<String>,
    /// Bytes of dynamic shared memory.
    pub shared: Vec<String>,
}

/// A function-like macro that stamps kernels out.
struct Macro {
    parameters: Vec<String>,
    body: Vec<Token>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    /// A word, a number, a string, or one character; `##` is one.
    Code(String),
    /// A comment that has its line for itself.
    Above(String),
    /// A comment after code.
    Beside(String),
    /// An empty line or a directive: what is above is not about what is below.
    Break,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        matches!(self, Token::Code(code) if code == text)
    }
}

/// Reads a file, and from its headers the macros.
///
/// # Errors
/// A file that cannot be read, or a line about what was not understood.
pub fn read(path: &Path) -> Result<File, String> {
    read_with(path, &mut HashMap::new())
}

fn read_with(path: &Path, macros: &mut HashMap<String, Macro>) -> Result<File, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // A directive with its continuation is one line.
    let text = text.replace("\\\n", " ");
    let doc = text.lines().take_while(|line| line.starts_with("//")).map(comment).collect();
    let mut includes = Vec::new();
    let mut tokens = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("#include \"").and_then(|rest| rest.split('"').next()) {
            read_with(&path.with_file_name(name), macros)?;
            includes.push(name.to_owned());
        } else if let Some(definition) = line.strip_prefix("#define ") {
            define(definition, macros);
        }
        if line.trim().is_empty() || line.starts_with('#') {
            tokens.push(Token::Break);
            continue;
        }
        let of_line = tokenize(line);
        match &of_line[..] {
            [Token::Code(name), rest @ ..] if macros.contains_key(name) => {
                tokens.extend(expand(&macros[name], rest).map_err(|why| format!("{name}: {why}"))?);
            }
            _ => tokens.extend(of_line),
        }
    }
    let mut file = File { doc, includes, constants: Vec::new(), structures: Vec::new(), kernels: Vec::new() };
    scan(&tokens, &mut file).map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(file)
}

fn comment(line: &str) -> String {
    line.trim_start_matches('/').trim().to_owned()
}

fn tokenize(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            let text = comment(rest);
            tokens.push(if tokens.is_empty() { Token::Above(text) } else { Token::Beside(text) });
            break;
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let len = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if first == '"' {
            rest[1..].find('"').map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("##") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(Token::Code(rest[..len].to_owned()));
        rest = rest[len..].trim_start();
    }
    tokens
}

/// Remembers `NAME(parameters) body` if its body has a kernel.
fn define(definition: &str, macros: &mut HashMap<String, Macro>) {
    let Some((name, rest)) = definition.split_once('(') else { return };
    let Some((parameters, body)) = rest.split_once(')') else { return };
    let body = tokenize(body);
    if body.iter().any(|token| token.is("__global__")) {
        let parameters = parameters.split(',').map(|name| name.trim().to_owned()).collect();
        macros.insert(name.to_owned(), Macro { parameters, body });
    }
}

/// A macro's body with its arguments, `##` applied.
fn expand(of: &Macro, call: &[Token]) -> Result<Vec<Token>, String> {
    let (inside, _) = parenthesised(call)?;
    let arguments = split(inside);
    if arguments.len() != of.parameters.len() {
        return Err(format!("{} arguments for {}", arguments.len(), of.parameters.len()));
    }
    let mut tokens: Vec<Token> = Vec::new();
    let mut paste = false;
    for token in &of.body {
        if token.is("##") {
            paste = true;
            continue;
        }
        let argument = of.parameters.iter().position(|name| token.is(name));
        let replacement = argument.map_or(std::slice::from_ref(token), |i| &arguments[i]);
        for token in replacement {
            match (tokens.last_mut(), token) {
                (Some(Token::Code(last)), Token::Code(next)) if paste => last.push_str(next),
                _ => tokens.push(token.clone()),
            }
            paste = false;
        }
    }
    Ok(tokens)
}

/// What stands between the parenthesis (of any kind) that `tokens` begin with and its partner, and what comes after.
fn parenthesised(tokens: &[Token]) -> Result<(&[Token], &[Token]), String> {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        let Token::Code(code) = token else { continue };
        match &code[..] {
            "(" | "{" | "[" => depth += 1,
            ")" | "}" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if i > 0 { Ok((&tokens[1..i], &tokens[i + 1..])) } else { Err("no parenthesis".into()) };
        }
    }
    Err("a parenthesis without a partner".into())
}

/// The parts between commas outside of parentheses.
fn split(tokens: &[Token]) -> Vec<Vec<Token>> {
    let mut parts = vec![Vec::new()];
    let mut depth = 0;
    for token in tokens {
        match token {
            Token::Code(code) if code == "," && depth == 0 => {
                parts.push(Vec::new());
                continue;
            }
            Token::Code(code) if matches!(&code[..], "(" | "[" | "{") => depth += 1,
            Token::Code(code) if matches!(&code[..], ")" | "]" | "}") => depth -= 1,
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(token.clone());
        }
    }
    parts
}

fn codes(tokens: &[Token]) -> Vec<String> {
    tokens
        .iter()
        .filter_map(|token| if let Token::Code(code) = token { Some(code.clone()) } else { None })
        .collect()
}

/// Goes through the file's outermost level.
fn scan(mut tokens: &[Token], file: &mut File) -> Result<(), String> {
    let mut doc: Vec<String> = Vec::new();
    while let [first, rest @ ..] = tokens {
        match first {
            Token::Above(text) => {
                doc.push(text.clone());
                tokens = rest;
                continue;
            }
            Token::Code(code)
                if code == "constexpr" && rest.first().is_some_and(|token| token.is("uint32_t")) =>
            {
                tokens = constants(&rest[1..], file)?;
            }
            Token::Code(code) if code == "struct" => tokens = structure(rest, &mut doc, file)?,
            Token::Code(code)
                if code == "extern" && rest.get(1).is_some_and(|token| token.is("__global__")) =>
            {
                let (kernel, after) = kernel(&rest[2..])?;
                file.kernels.push(Kernel { doc: std::mem::take(&mut doc), ..kernel });
                tokens = after;
            }
            Token::Code(code) if code == "{" => (_, tokens) = parenthesised(tokens)?,
            _ => tokens = rest,
        }
        doc.clear();
    }
    Ok(())
}

/// `NAME = expression, ..;`
fn constants<'a>(tokens: &'a [Token], file: &mut File) -> Result<&'a [Token], String> {
    let end = tokens.iter().position(|token| token.is(";")).ok_or("a constant without an end")?;
    for part in split(&tokens[..end]) {
        match &codes(&part)[..] {
            [name, equals, value @ ..] if equals == "=" && !value.is_empty() => {
                file.constants.push(Constant { name: name.clone(), value: value.to_vec() });
            }
            other => return Err(format!("a constant that is not understood: {}", other.join(" "))),
        }
    }
    Ok(&tokens[end + 1..])
}

/// `NAME { fields };`. Structures with anything but numbers and pointers are not for launches and passed over.
fn structure<'a>(tokens: &'a [Token], doc: &mut Vec<String>, file: &mut File) -> Result<&'a [Token], String> {
    let (Some(Token::Code(name)), Some(brace)) = (tokens.first(), tokens.get(1)) else { return Ok(tokens) };
    if !brace.is("{") {
        return Ok(tokens);
    }
    let (inside, after) = parenthesised(&tokens[1..])?;
    if let Some(fields) = fields(inside) {
        file.structures.push(Structure { name: name.clone(), doc: std::mem::take(doc), fields });
    }
    Ok(after)
}

fn fields(mut tokens: &[Token]) -> Option<Vec<(Parameter, Vec<String>)>> {
    let mut fields: Vec<(Parameter, Vec<String>)> = Vec::new();
    let (mut above, mut declared) = (Vec::new(), 0);
    while let [first, rest @ ..] = tokens {
        match first {
            Token::Above(text) => above.push(text.clone()),
            // About all fields of its line.
            Token::Beside(text) => fields[declared..].iter_mut().for_each(|field| field.1.push(text.clone())),
            Token::Break => {}
            Token::Code(_) => {
                let end = tokens.iter().position(|token| token.is(";"))?;
                declared = fields.len();
                let parts = split(&tokens[..end]);
                let first = parameter(&codes(&parts[0]))?;
                let base = first.base.clone();
                fields.push((first, std::mem::take(&mut above)));
                for part in &parts[1..] {
                    let [name] = &codes(part)[..] else { return None };
                    let field = Parameter { name: name.clone(), base: base.clone(), form: Form::Value };
                    fields.push((field, Vec::new()));
                }
                tokens = &tokens[end + 1..];
                continue;
            }
        }
        tokens = rest;
    }
    Some(fields)
}

/// `[const] BASE [*] [NULLABLE] NAME [[LENGTH]]`
fn parameter(codes: &[String]) -> Option<Parameter> {
    let (constant, codes) = match codes {
        [first, rest @ ..] if first == "const" => (true, rest),
        _ => (false, codes),
    };
    let (base, rest) = codes.split_first()?;
    let (name, form) = match rest {
        [name] if !constant => (name, Form::Value),
        [name, open, length, close] if !constant && open == "[" && close == "]" => {
            (name, Form::Array(length.parse().ok()?))
        }
        [star, rest @ ..] if star == "*" => {
            let (nullable, name) = match rest {
                [name] => (false, name),
                [marker, name] if marker == "NULLABLE" => (true, name),
                _ => return None,
            };
            (name, if constant { Form::Input { nullable } } else { Form::Output { nullable } })
        }
        _ => return None,
    };
    let is_name = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
    (is_name(base) && is_name(name)).then(|| Parameter { name: name.clone(), base: base.clone(), form })
}

/// From behind `__global__` on: attributes, name, parameters; the body is left.
fn kernel(mut tokens: &[Token]) -> Result<(Kernel, &[Token]), String> {
    let mut launch = None;
    loop {
        match tokens {
            [Token::Code(code), rest @ ..] if code == "void" => tokens = rest,
            [Token::Code(code), rest @ ..] if code == "__launch_bounds__" => {
                (_, tokens) = parenthesised(rest)?;
            }
            [Token::Code(code), rest @ ..] if code == "LAUNCH" => {
                let (inside, after) = parenthesised(rest)?;
                launch = Some(launch_shape(inside)?);
                tokens = after;
            }
            [Token::Code(name), rest @ ..] => {
                let (inside, after) = parenthesised(rest).map_err(|why| format!("{name}: {why}"))?;
                let launch = launch.ok_or_else(|| format!("{name} has no LAUNCH"))?;
                let parts = split(inside);
                let parameters = parts.iter().map(|part| {
                    let codes = codes(part);
                    parameter(&codes).ok_or_else(|| format!("{name}: not understood: {}", codes.join(" ")))
                });
                let parameters = parameters.collect::<Result<_, _>>()?;
                return Ok((Kernel { name: name.clone(), doc: Vec::new(), parameters, launch }, after));
            }
            _ => return Err("a kernel without a name".into()),
        }
    }
}

/// `with(..), by(..), grid(..), block(..), shared(..)`
fn launch_shape(tokens: &[Token]) -> Result<LaunchShape, String> {
    let mut shape = LaunchShape::default();
    for part in split(tokens) {
        let [Token::Code(what), rest @ ..] = &part[..] else { return Err("an empty part of LAUNCH".into()) };
        let (inside, _) = parenthesised(rest)?;
        let parts: Vec<Vec<String>> = split(inside).iter().map(|part| codes(part)).collect();
        match &what[..] {
            "with" => shape.with = parts.concat(),
            "by" => shape.by = Some(codes(inside)),
            "grid" if parts.len() <= 3 => shape.grid = parts,
            "block" => shape.block = codes(inside),
            "shared" => shape.shared = codes(inside),
            _ => return Err(format!("LAUNCH does not know {what}({})", codes(inside).join(" "))),
        }
    }
    if shape.grid.is_empty() || shape.block.is_empty() {
        return Err("LAUNCH needs grid(..) and block(..)".into());
    }
    Ok(shape)
}
