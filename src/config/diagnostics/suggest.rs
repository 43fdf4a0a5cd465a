//! "Did you mean": the known word that is most similar to an unknown one.

/// Comparisons that one load may make, so that thousands of misspelt names in a file of thousands of clusters cost
/// milliseconds and not minutes.
const BUDGET: usize = 50_000;
/// Longest word that may be a misspelling of a known one.
const MAX_WORD: usize = 80;

/// Finds similar words until its budget is spent.
#[derive(Debug)]
pub(in crate::config) struct Suggester {
    left: usize,
}

impl Default for Suggester {
    fn default() -> Self {
        Self { left: BUDGET }
    }
}

impl Suggester {
    /// The word of `known` that is most similar to `word`; the first of equals. At most a third of the letters may be
    /// wrong (optimal string alignment: a swap of two neighbours counts once). Case and `-` for `_` do not count as
    /// wrong. `None` if no word is that similar.
    pub(crate) fn nearest<'w>(
        &mut self,
        word: &str,
        known: impl IntoIterator<Item = &'w str>,
    ) -> Option<&'w str> {
        if word.len() > MAX_WORD {
            return None;
        }
        let word = fold(word);
        let allowed = (word.chars().count() / 3).max(1);
        let mut best: Option<(usize, &str)> = None;
        for candidate in known {
            if candidate.len().abs_diff(word.len()) > allowed * 4 || candidate.len() > MAX_WORD {
                continue;
            }
            self.left = self.left.checked_sub(1)?;
            let distance = strsim::osa_distance(&word, &fold(candidate));
            // A one-letter word is one letter away from every other.
            if distance <= allowed
                && distance < word.chars().count().max(1)
                && best.is_none_or(|(known, _)| distance < known)
            {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }
}

fn fold(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// `` `a`, `b` or `c` ``, each in `mark`s.
pub(in crate::config) fn one_of<'w>(
    words: impl IntoIterator<Item = &'w str>,
    mark: char,
) -> String {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| format!("{mark}{word}{mark}"))
        .collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_words() {
        let known = ["address", "cluster", "timeouts", "on", "round_robin"];
        for (word, near) in [
            ("adress", Some("address")),
            ("clsuter", Some("cluster")),
            ("timeout", Some("timeouts")),
            ("Round-Robin", Some("round_robin")),
            ("no", Some("on")),
            ("x", None),
            ("", None),
            ("check", None),
        ] {
            assert_eq!(Suggester::default().nearest(word, known), near, "{word}");
        }
        assert_eq!(
            Suggester::default().nearest(&"a".repeat(100_000), known),
            None
        );
    }

    #[test]
    fn the_budget_ends() {
        let mut suggester = Suggester { left: 1 };
        assert_eq!(suggester.nearest("clustr", ["cluster"]), Some("cluster"));
        assert_eq!(suggester.nearest("clustr", ["cluster"]), None);
    }

    #[test]
    fn lists_of_words() {
        assert_eq!(one_of([], '`'), "");
        assert_eq!(one_of(["a"], '`'), "`a`");
        assert_eq!(one_of(["a", "b", "c"], '"'), "\"a\", \"b\" or \"c\"");
    }
}
