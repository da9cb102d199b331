//! The tables of the page.

use super::operations::scientific;
use super::{Timeline, arithmetic, shape};
use crate::plot::number;
use crate::sentence::percent;
use maud::{Markup, html};

/// Facts with their names.
pub fn pairs(facts: &[(String, String)]) -> Markup {
    html! {
        table class="pairs" style="margin-top:1.5rem" {
            tbody { @for (name, value) in facts { tr { th scope="row" { (name) } td { (value) } } } }
        }
    }
}

/// One kind of operation.
struct Kind<'a> {
    name: &'a str,
    calls: usize,
    forward: f64,
    backward: f64,
    flops: u64,
}

/// Time and arithmetic by kind of operation, the longest first.
pub fn by_operation(timeline: &Timeline) -> Markup {
    let mut kinds: Vec<Kind> = Vec::new();
    for op in &timeline.operations {
        let place = kinds.iter().position(|kind| kind.name == op.name).unwrap_or_else(|| {
            kinds.push(Kind { name: &op.name, calls: 0, forward: 0.0, backward: 0.0, flops: 0 });
            kinds.len() - 1
        });
        let kind = &mut kinds[place];
        kind.calls += 1;
        kind.forward += op.forward.seconds;
        kind.backward += op.backward.map_or(0.0, |span| span.seconds);
        kind.flops += op.flops;
    }
    let total = |kind: &Kind| kind.forward + kind.backward;
    kinds.sort_by(|a, b| total(b).total_cmp(&total(a)));
    let all: f64 = kinds.iter().map(total).sum::<f64>().max(f64::MIN_POSITIVE);
    let longest = kinds.first().map_or(1.0, total).max(f64::MIN_POSITIVE);
    html! {
        h2 { "By kind of operation" }
        div class="scroll" {
            table class="ops" {
                thead { tr { th { "operation" } th class="n" { "calls" } th class="n" { "ms" } th class="n" { "share" } th class="n" { "forward" } th {} } }
                tbody {
                    @for kind in &kinds {
                        tr {
                            th scope="row" { (kind.name) }
                            td class="n" { (kind.calls) }
                            td class="n" { (number(total(kind) * 1e3)) }
                            td class="n" { (percent(total(kind) / all)) }
                            td class="n" { (arithmetic(kind.flops)) }
                            td class="time" {
                                div class="stack" aria-hidden="true" {
                                    i class="forward" style=(format!("width:{:.2}%", 100.0 * kind.forward / longest)) {}
                                    i class="backward" style=(format!("width:{:.2}%", 100.0 * kind.backward / longest)) {}
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What a step would not change.
pub fn idle(timeline: &Timeline) -> Markup {
    html! {
        @if !timeline.idle.is_empty() {
            h2 { "What a step would not change" }
            p class="quiet" { "Parameters without a gradient, or with rows that get none. Weight decay is not counted." }
            div class="scroll" {
                table {
                    thead { tr { th { "parameter" } th { "gradient" } th class="n" { "rows without" } th { "why" } } }
                    tbody {
                        @for idle in &timeline.idle {
                            tr {
                                td { code { (idle.key) } }
                                td { (idle.finding) }
                                td class="n" { (idle.rows) " of " (idle.of) }
                                td { (idle.reason.as_deref().unwrap_or("unknown")) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The gradient norm of every parameter.
pub fn weights(timeline: &Timeline) -> Markup {
    html! {
        @if !timeline.weights.is_empty() {
            h2 { "Gradients of the parameters" }
            div class="scroll" {
                table {
                    thead { tr { th { "parameter" } th { "shape" } th class="n" { "gradient norm" } th class="n" { "/ norm of weights" } } }
                    tbody {
                        @for weight in &timeline.weights {
                            tr {
                                td { code { (weight.key) } }
                                td { (shape(&weight.shape)) }
                                td class="n" { @if weight.gradient_norm.is_finite() { (scientific(weight.gradient_norm)) } @else { "not finite" } }
                                td class="n" { (weight.relative.map_or_else(|| "–".to_owned(), scientific)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
