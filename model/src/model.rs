//! The states of a world, and how they follow from each other.
//!
//! A state of the world is a combination of few states of roles and few letters. Each of those is
//! kept once, and numbered, so a state is a handful of numbers; and since what a role does depends
//! on nothing but its own state and what happens to it, each such step is taken once, by the real
//! role, and then remembered.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use loggos_protocol::Chosen;
use stateright::{Model, Property};

use crate::actor::{Actor, Letter, LetterNo, Lost, Role, Stimulus};
use crate::bounds::PROPOSERS;
use crate::checks::{AGREEMENT, ASSERTIONS, Flaw, ONE_PROPOSAL, Said, TRUTH};
use crate::world::World;

/// What must hold in every state, and what must come up in some for the search to be worth it.
const PROPERTIES: [&str; 8] = [
    AGREEMENT,
    ONE_PROPOSAL,
    TRUTH,
    ASSERTIONS,
    "proposer 1 proposes what proposer 0 got chosen",
    "both proposers lead at once",
    "a larger ballot ends a campaign",
    "a larger ballot ends a reign",
];

/// All clusters that a world can get to.
#[derive(Debug)]
pub(crate) struct Clusters {
    pub(crate) world: World,
    tables: RwLock<Tables>,
    /// Which properties something was found for.
    found: [AtomicBool; PROPERTIES.len()],
}

/// A cluster, and all that was ever said in it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct State {
    actors: Box<[u32]>,
    /// In order of their numbers.
    letters: Box<[LetterNo]>,
    /// Whether proposer 1 has proposed what is chosen in an earlier ballot of proposer 0. Follows
    /// from the letters.
    has_recovered: bool,
    pub(crate) flaw: Option<Arc<Flaw>>,
}

/// Something happens to one of the roles.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Action {
    pub(crate) place: usize,
    pub(crate) stimulus: Stimulus,
    step: Arc<Step>,
}

/// What comes of it, wherever else the world is.
#[derive(Debug, Eq, PartialEq)]
struct Step {
    actor: u32,
    says: Vec<LetterNo>,
    says_chosen: Vec<Chosen>,
    broken: Option<String>,
}

/// Everything that has come up so far, each thing once.
#[derive(Debug, Default)]
struct Tables {
    actors: Numbered<Actor>,
    letters: Numbered<Letter>,
    /// To whom each letter is; `None` if it never arrives.
    places: Vec<Option<usize>>,
    /// For each actor, by what happens to it; `None` where nothing comes of that.
    steps: Vec<HashMap<Stimulus, Option<Arc<Step>>>>,
}

#[derive(Debug)]
struct Numbered<T> {
    all: Vec<Arc<T>>,
    numbers: HashMap<Arc<T>, usize>,
}

impl Clusters {
    /// Returns all clusters of `world`.
    pub(crate) fn new(world: World) -> Self {
        Self { world, tables: RwLock::default(), found: Default::default() }
    }

    /// The letter of that number.
    pub(crate) fn letter(&self, number: LetterNo) -> Arc<Letter> {
        Arc::clone(self.read().letters.at(number.into()))
    }

    /// What is said in `after` that was not in `before`.
    pub(crate) fn news(&self, before: &State, after: &State) -> Vec<Arc<Letter>> {
        let is_new = |number: &&LetterNo| before.letters.binary_search(number).is_err();
        after.letters.iter().filter(is_new).map(|number| self.letter(*number)).collect()
    }

    /// Whether `holds` is true, for the first time: the checker would keep the last path that it
    /// finds to a property, and the first is the shortest.
    fn is_first(&self, property: usize, holds: impl FnOnce() -> bool) -> bool {
        let found = &self.found[property];
        !found.load(Ordering::Relaxed) && holds() && !found.swap(true, Ordering::Relaxed)
    }

    fn keeps(&self, property: usize, state: &State) -> bool {
        let breaks = |flaw: &Arc<Flaw>| flaw.property == PROPERTIES[property];
        !self.is_first(property, || state.flaw.as_ref().is_some_and(breaks))
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a role take a step for the first time.
    fn learn(&self, actor: u32, stimulus: Stimulus) {
        let (before, letter) = {
            let tables = self.read();
            let letter = match stimulus {
                Stimulus::Letter(number) => Some(Arc::clone(tables.letters.at(number.into()))),
                Stimulus::Campaign | Stimulus::Command | Stimulus::Resend | Stimulus::Retry => None,
            };
            (Arc::clone(tables.actors.at(actor as usize)), letter)
        };
        let step = || before.step(stimulus, letter.as_deref());
        let taken = catch_unwind(AssertUnwindSafe(step));
        let mut tables = self.write();
        let step = match taken {
            Err(panic) => Some(Step {
                actor,
                says: Vec::new(),
                says_chosen: Vec::new(),
                broken: Some(message(panic.as_ref())),
            }),
            Ok(None) => None,
            Ok(Some(taken)) => {
                let mut says: Vec<LetterNo> = taken
                    .says
                    .into_iter()
                    .map(|letter| tables.number_letter(&self.world, letter))
                    .collect();
                says.sort_unstable();
                says.dedup();
                let (next, says_chosen) = (tables.number_actor(taken.actor), taken.says_chosen);
                Some(Step { actor: next, says, says_chosen, broken: None })
            }
        };
        tables.steps[actor as usize].insert(stimulus, step.map(Arc::new));
    }
}

impl Model for Clusters {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut tables = self.write();
        let actors = self.world.formed().into_iter().map(|a| tables.number_actor(a)).collect();
        let letters = Box::default();
        vec![State { actors, letters, has_recovered: false, flaw: None }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.flaw.is_some() {
            return;
        }
        loop {
            let unknown = self.read().actions(state, actions);
            if unknown.is_empty() {
                return;
            }
            actions.clear();
            for (actor, stimulus) in unknown {
                self.learn(actor, stimulus);
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let Action { place, step, .. } = action;
        let mut after = before.clone();
        after.actors[place] = step.actor;
        if let Some(what) = &step.broken {
            let flaw = Flaw { property: ASSERTIONS, what: what.clone() };
            after.flaw = Some(Arc::new(flaw));
            return Some(after);
        }
        let is_new = |number: &&LetterNo| before.letters.binary_search(number).is_err();
        let news: Vec<LetterNo> = step.says.iter().filter(is_new).copied().collect();
        if news.is_empty() && step.says_chosen.is_empty() {
            return Some(after);
        }
        let mut letters = [&before.letters, news.as_slice()].concat();
        letters.sort_unstable();
        after.letters = letters.into();
        let tables = self.read();
        let said = Said {
            quorums: self.world.cluster.quorums,
            letters: after.letters.iter().map(|n| tables.letters.at((*n).into())).collect(),
        };
        let mut flaws = news.iter().map(|n| said.flaw(tables.letters.at((*n).into())));
        let flaw = flaws.find_map(|flaw| flaw);
        let flaw = flaw.or_else(|| step.says_chosen.iter().find_map(|c| said.flaw_of_chosen(c)));
        after.flaw = flaw.map(Arc::new);
        after.has_recovered |=
            news.iter().any(|n| said.is_recovery(tables.letters.at((*n).into())));
        Some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let [agreement, one_proposal, truth, assertions, recovery, two_leaders, campaign, reign] =
            PROPERTIES;
        vec![
            Property::always(agreement, |model, state| model.keeps(0, state)),
            Property::always(one_proposal, |model, state| model.keeps(1, state)),
            Property::always(truth, |model, state| model.keeps(2, state)),
            Property::always(assertions, |model, state| model.keeps(3, state)),
            Property::sometimes(recovery, |model, state: &State| {
                model.is_first(4, || state.has_recovered)
            }),
            Property::sometimes(two_leaders, |model, state| {
                model.is_first(5, || {
                    let tables = model.read();
                    (0..PROPOSERS).all(|place| tables.is_leading(state, place))
                })
            }),
            Property::sometimes(campaign, |model, state| {
                model.is_first(6, || model.read().has_lost(state, Lost::Campaign))
            }),
            Property::sometimes(reign, |model, state| {
                model.is_first(7, || model.read().has_lost(state, Lost::Reign))
            }),
        ]
    }
}

impl Tables {
    /// Collects what can happen in `state` and changes it, and returns what is not known yet.
    fn actions(&self, state: &State, actions: &mut Vec<Action>) -> Vec<(u32, Stimulus)> {
        let mut unknown = Vec::new();
        let leading = [Stimulus::Campaign, Stimulus::Command, Stimulus::Resend];
        let proposers = (0..PROPOSERS).flat_map(|place| leading.map(|stimulus| (place, stimulus)));
        let others = (PROPOSERS..state.actors.len()).map(|place| (place, Stimulus::Retry));
        let letters = state.letters.iter().filter_map(|number| {
            Some((self.places[usize::from(*number)]?, Stimulus::Letter(*number)))
        });
        for (place, stimulus) in proposers.chain(others).chain(letters) {
            let actor = state.actors[place];
            match self.steps[actor as usize].get(&stimulus) {
                None => unknown.push((actor, stimulus)),
                Some(Some(step)) if step.changes(actor, state) => {
                    actions.push(Action { place, stimulus, step: Arc::clone(step) });
                }
                Some(_) => {}
            }
        }
        unknown
    }

    fn number_actor(&mut self, actor: Actor) -> u32 {
        let number = self.actors.number(actor);
        self.steps.resize_with(self.actors.all.len(), HashMap::default);
        u32::try_from(number).expect("fewer than 2^32 states of roles")
    }

    fn number_letter(&mut self, world: &World, letter: Letter) -> LetterNo {
        let place = world.place(&letter.to);
        let number = self.letters.number(letter);
        if number == self.places.len() {
            self.places.push(place);
        }
        LetterNo::try_from(number).expect("fewer than 2^16 letters")
    }

    fn is_leading(&self, state: &State, place: usize) -> bool {
        let actor = self.actors.at(state.actors[place] as usize);
        matches!(&actor.role, Role::Proposer(proposer) if proposer.is_leading())
    }

    fn has_lost(&self, state: &State, lost: Lost) -> bool {
        state.actors.iter().any(|actor| self.actors.at(*actor as usize).lost == Some(lost))
    }
}

impl Step {
    fn changes(&self, actor: u32, state: &State) -> bool {
        let is_new = |number: &LetterNo| state.letters.binary_search(number).is_err();
        self.broken.is_some() || self.actor != actor || self.says.iter().any(is_new)
    }
}

impl<T: Eq + Hash> Numbered<T> {
    fn at(&self, number: usize) -> &Arc<T> {
        &self.all[number]
    }

    fn number(&mut self, thing: T) -> usize {
        if let Some(number) = self.numbers.get(&thing) {
            return *number;
        }
        let (thing, number) = (Arc::new(thing), self.all.len());
        self.all.push(Arc::clone(&thing));
        self.numbers.insert(thing, number);
        number
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { all: Vec::new(), numbers: HashMap::new() }
    }
}

/// What a panic says.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a word".to_owned())
}
