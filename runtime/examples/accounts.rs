//! A state machine of one's own: accounts, and transfers between them, in a cluster in this
//! process.
//!
//! `cargo run --release --example accounts`, and `cargo test --example accounts` for what every
//! such machine should be tested with.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::collections::BTreeMap;
use std::error::Error;

use loggos::{At, Client, Config, LocalCluster, MalformedSnapshot, Reply, StateMachine};

/// The balance of each account that has ever had one.
#[derive(Default)]
struct Accounts {
    balances: BTreeMap<u32, u64>,
    /// The balances as they were when frozen, and how many of them are written.
    frozen: Option<(Vec<(u32, u64)>, usize)>,
}

/// What can be done with accounts; as bytes, amount and account numbers, little-endian.
#[derive(Clone, Copy, Debug)]
enum Command {
    Deposit { to: u32, amount: u64 },
    Transfer { from: u32, to: u32, amount: u64 },
}

impl Command {
    fn encode(self) -> Vec<u8> {
        match self {
            Self::Deposit { to, amount } => [&amount.to_le_bytes()[..], &to.to_le_bytes()].concat(),
            Self::Transfer { from, to, amount } => {
                [&amount.to_le_bytes()[..], &to.to_le_bytes(), &from.to_le_bytes()].concat()
            }
        }
    }

    /// Commands come from clients: anything may be in them.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (amount, rest) = bytes.split_first_chunk()?;
        let (to, rest) = rest.split_first_chunk()?;
        let (amount, to) = (u64::from_le_bytes(*amount), u32::from_le_bytes(*to));
        match rest.split_first_chunk() {
            Some((from, [])) => {
                Some(Self::Transfer { from: u32::from_le_bytes(*from), to, amount })
            }
            None if rest.is_empty() => Some(Self::Deposit { to, amount }),
            _ => None,
        }
    }
}

impl Accounts {
    /// Returns the new balance of the account that the money came to; `None` if nothing was done.
    fn execute(&mut self, command: &[u8]) -> Option<u64> {
        let (to, amount) = match Command::decode(command)? {
            Command::Deposit { to, amount } => (to, amount),
            Command::Transfer { from, to, amount } => {
                let balance = self.balances.get_mut(&from)?;
                *balance = balance.checked_sub(amount)?;
                (to, amount)
            }
        };
        let balance = self.balances.entry(to).or_default();
        *balance = balance.saturating_add(amount);
        Some(*balance)
    }
}

impl StateMachine for Accounts {
    fn apply(&mut self, _: At, command: &[u8], reply: &mut Reply<'_>) {
        if let Some(balance) = self.execute(command) {
            reply.put(&balance.to_le_bytes());
        }
    }

    /// A sum over all accounts: of as many as these it is cheap enough. A larger machine keeps it
    /// up with every command.
    fn state_hash(&self) -> u64 {
        let mixed = self.balances.iter().map(|(account, balance)| {
            let word = u64::from(*account).rotate_left(40) ^ balance;
            word.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        mixed.fold(0, |sum, word| sum.rotate_left(5).wrapping_add(word))
    }

    /// A copy, since the state is small. Of a large one, what a command is about to change is set
    /// aside instead.
    fn freeze(&mut self) -> bool {
        self.frozen = Some((self.balances.clone().into_iter().collect(), 0));
        true
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        let Some((balances, written)) = &mut self.frozen else { return false };
        let end = balances.len().min(*written + bytes_max.div_ceil(12));
        for (account, balance) in &balances[*written..end] {
            part.extend(account.to_le_bytes());
            part.extend(balance.to_le_bytes());
        }
        *written = end;
        let is_more = end < balances.len();
        self.frozen.take_if(|_| !is_more);
        is_more
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        let mut rest = part;
        while let Some((account, balance)) = rest.split_first_chunk() {
            let (balance, after) = balance.split_first_chunk().ok_or(MalformedSnapshot)?;
            self.balances.insert(u32::from_le_bytes(*account), u64::from_le_bytes(*balance));
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(MalformedSnapshot) }
    }
}

/// Executes a command on all replicas; returns the balance that it answers with.
fn execute(client: &Client, command: Command) -> Result<Option<u64>, Box<dyn Error>> {
    let executed = client.execute_blocking(&command.encode())?;
    Ok(executed.reply.as_slice().try_into().ok().map(u64::from_le_bytes))
}

fn main() -> Result<(), Box<dyn Error>> {
    let cluster = LocalCluster::start(&Config::standard(), |_| Accounts::default())?;
    let client = cluster.client();
    for command in [
        Command::Deposit { to: 1, amount: 100 },
        Command::Transfer { from: 1, to: 2, amount: 30 },
        Command::Transfer { from: 2, to: 3, amount: 31 },
    ] {
        match execute(&client, command)? {
            Some(balance) => println!("{command:?}: the account has {balance} now"),
            None => println!("{command:?}: refused"),
        }
    }
    Ok(cluster.stop()?)
}

#[cfg(test)]
mod tests {
    use loggos::conformance::{Conformance, Rng};

    use super::*;

    #[test]
    fn replicas_stay_equal_and_are_restored_from_snapshots() {
        let draw = |rng: &mut Rng| {
            let account = |rng: &mut Rng| u32::try_from(rng.below(20)).unwrap_or(0);
            let (from, to, amount) = (account(rng), account(rng), rng.below(1000));
            let mut command = match rng.below(2) {
                0 => Command::Deposit { to, amount },
                _ => Command::Transfer { from, to, amount },
            }
            .encode();
            if rng.below(20) == 0 {
                command.pop(); // clients send what they will
            }
            command
        };
        let conforms = Conformance::default().check(Accounts::default, draw);
        let conforms = conforms.unwrap_or_else(|violation| panic!("{violation}"));
        assert!(conforms.snapshots > 0, "{conforms:?}");
    }
}
