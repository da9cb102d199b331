//! Patterns that choose points by name.

use super::Point;

/// A pattern that no point has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no tap of this model is called {pattern:?}; `vitrine tap --list --model DIR` prints those that it has"
)]
pub struct NothingChosen {
    pattern: String,
}

impl Point {
    /// Those of `points`, in their order, whose names match one of the patterns. A pattern has a name's parts, between dots; `*` stands
    /// for any letters inside of one part, `**` for any number of whole parts, and `2-5` for the layers 2 to 5: `layer.*.output`,
    /// `layer.0-3.attention.*`, `layer.2.**`.
    ///
    /// # Errors
    /// For a pattern that nothing matches.
    pub fn choose<S: AsRef<str>>(points: &[Point], patterns: &[S]) -> Result<Vec<Point>, NothingChosen> {
        let mut chosen = vec![false; points.len()];
        for pattern in patterns {
            let parts: Vec<&str> = pattern.as_ref().split('.').collect();
            let mut any = false;
            for (point, chosen) in points.iter().zip(&mut chosen) {
                let name = point.to_string();
                if matches(&parts, &name.split('.').collect::<Vec<_>>()) {
                    (*chosen, any) = (true, true);
                }
            }
            if !any {
                return Err(NothingChosen { pattern: pattern.as_ref().to_owned() });
            }
        }
        Ok(points.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(&point, _)| point).collect())
    }
}

fn matches(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        ([first, rest @ ..], [part, others @ ..]) => part_matches(first, part) && matches(rest, others),
        _ => false,
    }
}

fn part_matches(pattern: &str, part: &str) -> bool {
    if let Some((first, last)) = pattern.split_once('-') {
        let number = |text: &str| text.parse::<usize>().ok();
        return match (number(first), number(last), number(part)) {
            (Some(first), Some(last), Some(layer)) => (first..=last).contains(&layer),
            _ => false,
        };
    }
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == part };
    let Some(mut left) = part.strip_prefix(start) else { return false };
    // What stands between stars, each found as early as possible; the last piece at the end.
    let pieces: Vec<&str> = rest.split('*').collect();
    let Some((last, between)) = pieces.split_last() else { return true };
    for piece in between {
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(patterns: &[&str]) -> Vec<String> {
        let mut points = Point::of_encoder(12);
        points.push(Point::Pooler);
        Point::choose(&points, patterns).unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn patterns_choose_whole_parts() {
        assert_eq!(chosen(&["layer.*.output"]).len(), 12);
        assert_eq!(
            chosen(&["pooler", "layer.10-11.output"]),
            ["layer.10.output", "layer.11.output", "pooler"]
        );
        assert_eq!(chosen(&["layer.1.*"]), ["layer.1.output"]);
        assert_eq!(chosen(&["layer.1.**"]).len(), 11);
        assert_eq!(chosen(&["**.output"]).len(), 12 * 3);
        assert_eq!(chosen(&["layer.0.attention.pr*s"]), ["layer.0.attention.probs"]);
        assert_eq!(chosen(&["layer.0.*.*o*t*"]).len(), 3);
        assert_eq!(chosen(&["**"]).len(), 12 * 11 + 3);
        for wrong in ["", "layer", "layer.12.output", "layer.5-2.output", "layer.0-x.output", "*", "output"] {
            let is_empty = chosen(&[wrong]).is_empty();
            assert_eq!(is_empty, wrong != "*", "{wrong}");
        }
    }
}
