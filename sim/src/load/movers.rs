//! Clients with sessions of their own, which go from one gateway to another: at any time, when they
//! get no answers, and when their gateway has ended.
//!
//! What they send is drawn and checked as that of the others. They give nothing up when they move:
//! each command is executed once, and in order, whatever copies of it are where (R23).

use std::time::Duration;

use loggos_protocol::{
    Caller, ClientId, ClientSession, Failure, GatewayId, Payload, Position, Rng, RunOwner,
    SessionId, Time,
};

use super::{Asking, Life, Load, NO_GATEWAY, Submitted};
use crate::sights::Sight;

/// What the first of them is called at gateways.
pub(super) const FIRST: u32 = 1 << 16;
/// What a wish for a session is called, where commands have their numbers.
const OPEN: u32 = u32::MAX;
/// One of so many turns of another gateway makes a mover go there.
const TURNS_A_MOVE: u64 = 400;
/// One of so many of its moves is the end of its life: another one knows of no session.
const MOVES_A_LIFE: u64 = 6;
/// One of so many commands waits at its gateway's node until its deadline has passed, and is
/// refused there.
const COMMANDS_A_REFUSAL: u64 = 50;
/// How long it waits for an answer until it moves.
const PATIENCE: Duration = Duration::from_secs(2);

/// One client.
#[derive(Debug)]
pub(super) struct Mover {
    session: ClientSession,
    life: Life,
    /// The gateway that it is at.
    at: Option<GatewayId>,
    /// The number of its ways so far.
    ways: u32,
    /// When it was last answered, or has moved.
    heard_at: Time,
    /// Whether it moves although it gets answers, and has several lives.
    is_restless: bool,
    /// Draws its keys.
    keys: Rng,
}

impl Mover {
    pub(super) fn new(life: Life, rng: &mut Rng) -> Self {
        let mut keys = Rng::new(rng.next_u64());
        Self {
            session: ClientSession::new(keys.next_u64()),
            life,
            at: None,
            ways: 0,
            heard_at: Time(0),
            is_restless: true,
            keys,
        }
    }

    /// Its gateway has ended.
    pub(super) fn leave(&mut self, gateway: GatewayId) {
        if self.at.take_if(|at| *at == gateway).is_some() {
            self.session.on_way_ended();
        }
    }

    /// From now on it moves only for want of answers.
    pub(super) fn settle_down(&mut self) {
        self.is_restless = false;
    }

    /// Draws whether it goes to another gateway, whose turn it is.
    fn draws_move(&self, now: Time, rng: &mut Rng) -> bool {
        self.at.is_none()
            || now.since(self.heard_at) > PATIENCE && rng.below(20) == 0
            || self.is_restless && rng.below(TURNS_A_MOVE) == 0
    }

    fn go_to(&mut self, gateway: GatewayId, now: Time) {
        self.session.on_way_ended();
        self.at = Some(gateway);
        self.ways += 1;
        self.heard_at = now;
    }

    fn caller(&self, index: u32, number: u32) -> Caller {
        let client = ClientId(FIRST + index);
        Caller { client, tag: u64::from(self.ways) << 32 | u64::from(number) }
    }
}

impl Load {
    /// Draws which movers go to `gateway`, and what those that are there submit now.
    pub(super) fn mover_submissions(
        &mut self,
        gateway: GatewayId,
        now: Time,
        rng: &mut Rng,
    ) -> Vec<Submitted> {
        let mut submissions = Vec::new();
        for index in 0..u32::try_from(self.movers.len()).unwrap_or(0) {
            let mover = &mut self.movers[index as usize];
            if mover.at != Some(gateway) && mover.draws_move(now, rng) {
                if !mover.session.is_idle() {
                    self.sights.insert(Sight::ClientMoved);
                }
                let ends = mover.is_restless && mover.at.is_some() && rng.below(MOVES_A_LIFE) == 0;
                mover.go_to(gateway, now);
                if ends {
                    self.start_mover(index, rng);
                }
            }
            if self.movers[index as usize].at == Some(gateway) {
                self.mover_turn(index, now, rng, &mut submissions);
            }
        }
        submissions
    }

    /// A mover starts over: what it had under way has an unknown outcome.
    fn start_mover(&mut self, index: u32, rng: &mut Rng) {
        let life = self.next_life();
        let client = self.clients.get_mut(&(NO_GATEWAY, ClientId(index))).expect("of this mover");
        let mover = &mut self.movers[index as usize];
        self.unknown += client.give_up(&mut self.history, mover.heard_at);
        let (at, ways, heard_at) = (mover.at, mover.ways, mover.heard_at);
        *mover = Mover { at, ways, heard_at, ..Mover::new(life, rng) };
    }

    /// Draws what a mover submits at its gateway.
    fn mover_turn(
        &mut self,
        index: u32,
        now: Time,
        rng: &mut Rng,
        submissions: &mut Vec<Submitted>,
    ) {
        let id = (NO_GATEWAY, ClientId(index));
        let mut told = Vec::new();
        let mover = &mut self.movers[index as usize];
        let key = mover.keys.next_u64();
        told.extend(std::iter::from_fn(|| mover.session.settle(key)));
        mover.session.validate();
        for (tag, why) in told {
            if why == Failure::OutcomeUnknown {
                self.sights.insert(Sight::ClientUnknown);
            }
            self.tell(id, tag, Err(why), now);
        }
        let plan = &self.plan;
        let (mover, client) = (&mut self.movers[index as usize], self.clients.get_mut(&id));
        let client = client.expect("of this mover");
        let is_eager = rng.below(100) < plan.eager_percent;
        let is_waiting = is_eager && client.left(plan) > 0;
        if let Some(owner) = mover.session.ask(is_waiting, now) {
            self.copies += 1;
            submissions.push((mover.caller(index, OPEN), owner, Vec::new()));
        }
        let window = plan.mover_window as usize;
        while let Some((owner, command)) = mover.session.next_again(window, now) {
            let (number, command) = (number_of(owner), command.as_slice().to_vec());
            self.copies += 1;
            submissions.push((mover.caller(index, number), owner, command));
        }
        let asking = &mut Asking {
            plan,
            history: &mut self.history,
            asked: &mut self.asked,
            not_before: self.last_position,
            now,
            rng,
        };
        while mover.session.has_room(window) {
            let given_back = mover.session.next_given_back();
            if given_back.is_some() {
                self.sights.insert(Sight::ClientGivenBack);
            }
            let (tag, command) = match given_back {
                Some((tag, command)) => (tag, command),
                None if is_eager && client.left(plan) > 0 => {
                    let (tag, command) = client.ask(id, &mut mover.life, asking);
                    (tag, Payload::copy(&command))
                }
                None => break,
            };
            let (owner, command) = mover.session.push(tag, command);
            let bytes = command.as_slice().to_vec();
            submissions.push((mover.caller(index, number_of(owner)), owner, bytes));
        }
        if mover.is_restless {
            let is_ours = |caller: &Caller| caller.client.0 == FIRST + index;
            submissions.retain(|(caller, owner, _)| {
                let is_refused = is_ours(caller) && asking.rng.below(COMMANDS_A_REFUSAL) == 0;
                if let (RunOwner::Client { first, .. }, true) = (owner, is_refused) {
                    let told = mover.session.on_failure(*first, Failure::Busy);
                    assert_eq!(told, None, "it may yet be sent again");
                }
                !is_refused || matches!(owner, RunOwner::NewClient { .. })
            });
        }
        mover.session.validate();
    }

    /// Takes in what a gateway tells a mover of the command that it calls `tag`.
    pub(super) fn on_reply_to_mover(
        &mut self,
        gateway: GatewayId,
        (index, tag): (u32, u64),
        reply: Result<(Position, &[u8]), Failure>,
        now: Time,
    ) {
        let mover = &mut self.movers[index as usize];
        let (way, number) = (tag >> 32, u32::try_from(tag & u64::from(u32::MAX)).unwrap_or(OPEN));
        if mover.at != Some(gateway) || way != u64::from(mover.ways) {
            return; // it is not there any more
        }
        if number == OPEN {
            match reply {
                Ok((_, name)) => {
                    mover.session.on_opened(SessionId::from_bytes(name).expect("a name"));
                }
                Err(_) => mover.session.on_not_opened(now),
            }
            return;
        }
        let told = match reply {
            Ok(reply) => {
                mover.heard_at = now;
                mover.session.on_reply(number.into()).map(|tag| (tag, Ok(reply)))
            }
            Err(why) => {
                if why == Failure::OutOfOrder {
                    self.sights.insert(Sight::ClientRefused);
                }
                if why == Failure::NoSession {
                    self.sights.insert(Sight::ClientSessionLost);
                }
                let told = mover.session.on_failure(number.into(), why);
                told.map(|(tag, why)| (tag, Err(why)))
            }
        };
        mover.session.validate();
        if let Some((tag, reply)) = told {
            self.tell((NO_GATEWAY, ClientId(index)), tag, reply, now);
        }
    }
}

fn number_of(owner: RunOwner) -> u32 {
    let RunOwner::Client { first, .. } = owner else { unreachable!("commands have names") };
    u32::try_from(first).expect("fewer commands than that")
}
