//! The mistakes in a configuration, with their places.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// Every mistake in a configuration, in the order of its text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigErrors {
    /// The file, or what else the text is called.
    pub source: String,
    /// At least one.
    pub errors: Vec<ConfigError>,
}

/// A mistake in a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// Its place; `None` if there is no text.
    pub place: Option<TextPlace>,
    /// The mistake, and how to mend it.
    pub what: String,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TextPlace {
    /// Counts from 1.
    pub line: usize,
    /// In characters, counts from 1.
    pub column: usize,
}

/// The mistakes found so far in one text.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    /// The parts of the text that are no TOML.
    broken: Vec<Range<usize>>,
    found: Vec<(Range<usize>, String)>,
    /// Keys without a usable value: what contradicts them is no mistake of its own.
    mistaken: BTreeSet<&'static str>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, broken: Vec::new(), found: Vec::new(), mistaken: BTreeSet::new() }
    }

    /// Notes that the text is no TOML. Only the first such mistake of a line is kept: others follow
    /// from it.
    pub(super) fn add_broken(&mut self, span: Range<usize>, what: &str) {
        let line = self.place(span.start).line;
        if self.broken.iter().all(|other| self.place(other.start).line != line) {
            self.found.push((span.clone(), format!("this is no TOML: {what}")));
        }
        self.broken.push(span);
    }

    /// Notes a mistake, unless that part of the text is no TOML anyway.
    pub(super) fn add(&mut self, span: &Range<usize>, what: String) {
        let line = self.place(span.start).line;
        let is_broken = self.broken.iter().any(|broken| {
            self.place(broken.start).line == line || (span.start..=span.end).contains(&broken.start)
        });
        if !is_broken {
            self.found.push((span.clone(), what));
        }
    }

    /// Notes that the value of `key` is of no use, and why.
    pub(super) fn add_mistaken(&mut self, key: &'static str, span: &Range<usize>, what: &str) {
        self.set_mistaken(key);
        self.add(span, format!("`{key}` {what}"));
    }

    /// Notes that the value of `key` is of no use; why has been said.
    pub(super) fn set_mistaken(&mut self, key: &'static str) {
        self.mistaken.insert(key);
    }

    /// Whether the text is TOML. If not, what else it says is unknown.
    pub(super) fn is_toml(&self) -> bool {
        self.broken.is_empty()
    }

    /// Whether `key` has no usable value.
    pub(super) fn is_mistaken(&self, key: &str) -> bool {
        self.mistaken.contains(key)
    }

    /// Whether `what` speaks of a key that has no usable value.
    pub(super) fn names_mistaken(&self, what: &str) -> bool {
        what.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| self.is_mistaken(word))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns all mistakes in the order of the text.
    pub(super) fn finish(mut self) -> Vec<ConfigError> {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|(span, _)| span.start);
        let error = |(span, what): (Range<usize>, String)| ConfigError {
            place: Some(self.place(span.start)),
            what,
        };
        found.into_iter().map(error).collect()
    }

    fn place(&self, offset: usize) -> TextPlace {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let in_line = before.rsplit('\n').next().unwrap_or_default();
        TextPlace { line, column: in_line.chars().count() + 1 }
    }
}

/// The one of `known` that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let distances = known.into_iter().map(|other| (strsim::osa_distance(word, other), other));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    // Where more than half of the letters differ it is another word.
    let longest = word.chars().count().max(nearest.chars().count());
    (2 * distance <= longest).then_some(nearest)
}

/// Returns the hint for a word that is none of `known`: the nearest one, or all.
pub(super) fn instead(word: &str, known: impl IntoIterator<Item: AsRef<str>>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    match nearest(word, known.iter().map(AsRef::as_ref)) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => {
            let known: Vec<_> = known.iter().map(|word| format!("`{}`", word.as_ref())).collect();
            format!("known are {}", known.join(", "))
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            write!(f, "{newline}{}:{error}", self.source)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{}:{}: {}", place.line, place.column, self.what),
            None => write!(f, " {}", self.what),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let report = Report::new("a\nüb\n");
        assert_eq!(report.place(0), TextPlace { line: 1, column: 1 });
        assert_eq!(report.place(4), TextPlace { line: 2, column: 2 });
        assert_eq!(report.place(6), TextPlace { line: 3, column: 1 });
        assert_eq!(report.place(99), TextPlace { line: 3, column: 1 });
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("repilcas", ["replicas", "gateways"]), Some("replicas"));
        assert_eq!(nearest("x", ["f", "replicas"]), None);
        assert_eq!(instead("x", ["f", "replicas"]), "known are `f`, `replicas`");
    }
}
