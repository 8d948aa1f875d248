//! `cpus` and `idle`: what roles run on.

use toml::Spanned;
use toml::de::DeValue;

use super::CPUS_MAX;
use super::error::{Report, instead};
use super::given::Given;
use super::value::{number, shown};

/// The values of `idle`.
#[derive(Clone, Copy, Debug)]
pub(super) enum IdleKind {
    Adaptive,
    Poll,
    Park,
}

/// Reads `cpus`, by default all that are `usable`.
///
/// Mistaken ones are in the result all the same, so that their number is as meant.
pub(super) fn read_cpus(
    given: &Given<'_>,
    usable: &[usize],
    report: &mut Report<'_>,
) -> Option<Vec<usize>> {
    let Some(entry) = given.entry("cpus") else { return Some(usable.to_vec()) };
    read_cpu_list(entry.value, Some(usable), report)
}

/// Reads an array of processor cores; each must be `usable`, where it is known which are.
///
/// Mistaken ones are in the result all the same, so that their number is as meant.
pub(super) fn read_cpu_list(
    value: &Spanned<DeValue<'_>>,
    usable: Option<&[usize]>,
    report: &mut Report<'_>,
) -> Option<Vec<usize>> {
    let Some(array) = value.get_ref().as_array().filter(|array| !array.is_empty()) else {
        let what = format!(
            "`cpus` must be an array of at least one processor core, such as [0, 1], not {}",
            match value.get_ref().as_array() {
                Some(_) => "an empty one".to_owned(),
                None => shown(value.get_ref()),
            }
        );
        report.add(&value.span(), what);
        return None;
    };
    let mut cpus = Vec::new();
    for (index, item) in array.iter().enumerate() {
        if index == CPUS_MAX {
            report.add(
                &item.span(),
                format!("more than {CPUS_MAX} cpus: a process has at most as many"),
            );
        }
        let read = read_cpu(item, &cpus, usable);
        if let Err(what) = &read {
            report.add(&item.span(), what.clone());
        }
        cpus.push(read.unwrap_or(usize::MAX));
    }
    Some(cpus)
}

fn read_cpu(
    item: &Spanned<DeValue<'_>>,
    so_far: &[usize],
    usable: Option<&[usize]>,
) -> Result<usize, String> {
    let most = u32::try_from(rustix::thread::CpuSet::MAX_CPU - 1).unwrap_or(u32::MAX);
    let cpu = number::<u32>(item.get_ref(), 0..=most).map_err(|what| format!("a cpu {what}"))?;
    let cpu = cpu as usize;
    if so_far.contains(&cpu) {
        return Err(format!("cpu {cpu} is listed twice: each can be used once"));
    }
    if let Some(usable) = usable.filter(|usable| !usable.contains(&cpu)) {
        let usable = shown_cpus(usable);
        return Err(format!(
            "cpu {cpu} is not there, or not for this process: it may use {usable}"
        ));
    }
    Ok(cpu)
}

/// Reads `idle`.
pub(super) fn read_idle(given: &Given<'_>, report: &mut Report<'_>) -> IdleKind {
    let Some(entry) = given.entry("idle") else { return IdleKind::Adaptive };
    match entry.value.get_ref().as_str() {
        Some("adaptive") => IdleKind::Adaptive,
        Some("poll") => IdleKind::Poll,
        Some("park") => IdleKind::Park,
        Some(_) | None => {
            let hint = entry.value.get_ref().as_str().map_or_else(String::new, |word| {
                format!("; {}", instead(word, ["adaptive", "poll", "park"]))
            });
            let what = format!(
                "must be \"adaptive\", \"poll\" or \"park\", not {}{hint}",
                shown(entry.value.get_ref())
            );
            report.add_mistaken("idle", &entry.value.span(), &what);
            IdleKind::Adaptive
        }
    }
}

/// Writes sorted cores with ranges, such as `0-3, 8`.
fn shown_cpus(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            Some(_) | None => ranges.push((*cpu, *cpu)),
        }
    }
    let shown = ranges.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        2.. => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shown_as_ranges() {
        assert_eq!(shown_cpus(&[0, 1, 2, 3, 8, 10, 11]), "0-3, 8, 10, 11");
    }
}
