//! Walks a TOML document by sections and keys and collects everything wrong with it.

use toml::de::{DeTable, DeValue};

use super::Problem;
use super::value::Value;

/// Parses `text`, lets `take` read every section it knows, and answers what is wrong:
/// broken TOML (then nothing else), refused values, and whatever was left over.
pub(super) fn read(
    text: &str,
    sections: &[(&str, &[&str])],
    take: impl FnOnce(&mut Document<'_, '_>),
) -> Vec<Problem> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What was recovered from a broken text would only draw false complaints.
        return errors
            .iter()
            .map(|error| Problem {
                key: String::new(),
                reason: error.message().to_owned(),
                line: error.span().map(|span| line_of(text, span.start)),
            })
            .collect();
    }
    let mut document = Document {
        text,
        root: root.into_inner(),
        problems: Vec::new(),
        sections,
    };
    take(&mut document);
    document.refuse_unknown_sections();
    document.problems.sort_by_key(|problem| problem.line);
    document.problems
}

/// A parsed file of which sections are taken one by one.
pub(super) struct Document<'t, 'i> {
    text: &'t str,
    root: DeTable<'i>,
    problems: Vec<Problem>,
    sections: &'t [(&'t str, &'t [&'t str])],
}

impl<'i> Document<'_, 'i> {
    /// Takes section `name` and lets `read` read its keys; those left over are unknown.
    pub(super) fn section(&mut self, name: &str, read: impl FnOnce(&mut Section<'_, 'i>)) {
        let Some((key, value)) = self.root.remove_entry(name) else {
            return;
        };
        let DeValue::Table(table) = value.into_inner() else {
            let line = line_of(self.text, key.span().start);
            self.refuse(name, format!("must be a section: [{name}]"), line);
            return;
        };
        let mut section = Section {
            name,
            text: self.text,
            table,
            problems: &mut self.problems,
        };
        read(&mut section);
        for (key, _) in section.table {
            let line = line_of(self.text, key.span().start);
            let reason = self.unknown_key(name, key.get_ref());
            self.refuse(&format!("{name}.{}", key.get_ref()), reason, line);
        }
    }

    fn refuse_unknown_sections(&mut self) {
        for (key, value) in std::mem::take(&mut self.root) {
            let line = line_of(self.text, key.span().start);
            let name = key.get_ref();
            let reason = if matches!(value.get_ref(), DeValue::Table(_)) {
                let known = self.sections.iter().map(|(section, _)| *section);
                match nearest(name, known) {
                    Some(near) => format!("unknown section, did you mean [{near}]?"),
                    None => "unknown section".to_owned(),
                }
            } else {
                self.unknown_key("", name)
            };
            self.refuse(name, reason, line);
        }
    }

    /// Says that `key` of `section` (empty: before the first one) is unknown, and which
    /// key may have been meant.
    fn unknown_key(&self, section: &str, key: &str) -> String {
        let elsewhere = self
            .sections
            .iter()
            .find(|(name, keys)| *name != section && keys.contains(&key));
        let own = self.sections.iter().find(|(name, _)| *name == section);
        let near = own.and_then(|(_, keys)| nearest(key, keys.iter().copied()));
        match (near, elsewhere) {
            (Some(near), _) => format!("unknown key, did you mean {near}?"),
            (None, Some((other, _))) => format!("unknown key, it belongs under [{other}]"),
            (None, None) => "unknown key".to_owned(),
        }
    }

    fn refuse(&mut self, key: &str, reason: String, line: usize) {
        self.problems.push(Problem {
            key: key.to_owned(),
            reason,
            line: Some(line),
        });
    }
}

/// One section of which keys are taken one by one.
pub(super) struct Section<'d, 'i> {
    name: &'d str,
    text: &'d str,
    table: DeTable<'i>,
    problems: &'d mut Vec<Problem>,
}

impl Section<'_, '_> {
    /// Takes `key`; if it is not there or refused, `slot` stays as it is.
    pub(super) fn read<T: Value>(&mut self, key: &str, slot: &mut T, bound: T::Bound) {
        let Some(value) = self.table.remove(key) else {
            return;
        };
        match T::read(value.get_ref(), &bound) {
            Ok(read) => *slot = read,
            Err(reason) => self.problems.push(Problem {
                key: format!("{}.{key}", self.name),
                reason,
                line: Some(line_of(self.text, value.span().start)),
            }),
        }
    }
}

/// The line, from 1, of the byte at `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}

/// The known word that `word` was probably meant to be: at most a third of it mistyped.
fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be put in, taken out or changed to make one word the other
/// (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (y, cell) in b.iter().zip(&mut row[1..]) {
            let change = diagonal + usize::from(x != *y);
            diagonal = *cell;
            left = change.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_changes() {
        for (a, b, expected) in [
            ("listen", "listen", 0),
            ("lisen", "listen", 1),
            ("litsen", "listen", 2),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn nothing_near_gives_no_suggestion() {
        assert_eq!(nearest("zzz", ["listen", "tcp"].into_iter()), None);
        assert_eq!(nearest("tpc", ["listen", "tcp"].into_iter()), None);
        assert_eq!(nearest("tcpp", ["listen", "tcp"].into_iter()), Some("tcp"));
    }
}
