//! Plots as inline SVG: axes with round ticks, lines, points with intervals, bars.
//!
//! A plot is 400 units wide, about what it is in pixels on a phone and in a column of a wide page, so that its text has one size
//! everywhere. Every plot says in `data-` attributes which values its edges have: a reader of the file can turn points back into
//! numbers.

use maud::{Markup, html};

/// Width of every plot.
const WIDTH: f64 = 400.0;
/// Room for numbers on the left, for a tick's label beyond the right edge, above, and for numbers and a label below.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;
/// About the width of a character of a tick's label.
const CHARACTER: f64 = 6.5;
/// Points of a line, at most; longer ones are means.
pub const POINTS: usize = 400;

/// One axis: the values at its ends, and its ticks.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The value at the left or lower end.
    pub from: f64,
    /// The value at the other end.
    pub to: f64,
    /// Round numbers between them, and how they are written.
    pub ticks: Vec<(f64, String)>,
    /// What it measures, with its unit.
    pub label: String,
}

impl Axis {
    /// An axis over some values, which ends at round numbers; from 0 where the values come near it.
    pub fn over(values: impl Iterator<Item = f64> + Clone, label: &str) -> Self {
        let values = values.filter(|value| value.is_finite());
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let (mut low, mut high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        if low > 0.0 && low < 0.5 * high {
            low = 0.0;
        }
        if high - low <= 1e-9 * high.abs() {
            let around = if high == 0.0 { 1.0 } else { 0.1 * high.abs() };
            (low, high) = (low - around, high + around);
        }
        let step = round_step(high - low, 5.0);
        // Rounding must not add a tick beyond a round end.
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        Axis { from: first * step, to: last * step, ticks: ticks(first, last, step), label: label.into() }
    }

    /// An axis with given ends, such as 0 to 1.
    pub fn between(from: f64, to: f64, label: &str) -> Self {
        let step = round_step((to - from).max(f64::MIN_POSITIVE), 5.0);
        let (first, last) = ((from / step - 1e-9).ceil(), (to / step + 1e-9).floor());
        Axis { from, to, ticks: ticks(first, last, step), label: label.into() }
    }

    /// An axis whose values are logarithms to base 2, written as the powers.
    pub fn of_powers_of_two(from: f64, to: f64, label: &str) -> Self {
        let powers = (from.ceil().max(0.0) as u32)..=(to.floor().clamp(0.0, 31.0) as u32);
        let ticks = powers.map(|power| (f64::from(power), (1u64 << power).to_string())).collect();
        Axis { from, to, ticks, label: label.into() }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from)
    }
}

/// 1, 2 or 5 times a power of ten, so that about `count` of it fit.
fn round_step(range: f64, count: f64) -> f64 {
    let rough = range / count;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= 0.999 * rough).unwrap_or(10.0);
    factor * power
}

fn ticks(first: f64, last: f64, step: f64) -> Vec<(f64, String)> {
    let tick = |i| (first + f64::from(i)) * step;
    (0..=(last - first).clamp(0.0, 20.0) as u32).map(|i| (tick(i), number(tick(i)))).collect()
}

/// A number as a person writes it on an axis or in a table: three or four digits, `2e-5` for the very small.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".into();
    }
    if size < 1e-12 {
        return "0".into();
    }
    if size >= 1e6 {
        return format!("{}M", trimmed(&format!("{:.2}", value / 1e6)));
    }
    if size >= 1e4 {
        return format!("{}k", trimmed(&format!("{:.1}", value / 1e3)));
    }
    if size < 1e-3 {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trimmed(digits));
    }
    let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    trimmed(&format!("{value:.digits$}"))
}

fn trimmed(text: &str) -> String {
    if !text.contains('.') {
        return text.to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A line through points, or points alone.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is called in the legend and in tooltips.
    pub name: String,
    /// Number of its colour and dashes.
    pub color: usize,
    /// The points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub mark: Mark,
}

/// How a series is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// A line.
    Line,
    /// A thin, pale line behind others.
    Faint,
    /// Points with a line between them; with the ends of an interval, where there is one.
    Points(Vec<Option<(f64, f64)>>),
    /// As [`Points`](Mark::Points), without the line: for things in no order.
    Apart(Vec<Option<(f64, f64)>>),
    /// Points whose area follows a weight between 0 and 1, with a line between them.
    Weighted(Vec<f64>),
}

/// A plot of series over two axes. `title` is for readers who cannot see it, `tip` writes the tooltip of a point.
pub fn plot(
    id: &str,
    title: &str,
    (x, y): (&Axis, &Axis),
    series: &[Series],
    diagonal: bool,
    tip: impl Fn(&Series, usize) -> String,
) -> Markup {
    let height = 250.0;
    let frame = Frame { x, y, height };
    html! {
        svg id=(id) class="plot" viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(title)
            data-x0=(x.from) data-x1=(x.to) data-y0=(y.from) data-y1=(y.to)
            data-left=(LEFT) data-right=(WIDTH - RIGHT) data-top=(TOP) data-bottom=(height - BOTTOM) {
            (frame.axes(true))
            @if diagonal {
                line class="diagonal" x1=(frame.px(x.from)) y1=(frame.py(y.from)) x2=(frame.px(x.to)) y2=(frame.py(y.to)) {}
            }
            @for s in series {
                g class=(format!("series c{}", s.color % COLORS)) data-name=(s.name) {
                    @if !matches!(s.mark, Mark::Apart(_)) {
                        polyline class=(if s.mark == Mark::Faint { "faint" } else { "line" }) points=(frame.points(&s.points)) {}
                    }
                    @for (i, &(px, py)) in s.points.iter().enumerate() {
                        @match &s.mark {
                            Mark::Faint => {},
                            Mark::Line => @if s.points.len() <= 120 {
                                circle class="hover" cx=(cut(frame.px(px))) cy=(cut(frame.py(py))) r="6" { title { (tip(s, i)) } }
                            },
                            Mark::Points(intervals) | Mark::Apart(intervals) => {
                                @if let Some(Some((low, high))) = intervals.get(i) {
                                    line class="interval" x1=(cut(frame.px(px))) x2=(cut(frame.px(px))) y1=(cut(frame.py(*low))) y2=(cut(frame.py(*high))) {}
                                }
                                circle class="point" cx=(cut(frame.px(px))) cy=(cut(frame.py(py))) r=(if s.points.len() > 20 { "2.5" } else { "4" }) { title { (tip(s, i)) } }
                            },
                            Mark::Weighted(weights) => {
                                circle class="point" cx=(cut(frame.px(px))) cy=(cut(frame.py(py)))
                                    r=(cut(2.5 + 7.0 * weights.get(i).copied().unwrap_or(0.0).sqrt())) { title { (tip(s, i)) } }
                            },
                        }
                    }
                }
            }
        }
    }
}

/// One bar of a histogram: its ends on the x axis, its height, the share of it that is hatched, and its tooltip.
pub struct Bar {
    /// Left end.
    pub from: f64,
    /// Right end.
    pub to: f64,
    /// Height.
    pub value: f64,
    /// Of this height the upper part stands out.
    pub marked: f64,
    /// Tooltip.
    pub tip: String,
}

/// A histogram.
pub fn histogram(id: &str, title: &str, (x, y): (&Axis, &Axis), bars: &[Bar]) -> Markup {
    let height = 250.0;
    let frame = Frame { x, y, height };
    html! {
        svg id=(id) class="plot" viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(title)
            data-x0=(x.from) data-x1=(x.to) data-y0=(y.from) data-y1=(y.to)
            data-left=(LEFT) data-right=(WIDTH - RIGHT) data-top=(TOP) data-bottom=(height - BOTTOM) {
            (frame.axes(false))
            @for bar in bars {
                @let (left, right) = (frame.px(bar.from), frame.px(bar.to));
                @let top = frame.py(bar.value);
                g data-value=(bar.value) {
                    title { (bar.tip) }
                    rect class="bar" x=(cut(left + 0.5)) width=(cut((right - left - 1.0).max(0.5))) y=(cut(top)) height=(cut(frame.py(y.from) - top)) {}
                    @if bar.marked > 0.0 {
                        rect class="bar marked" x=(cut(left + 0.5)) width=(cut((right - left - 1.0).max(0.5))) y=(cut(top))
                            height=(cut(frame.py(bar.value - bar.marked) - top)) {}
                    }
                }
            }
        }
    }
}

/// Colours that there are; further series begin again.
pub const COLORS: usize = 6;

struct Frame<'a> {
    x: &'a Axis,
    y: &'a Axis,
    height: f64,
}

impl Frame<'_> {
    fn px(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, value: f64) -> f64 {
        self.height - BOTTOM - self.y.share(value) * (self.height - TOP - BOTTOM)
    }

    fn points(&self, points: &[(f64, f64)]) -> String {
        let points = points.iter().map(|&(x, y)| format!("{},{}", cut(self.px(x)), cut(self.py(y))));
        points.collect::<Vec<_>>().join(" ")
    }

    fn axes(&self, vertical_lines: bool) -> Markup {
        let (right, bottom) = (WIDTH - RIGHT, self.height - BOTTOM);
        html! {
            g class="axes" aria-hidden="true" {
                @for (tick, text) in &self.y.ticks {
                    line class="grid" x1=(LEFT) x2=(right) y1=(cut(self.py(*tick))) y2=(cut(self.py(*tick))) {}
                    text x=(LEFT - 6.0) y=(cut(self.py(*tick) + 4.0)) text-anchor="end" { (text) }
                }
                @let longest = self.x.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
                @let staggered = longest as f64 * CHARACTER * self.x.ticks.len() as f64 > right - LEFT;
                @for (place, (tick, text)) in self.x.ticks.iter().enumerate() {
                    @if vertical_lines {
                        line class="tick" x1=(cut(self.px(*tick))) x2=(cut(self.px(*tick))) y1=(bottom) y2=(bottom + 4.0) {}
                    }
                    @let second = staggered && place % 2 == 1;
                    text x=(cut(self.px(*tick))) y=(bottom + if second { 28.0 } else { 16.0 }) text-anchor="middle" { (text) }
                }
                line class="base" x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
                // Names in two rows say themselves what they are.
                @if !staggered {
                    text class="label" x=((LEFT + right) / 2.0) y=(self.height - 5.0) text-anchor="middle" { (self.x.label) }
                }
            }
        }
    }
}

/// A coordinate with a hundredth of a unit: enough to read a value back to a part in ten thousand.
fn cut(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// At most [`POINTS`] points: means of neighbours, and how many each is of.
pub fn thinned(points: &[(f64, f64)]) -> (Vec<(f64, f64)>, usize) {
    let group = points.len().div_ceil(POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        (x / n, y / n)
    };
    (points.chunks(group).map(mean).collect(), group)
}

/// The mean over a window that ends at each point: what a noisy curve does.
pub fn smoothed(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let mut sum = 0.0;
    let mean = |(i, &(x, y)): (usize, &(f64, f64))| {
        sum += y;
        if i >= window {
            sum -= points[i - window].1;
        }
        (x, sum / (i + 1).min(window) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_values() {
        let axis = Axis::over([0.13, 0.71].into_iter(), "loss");
        assert_eq!((axis.from, axis.to), (0.0, 0.8));
        assert_eq!(
            axis.ticks.iter().map(|t| t.1.as_str()).collect::<Vec<_>>(),
            ["0", "0.2", "0.4", "0.6", "0.8"]
        );
        let axis = Axis::over([0.0, 2e-5].into_iter(), "lr");
        assert_eq!(axis.ticks.last().map(|t| t.1.as_str()), Some("2e-5"));
        let flat = Axis::over([0.5, 0.5].into_iter(), "");
        assert!(flat.from < 0.5 && flat.to > 0.5 && flat.ticks.len() > 1);
        for none in [vec![], vec![f64::NAN]] {
            let axis = Axis::over(none.into_iter(), "");
            assert!(axis.from < axis.to && axis.ticks.len() > 1);
        }
        let zero = Axis::over([0.0].into_iter(), "");
        assert!(zero.from < zero.to && zero.ticks.len() < 12);
    }

    #[test]
    fn things_in_no_order_are_not_joined_and_long_names_stand_in_two_rows() {
        let ticks = |names: [&str; 3]| (0..3).map(|i| (i as f64, names[i].to_owned())).collect();
        let y = Axis::between(0.0, 1.0, "");
        let drawn = |names, mark: Mark| {
            let x = Axis { from: -0.5, to: 2.5, ticks: ticks(names), label: "edge".into() };
            let points = vec![(0.0, 0.1), (1.0, 0.5), (2.0, 0.9)];
            let series = Series { name: "a".into(), color: 0, points, mark };
            plot("id", "title", (&x, &y), &[series], false, |_, _| String::new()).into_string()
        };
        let (short, long) = (["a", "b", "c"], ["adjective to not", "all the others to not", "[CLS] to not"]);
        let joined = drawn(short, Mark::Points(vec![None; 3]));
        assert!(joined.contains("<polyline") && joined.contains("edge") && !joined.contains("y=\"238\""));
        let apart = drawn(long, Mark::Apart(vec![None; 3]));
        assert!(!apart.contains("<polyline") && apart.matches("<circle").count() == 3, "{apart}");
        assert_eq!(
            (apart.matches("y=\"226\"").count(), apart.matches("y=\"238\"").count()),
            (2, 1),
            "{apart}"
        );
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.25"),
            (2e-5, "2e-5"),
            (1234.0, "1234"),
            (25_000.0, "25k"),
            (2.34567, "2.346"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(1_500_000.0), "1.5M");
        assert_eq!(number(f64::NAN), "–");
        assert_eq!(number(0.6 - 0.6), "0");
    }

    #[test]
    fn long_lines_become_means() {
        let points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let (thin, group) = thinned(&points);
        assert_eq!((thin.len(), group), (334, 3));
        assert_eq!(thin[0], (1.0, 1.0 / 3.0));
        let smooth = smoothed(&points, 10);
        assert_eq!(smooth[0].1, 0.0);
        assert!((smooth[500].1 - 0.5).abs() < 1e-9);
    }
}
