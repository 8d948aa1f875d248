//! The configuration that names everything.

use std::fmt::Write;

use loggos_protocol::Settings;

use super::keys::{Draft, KEYS, Kind, PLACEMENT, SECTIONS};
use super::{Config, standard_grid};

const HEAD: &str = "\
# The configuration of a Loggos cluster in one process. Every section and key may be left out: what is
# written here is used then, and where f is another, what is said to follow from it.
";

pub(super) fn example() -> String {
    let settings = Settings::new(1, standard_grid());
    let cluster = settings.clone().check().expect("the defaults make a cluster");
    let mut draft = Draft::new(settings);
    let mut text = HEAD.to_owned();
    for section in &SECTIONS {
        line(&mut text, format_args!("\n# {}\n[{}]", section.what, section.name));
        for key in KEYS.iter().filter(|key| key.section == section.name) {
            line(&mut text, format_args!("# {}", key.what));
            match (&key.kind, key.shown(&mut draft)) {
                (Kind::Own(own), _) => line(&mut text, format_args!("{own}")),
                (_, shown) => {
                    let shown = shown.unwrap_or_default();
                    line(&mut text, format_args!("{} = {shown}", key.name));
                }
            }
        }
        if section.name == PLACEMENT {
            for (role, core) in Config::on_cpus(cluster.clone(), vec![0, 1]).placement {
                line(&mut text, format_args!("# \"{role}\" = {core}"));
            }
        }
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes whatever is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_the_default() {
        assert_eq!(Config::from_toml(&example()), Ok(Config::standard()), "{}", example());
    }

    #[test]
    fn the_example_has_every_key() {
        let example = example();
        for key in &KEYS {
            let is_there = |line: &str| {
                let line = line.strip_prefix("# ").unwrap_or(line);
                line.split_once(" = ").is_some_and(|(name, _)| name == key.name)
            };
            assert!(example.lines().any(is_there), "{} is not in\n{example}", key.name);
        }
        for section in &SECTIONS {
            assert!(example.contains(&format!("\n[{}]\n", section.name)), "{}", section.name);
        }
    }

    /// What the example has as comments holds too.
    #[test]
    fn the_examples_placement_is_the_default_on_two_cores() {
        let example = example();
        let (_, placement) = example.split_once("[placement]\n").unwrap();
        let text = format!("[placement]\n{}", placement.replace("# \"", "\""));
        let config = crate::config::read::read(&text, &[0, 1]).unwrap();
        assert_eq!(config.placement, Config::on_cpus(config.cluster, vec![0, 1]).placement);
        assert_eq!(placement.lines().count(), 12);
    }
}
