//! `f` and `quorums`: what all else starts from.

use loggos_protocol::{ACCEPTORS_MAX, QuorumError, QuorumSystem};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Report, instead};
use super::given::Given;
use super::value::{number, shown};

/// The most losses that any system of 64 acceptors survives: a majority of 63.
const F_MAX: u32 = 31;

const WANTED: &str = "must be { grid = { rows = 2, columns = 2 } }, \"majority\", or \
                      { flexible = { acceptors = 4, read = 3, write = 2 } }";

/// Reads `f`; none if it is mistaken.
pub(super) fn read_f(given: &Given<'_>, report: &mut Report<'_>) -> Option<u8> {
    let Some(entry) = given.entry("f") else { return Some(1) };
    match number(entry.value.get_ref(), 0..=F_MAX) {
        Ok(f) => Some(f),
        Err(what) => {
            report.add_mistaken("f", &entry.value.span(), &what);
            None
        }
    }
}

/// Reads `quorums`, by default a grid of f + 1 by f + 1; none if they are mistaken.
pub(super) fn read_quorums(
    given: &Given<'_>,
    f: Option<u8>,
    report: &mut Report<'_>,
) -> Option<QuorumSystem> {
    let Some(entry) = given.entry("quorums") else {
        let f = f?;
        return match QuorumSystem::grid(f + 1, f + 1, f) {
            Ok(grid) => Some(grid),
            Err(error) => {
                let place = given.place_of("f");
                let what = format!(
                    "needs other quorums than the default, a grid of f + 1 by f + 1: {error}; write \
                     quorums = \"majority\" in [cluster]"
                );
                report.add_mistaken("f", &place, &what);
                None
            }
        };
    };
    // With another f the shape can still be looked at.
    let built = shape(entry.value, report).map(|shape| f.map(|f| shape.build(f)));
    match built {
        Some(Some(Ok(quorums))) => Some(quorums),
        Some(Some(Err(error))) => {
            report.add_mistaken("quorums", &entry.value.span(), &format!("do not work: {error}"));
            None
        }
        Some(None) => None,
        None => {
            report.set_mistaken("quorums");
            None
        }
    }
}

/// Quorums as they are written.
enum Shape {
    Majority,
    Grid { rows: u8, columns: u8 },
    Flexible { acceptors: u8, read: u8, write: u8 },
}

impl Shape {
    fn build(self, f: u8) -> Result<QuorumSystem, QuorumError> {
        match self {
            Self::Majority => QuorumSystem::majority(f),
            Self::Grid { rows, columns } => QuorumSystem::grid(rows, columns, f),
            Self::Flexible { acceptors, read, write } => {
                QuorumSystem::flexible(acceptors, read, write, f)
            }
        }
    }
}

fn shape(value: &Spanned<DeValue<'_>>, report: &mut Report<'_>) -> Option<Shape> {
    if value.get_ref().as_str() == Some("majority") {
        return Some(Shape::Majority);
    }
    let entry = value.get_ref().as_table().filter(|table| table.len() == 1);
    let Some((kind, sides)) = entry.and_then(|table| table.iter().next()) else {
        let what = format!("`quorums` {WANTED}, not {}", shown(value.get_ref()));
        report.add(&value.span(), what);
        return None;
    };
    match kind.get_ref().as_ref() {
        "grid" => {
            let [rows, columns] = sizes(sides, ["rows", "columns"], report)?;
            Some(Shape::Grid { rows, columns })
        }
        "flexible" => {
            let [acceptors, read, write] = sizes(sides, ["acceptors", "read", "write"], report)?;
            Some(Shape::Flexible { acceptors, read, write })
        }
        other => {
            let hint = instead(other, ["grid", "flexible"]);
            report.add(&kind.span(), format!("unknown kind of quorums `{other}`; {hint}"));
            None
        }
    }
}

/// Reads the sizes `names`, all of them and nothing else.
fn sizes<const N: usize>(
    value: &Spanned<DeValue<'_>>,
    names: [&'static str; N],
    report: &mut Report<'_>,
) -> Option<[u8; N]> {
    let Some(table) = value.get_ref().as_table() else {
        report.add(&value.span(), format!("`quorums` {WANTED}, not {}", shown(value.get_ref())));
        return None;
    };
    let mut is_right = true;
    for (name, _) in table.iter().filter(|(name, _)| !names.contains(&name.get_ref().as_ref())) {
        let hint = instead(name.get_ref(), names);
        report.add(&name.span(), format!("unknown key `{}`; {hint}", name.get_ref()));
        is_right = false;
    }
    let sizes = names.map(|name| size(table, name, value, report));
    let sizes: Option<Vec<u8>> = sizes.into_iter().collect();
    sizes.and_then(|sizes| sizes.try_into().ok()).filter(|_| is_right)
}

fn size(
    table: &DeTable<'_>,
    name: &str,
    whole: &Spanned<DeValue<'_>>,
    report: &mut Report<'_>,
) -> Option<u8> {
    let Some(value) = table.get(name) else {
        report.add(&whole.span(), format!("`{name}` is missing: `quorums` {WANTED}"));
        return None;
    };
    match number(value.get_ref(), 1..=ACCEPTORS_MAX.into()) {
        Ok(size) => Some(size),
        Err(what) => {
            report.add(&value.span(), format!("`{name}` {what}"));
            None
        }
    }
}
