//! The clients: closed loops that know what they were told.

use std::collections::BTreeMap;

use loggos_protocol::{Caller, ClientId, Failure, GatewayId, Rng};

use crate::recorder::CommandId;
use crate::swarm::LoadPlan;

/// All clients of a run.
#[derive(Debug)]
pub(crate) struct Load {
    plan: LoadPlan,
    clients: BTreeMap<(GatewayId, ClientId), Client>,
    /// The life of each gateway, and the commands given to it.
    lives: BTreeMap<GatewayId, Life>,
    lives_count: u32,
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// The largest position among them.
    last_position: Option<u64>,
    pub(crate) unknown: u64,
    pub(crate) busy: u64,
}

/// A command whose reply came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) id: CommandId,
    /// The position that the reply named.
    pub(crate) position: u64,
    /// The largest position that had been acknowledged when it was submitted: it must come after.
    pub(crate) not_before: Option<u64>,
}

#[derive(Debug, Default)]
struct Client {
    done: u32,
    under_way: BTreeMap<u64, UnderWay>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    id: CommandId,
    not_before: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    life: u32,
    next_number: u32,
}

impl Load {
    pub(crate) fn new(plan: LoadPlan, gateways: u8) -> Self {
        let mut load = Self {
            clients: BTreeMap::new(),
            lives: BTreeMap::new(),
            lives_count: 0,
            acknowledged: Vec::new(),
            last_position: None,
            unknown: 0,
            busy: 0,
            plan,
        };
        for gateway in (0..gateways).map(GatewayId) {
            load.start_life(gateway);
            for client in (0..load.plan.clients_per_gateway).map(ClientId) {
                load.clients.insert((gateway, client), Client::default());
            }
        }
        load
    }

    /// A gateway has started over: what it had under way has an unknown outcome.
    pub(crate) fn start_life(&mut self, gateway: GatewayId) {
        self.lives.insert(gateway, Life { life: self.lives_count, next_number: 0 });
        self.lives_count += 1;
        for (_, client) in
            self.clients.range_mut((gateway, ClientId(0))..=(gateway, ClientId(u32::MAX)))
        {
            self.unknown += client.under_way.len() as u64;
            client.done += u32::try_from(client.under_way.len()).unwrap_or(0);
            client.under_way.clear();
        }
    }

    /// Draws the commands that the clients of `gateway` submit now.
    pub(crate) fn submissions(
        &mut self,
        gateway: GatewayId,
        rng: &mut Rng,
    ) -> Vec<(Caller, Vec<u8>)> {
        let mut submissions = Vec::new();
        let not_before = self.last_position;
        let Some(life) = self.lives.get_mut(&gateway) else { return submissions };
        for ((_, id), client) in
            self.clients.range_mut((gateway, ClientId(0))..=(gateway, ClientId(u32::MAX)))
        {
            if rng.below(100) >= self.plan.eager_percent {
                continue;
            }
            let under_way = u32::try_from(client.under_way.len()).unwrap_or(u32::MAX);
            let left = self.plan.commands_per_client.saturating_sub(client.done + under_way);
            for _ in 0..left.min(self.plan.pipeline - under_way) {
                let command_id = CommandId { life: life.life, number: life.next_number };
                life.next_number += 1;
                let tag = u64::from(command_id.life) << 32 | u64::from(command_id.number);
                client.under_way.insert(tag, UnderWay { id: command_id, not_before });
                let mut command = Vec::with_capacity(CommandId::BYTES);
                command_id.encode(&mut command);
                let padding = rng.below(self.plan.command_bytes_max) + rng.below(self.plan.keys);
                command.resize(command.len() + usize::try_from(padding).unwrap_or(0), 7);
                submissions.push((Caller { client: *id, tag }, command));
            }
        }
        submissions
    }

    /// Takes a reply in.
    pub(crate) fn on_reply(
        &mut self,
        gateway: GatewayId,
        caller: Caller,
        reply: Result<&[u8], Failure>,
    ) {
        let client = self.clients.get_mut(&(gateway, caller.client)).expect("a client of ours");
        let under_way = client.under_way.remove(&caller.tag);
        let under_way = under_way.unwrap_or_else(|| panic!("{caller:?} was answered twice"));
        match reply {
            Ok(reply) => {
                let position = u64::from_le_bytes(reply.try_into().expect("a position"));
                let UnderWay { id, not_before } = under_way;
                self.last_position = self.last_position.max(Some(position));
                self.acknowledged.push(Acknowledged { id, position, not_before });
                client.done += 1;
            }
            Err(Failure::Busy) => self.busy += 1, // never sent on: it will be drawn anew
            Err(Failure::OutcomeUnknown | Failure::DeadlineExceeded) => {
                self.unknown += 1;
                client.done += 1;
            }
            Err(Failure::TooLarge) => panic!("{caller:?} was within the limit"),
        }
    }

    /// Whether every client has got all its answers.
    pub(crate) fn is_done(&self) -> bool {
        self.clients.values().all(|client| {
            client.under_way.is_empty() && client.done >= self.plan.commands_per_client
        })
    }

    /// Who waits for what, for a person.
    pub(crate) fn waiting(&self) -> String {
        let waiting = self.clients.iter().filter(|(_, client)| {
            !client.under_way.is_empty() || client.done < self.plan.commands_per_client
        });
        let lines = waiting.map(|((gateway, id), client)| {
            let (done, under_way) = (client.done, client.under_way.values());
            let ids: Vec<_> = under_way.map(|u| (u.id.life, u.id.number)).collect();
            format!("gateway {} client {}: {done} done, waits for {ids:?}", gateway.0, id.0)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
