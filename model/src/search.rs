//! The search itself, and what it finds.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::ladder::{Ladder, ladder};
use crate::model::Clusters;
use crate::world::World;

/// How far to search, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Look at no state that is more steps away; `None` looks at all.
    pub steps: Option<usize>,
    /// With one, the paths found are shortest ones.
    pub threads: usize,
}

/// What a search found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Findings {
    /// For each property, in order.
    pub properties: Vec<Finding>,
    /// States that came up, each counted once.
    pub states: usize,
    /// How many steps away the furthest is that was looked at: at most, where there are several
    /// threads.
    pub steps: usize,
    /// Whether every state of the world was looked at.
    pub is_complete: bool,
    /// How long it took.
    pub took: Duration,
}

/// What a search found out about one property.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What must hold in every state, or else must come up in one.
    pub property: &'static str,
    /// Which of the two.
    pub is_rule: bool,
    /// Where it is broken, or comes up.
    pub path: Option<Ladder>,
}

impl Findings {
    /// Whether some rule is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.properties.iter().any(|finding| finding.is_rule && finding.path.is_some())
    }
}

/// Searches through `world`, breadth first, until a rule is broken or there is nothing more to look
/// at.
#[must_use]
pub fn search(world: World, limits: Limits) -> Findings {
    let started = Instant::now();
    let builder = Clusters::new(world).checker().threads(limits.threads);
    let builder = builder.finish_when(HasDiscoveries::AnyFailures);
    let builder = match limits.steps {
        // The checker counts states rather than steps, and looks at none of those at its limit.
        Some(steps) => builder.target_max_depth(steps + 2),
        None => builder,
    };
    let checker = builder.spawn_bfs().join();
    let mut paths = checker.discoveries();
    let properties: Vec<Finding> = checker
        .model()
        .properties()
        .into_iter()
        .map(|property| Finding {
            property: property.name,
            is_rule: property.expectation.discovery_is_failure(),
            path: paths.remove(property.name).map(|path| ladder(checker.model(), path)),
        })
        .collect();
    let deepest = checker.max_depth() - 1;
    let mut findings = Findings {
        properties,
        states: checker.unique_state_count(),
        steps: limits.steps.map_or(deepest, |steps| steps.min(deepest)),
        is_complete: limits.steps.is_none_or(|steps| deepest < steps),
        took: started.elapsed(),
    };
    findings.is_complete &= !findings.is_broken();
    findings
}
