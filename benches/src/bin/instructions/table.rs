//! The table of counts, in a Markdown file.

use std::fmt;

use crate::Outcome;

/// The most that a count may differ from the table's, in percent.
const DIFFERENCE_PERCENT_MAX: u64 = 3;
/// The first lines of the table: the compiler is between the two.
const HEAD: [&str; 2] = ["| work | instructions, ", " |\n|---|---|\n"];

/// How many instructions each piece of work takes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Table {
    /// The compiler that has made them: another one makes others.
    pub(crate) compiler: String,
    pub(crate) counts: Vec<(String, u64)>,
}

impl Table {
    /// Reads the table in `text`.
    ///
    /// # Errors
    ///
    /// If there is none, or a row of it has no number.
    pub(crate) fn read(text: &str) -> Outcome<Self> {
        let (_, table) = text.split_once(HEAD[0]).ok_or("the file has no table of instructions")?;
        let (compiler, rows) = table.split_once(HEAD[1]).ok_or("the table has no rows")?;
        let rows = rows.lines().map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
        let counts = rows.map(|row| {
            let (work, count) = row.split_once(" | ").ok_or_else(|| format!("{row}: no count"))?;
            Ok((work.to_owned(), count.parse().map_err(|error| format!("{row}: {error}"))?))
        });
        Ok(Self { compiler: compiler.to_owned(), counts: counts.collect::<Outcome<_>>()? })
    }

    /// Returns `text` with `table` in place of the one it has.
    ///
    /// # Errors
    ///
    /// If it has none.
    pub(crate) fn replaced_in(text: &str, table: &Self) -> Outcome<String> {
        let (before, after) = text.split_once(HEAD[0]).ok_or("the file has no table to replace")?;
        let rest = format!("| {after}");
        let rest = rest.split_inclusive('\n').skip_while(|line| line.starts_with('|'));
        Ok(format!("{before}{table}{}", rest.collect::<String>()))
    }

    /// What is not as in this table, a line each.
    pub(crate) fn differences(&self, found: &Self) -> Vec<String> {
        let is_near = |expected: u64, found: u64| {
            expected.abs_diff(found) * 100 <= expected * DIFFERENCE_PERCENT_MAX
        };
        let mut differences = Vec::new();
        for (work, expected) in &self.counts {
            match found.counts.iter().find(|(name, _)| name == work) {
                Some((_, found)) if is_near(*expected, *found) => {}
                Some((_, found)) => differences.push(format!(
                    "{work}: {found} instructions, where the table has {expected}: see where they \
                     went, or renew the table"
                )),
                None => differences.push(format!("{work}: in the table, and not counted")),
            }
        }
        for (work, _) in &found.counts {
            if self.counts.iter().all(|(name, _)| name != work) {
                differences.push(format!("{work}: counted, and not in the table"));
            }
        }
        differences
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [start, end] = HEAD;
        write!(f, "{start}{}{end}", self.compiler)?;
        self.counts.iter().try_for_each(|(work, count)| writeln!(f, "| {work} | {count} |"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(counts: &[(&str, u64)]) -> Table {
        let compiler = "rustc 1".to_owned();
        let counts = counts.iter().map(|(work, count)| ((*work).to_owned(), *count)).collect();
        Table { compiler, counts }
    }

    #[test]
    fn a_table_is_found_and_replaced_in_a_page() {
        let old = table(&[("a slot", 1000), ("a put", 70)]);
        let page = format!("# Title\n\nWords.\n\n{old}\nMore | words.\n");
        assert_eq!(Table::read(&page).expect("a table"), old);
        let new = table(&[("a slot", 900)]);
        let replaced = Table::replaced_in(&page, &new).expect("a table");
        assert_eq!(replaced, format!("# Title\n\nWords.\n\n{new}\nMore | words.\n"));
        assert!(Table::read("# Title\n").is_err());
        assert!(Table::replaced_in("# Title\n", &new).is_err());
        assert!(Table::read(&format!("{new}| a put | many |\n")).is_err());
    }

    #[test]
    fn three_percent_is_near_and_more_is_not_either_way() {
        let expected = table(&[("a slot", 1000), ("a put", 70)]);
        for (found, differences) in [(1000, 0), (1030, 0), (970, 0), (1031, 1), (969, 1)] {
            let found = table(&[("a slot", found), ("a put", 70)]);
            assert_eq!(expected.differences(&found).len(), differences, "{found}");
        }
        assert_eq!(expected.differences(&table(&[("a slot", 1000), ("a get", 70)])).len(), 2);
    }
}
