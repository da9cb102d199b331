//! The timeline itself: a line an operation, with bars where it lies in forward and backward, and all about it behind a click.

use super::{Numbers, Operation, Span, Timeline, arithmetic, kib, shape};
use crate::plot::number;
use maud::{Markup, html};

/// Every operation, under the part of the model that it is in.
pub fn section(timeline: &Timeline) -> Markup {
    let whole = timeline.seconds.max(timeline.backward_seconds.unwrap_or(0.0)).max(f64::MIN_POSITIVE);
    let groups = timeline.operations.chunk_by(|a, b| part(&a.scope) == part(&b.scope));
    html! {
        h2 { "Timeline" }
        p class="quiet" {
            "A line an operation, in the order of forward. Bars show when it ran: "
            i class="key forward" {} "forward, from left to right"
            @if timeline.backward_seconds.is_some() { "; " i class="key backward" {} "backward, which goes from the last line up" }
            ". Both have one scale, " (number(whole * 1e3)) " ms wide. Open a line for the formula, shapes, numbers and the place in the source."
        }
        @for group in groups {
            h3 class="scope" { span { (part(&group[0].scope)) } small { (sums(group)) } }
            @for op in group { (operation(op, whole)) }
        }
    }
}

/// The part of the model that a scope lies in: `encoder.layer.3` of `encoder.layer.3.attention`.
fn part(scope: &str) -> &str {
    let depth = if scope.starts_with("encoder.layer.") { 3 } else { 1 };
    scope.match_indices('.').nth(depth - 1).map_or(scope, |(at, _)| &scope[..at])
}

fn sums(group: &[Operation]) -> String {
    let forward: f64 = group.iter().map(|op| op.forward.seconds).sum();
    let mut text = format!("{:.3} ms", forward * 1e3);
    if group.iter().any(|op| op.backward.is_some()) {
        let backward: f64 = group.iter().filter_map(|op| op.backward).map(|span| span.seconds).sum();
        text += &format!(" forward, {:.3} ms backward", backward * 1e3);
    }
    text
}

fn operation(op: &Operation, whole: f64) -> Markup {
    html! {
        details class="op" id=(format!("op-{}", op.path)) {
            summary {
                span class="name" { (op.name) }
                span class="ms" { (milliseconds(op.forward)) }
                span class="ms" { @if let Some(span) = op.backward { (milliseconds(span)) } }
                span class="tracks" aria-hidden="true" {
                    span class="track" { (bar(op.forward, whole, "forward")) }
                    @if let Some(span) = op.backward { span class="track" { (bar(span, whole, "backward")) } }
                }
            }
            dl {
                dt { "path" } dd { code { (op.path) } }
                dt { "formula" } dd { code { (op.formula) } }
                dt { "source" } dd { code { (op.place) } }
                dt { "reads" } dd { @for (name, dims) in &op.reads { div { code { (name) } " " (shape(dims)) } } }
                dt { "makes" } dd { (shape(&op.shape)) " " (op.dtype) ", " (kib(op.bytes)) }
                @if let Some(numbers) = &op.values { dt { "numbers" } dd { (statistics(numbers)) } }
                dt { "kept for backward" } dd { (kib(op.saved_bytes)) }
                dt { "arithmetic" } dd {
                    (arithmetic(op.flops))
                    @if op.flops > 0 && op.forward.seconds > 0.0 { ", " (number(op.flops as f64 / op.forward.seconds / 1e9)) " GFLOP/s" }
                }
                dt { "forward" } dd { (milliseconds(op.forward)) }
                @if let Some(span) = op.backward {
                    dt { "backward" } dd { (milliseconds(span)) }
                    dt { "gradients" } dd { code { (op.gradient_formula) } }
                }
                @if let Some(norm) = op.gradient_norm {
                    dt { "gradient norm" } dd { @if norm.is_finite() { (scientific(norm)) } @else { strong { "not finite" } } }
                }
            }
        }
    }
}

fn bar(span: Span, whole: f64, class: &str) -> Markup {
    let (left, width) = (100.0 * span.started / whole, 100.0 * span.seconds / whole);
    html! { i class=(class) style=(format!("left:{:.2}%;width:{:.2}%", left.clamp(0.0, 99.8), width.clamp(0.0, 100.0))) {} }
}

fn milliseconds(span: Span) -> String {
    format!("{:.3} ms", span.seconds * 1e3)
}

/// Small gradients keep their digits.
pub fn scientific(value: f64) -> String {
    if value == 0.0 || (1e-3..1e4).contains(&value.abs()) { number(value) } else { format!("{value:.3e}") }
}

fn statistics(numbers: &Numbers) -> Markup {
    let Numbers { count, min, max, mean, norm, zeros, non_finite, first } = numbers;
    html! {
        @if let (Some(min), Some(max), Some(mean)) = (min, max, mean) {
            "min " (scientific(*min)) ", max " (scientific(*max)) ", mean " (scientific(*mean)) ", norm " (scientific(*norm))
        } @else { "none of them finite" }
        @if *zeros > 0 { ", " (zeros) " of " (count) " zero" }
        @if *non_finite > 0 { ", " strong { (non_finite) " of " (count) " not finite" } }
        @if !first.is_empty() {
            div class="quiet" {
                "first: " (first.iter().map(|&value| scientific(value)).collect::<Vec<_>>().join(", "))
                @if first.len() < *count { ", …" }
            }
        }
    }
}
