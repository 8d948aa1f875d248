//! The memory that the clients of a core may take, and each client's share of it.
//!
//! ```text
//!   command read ──▶ expected: its bytes, and those of the longest answer of late
//!                       │ answered
//!                       ▼
//!                    unsent: the bytes that the kernel has not taken yet ──sent──▶ free
//!
//!   │ expected and unsent, of all clients   │ free                                   │
//!   0                                       │    a client may hold an eighth of it   BYTES_MAX
//! ```
//!
//! A client that holds its share is read no further until some of it is free again, and so no
//! client is cut off for answers that we make faster than it reads. As its share is a part of what
//! is free, clients that read nothing leave some to others: after twenty of them a tenth is free. A
//! client that holds nothing may always have one command under way. The kernel breaks a connection
//! whose other end has no room for UNACKNOWLEDGED_MAX.
//!
//! How long an answer will be shows when it is there. A client is expected to go on as it did: its
//! longest answers count for some hundreds of commands. One whose answers become long all at once
//! can exceed its share, by those to commands that it has under way already: [`COMMANDS_MAX`] at
//! the most. Where clients that do so would hold more than [`BYTES_END`], those with more answers
//! to be sent than others are closed: so much, and an answer each, is what all of them ever hold.
//!
//! source: R29, R35

/// Bytes that all clients of a core may hold.
pub(super) const BYTES_MAX: usize = 64 << 20;
/// Bytes with which clients are closed.
const BYTES_END: usize = BYTES_MAX + BYTES_MAX / 4;
/// The part of what is free that one client may hold: one of so many.
const SHARE: usize = 8;
/// The least that a command counts for.
const ANSWER_BYTES_MIN: usize = 4 << 10;
/// The length that a client's first answers are expected to have.
const ANSWER_BYTES_FIRST: usize = 16 << 10;
/// By one part of so many a shorter answer lowers what is expected of the next.
const FORGOTTEN: usize = 256;
/// The most commands that one client has under way: those that fit its share when it is alone.
pub(super) const COMMANDS_MAX: usize = BYTES_MAX / (1 + SHARE) / ANSWER_BYTES_MIN;

/// What the clients of a core hold.
#[derive(Debug, Default)]
pub(super) struct Budget {
    held_bytes: usize,
}

/// What one client holds of it.
#[derive(Debug)]
pub(super) struct Account {
    /// For commands without an answer.
    expected_bytes: usize,
    /// Of answers that the kernel has not taken.
    unsent_bytes: usize,
    /// The length that the next answer is expected to have.
    answer_bytes: usize,
    /// Whether the client is read no further, because it held its share.
    pub(super) is_held: bool,
}

/// What a command counts for until it is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Charge(u32);

impl Default for Account {
    fn default() -> Self {
        let answer_bytes = ANSWER_BYTES_FIRST;
        Self { expected_bytes: 0, unsent_bytes: 0, answer_bytes, is_held: false }
    }
}

impl Account {
    fn held_bytes(&self) -> usize {
        self.expected_bytes + self.unsent_bytes
    }

    /// Learns from the length of an answer.
    pub(super) fn expect(&mut self, answer_bytes: usize) {
        let lower = self.answer_bytes - self.answer_bytes / FORGOTTEN;
        self.answer_bytes = lower.max(answer_bytes).max(ANSWER_BYTES_MIN);
    }
}

impl Budget {
    /// Whether a client may have one more command under way.
    pub(super) fn has_room(&self, account: &Account) -> bool {
        let free = BYTES_MAX.saturating_sub(self.held_bytes);
        account.held_bytes() == 0 || account.held_bytes() < free / SHARE
    }

    /// Whether a client must be closed, of so many: together they hold more than a core has for
    /// them, and it has more than one answer, and more than its part, to be sent.
    pub(super) fn is_beyond(&self, account: &Account, clients: usize) -> bool {
        let part = (BYTES_END / clients.max(1)).max(account.answer_bytes);
        self.held_bytes > BYTES_END && account.unsent_bytes > part
    }

    /// Takes in a command of `command_bytes`.
    pub(super) fn charge(&mut self, account: &mut Account, command_bytes: usize) -> Charge {
        let charge = u32::try_from(command_bytes + account.answer_bytes).unwrap_or(u32::MAX);
        account.expected_bytes += charge as usize;
        self.held_bytes += charge as usize;
        Charge(charge)
    }

    /// A command is answered, or its client has gone: then there is no account.
    pub(super) fn refund(&mut self, account: Option<&mut Account>, Charge(charge): Charge) {
        if let Some(account) = account {
            account.expected_bytes -= charge as usize;
        }
        self.held_bytes -= charge as usize;
    }

    /// So many more bytes of a client's answers are unsent.
    pub(super) fn add_unsent(&mut self, account: &mut Account, bytes: usize) {
        account.unsent_bytes += bytes;
        self.held_bytes += bytes;
    }

    /// The kernel has taken some, and so many bytes are left.
    pub(super) fn set_unsent(&mut self, account: &mut Account, unsent_bytes: usize) {
        self.held_bytes = self.held_bytes - account.unsent_bytes + unsent_bytes;
        account.unsent_bytes = unsent_bytes;
    }

    /// A client has gone. Its commands under way are refunded one by one.
    pub(super) fn close(&mut self, account: &Account) {
        self.held_bytes -= account.unsent_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads commands as long as there is room; returns what they count for.
    fn read_all(budget: &mut Budget, account: &mut Account) -> Vec<Charge> {
        let mut charges = Vec::new();
        while budget.has_room(account) {
            charges.push(budget.charge(account, 100));
        }
        charges
    }

    /// Answers a command, with so many bytes that stay unsent.
    fn answer(budget: &mut Budget, account: &mut Account, charge: Charge, bytes: usize) {
        budget.refund(Some(account), charge);
        account.expect(bytes);
        budget.add_unsent(account, bytes);
    }

    #[test]
    fn r35_clients_that_read_nothing_hold_no_more_than_they_may_and_leave_some_to_others() {
        let mut budget = Budget::default();
        let mut deaf: Vec<Account> = std::iter::repeat_with(Account::default).take(20).collect();
        for round in 0..2000 {
            for account in &mut deaf {
                for charge in read_all(&mut budget, account) {
                    answer(&mut budget, account, charge, 10_000);
                }
            }
            assert!(budget.held_bytes <= BYTES_MAX, "round {round}: {}", budget.held_bytes);
        }
        let most = deaf.iter().map(Account::held_bytes).max().unwrap();
        assert!(most <= BYTES_MAX / 9 + 20_000, "{most} bytes of one");
        let mut other = Account::default();
        let charges = read_all(&mut budget, &mut other);
        assert!(charges.len() > 25, "{} commands of another have room", charges.len());
        deaf.iter().for_each(|account| budget.close(account));
        charges.into_iter().for_each(|charge| budget.refund(None, charge));
        assert_eq!(budget.held_bytes, 0, "all have gone");
    }

    #[test]
    fn r35_answers_that_become_long_all_at_once_close_those_that_have_the_most() {
        let mut budget = Budget::default();
        let mut clients: Vec<_> = (0..40).map(|_| Some(Account::default())).collect();
        let mut under_way = Vec::new();
        for (client, account) in clients.iter_mut().flatten().enumerate() {
            for _ in 0..1000 {
                let charge = budget.charge(account, 100);
                answer(&mut budget, account, charge, 10);
                budget.set_unsent(account, 0);
            }
            under_way.extend(read_all(&mut budget, account).into_iter().map(|it| (client, it)));
        }
        let mut closed = 0;
        for (client, charge) in under_way {
            let Some(account) = &mut clients[client] else {
                budget.refund(None, charge);
                continue;
            };
            answer(&mut budget, account, charge, 64 << 10);
            if budget.is_beyond(account, 40) {
                budget.close(account);
                clients[client] = None;
                closed += 1;
            }
            assert!(budget.held_bytes <= BYTES_END + BYTES_MAX, "{}", budget.held_bytes);
        }
        assert!(closed > 0, "they hold {}", budget.held_bytes);
        let mut one = Account::default();
        let charge = budget.charge(&mut one, 100);
        answer(&mut budget, &mut one, charge, BYTES_END);
        assert!(!budget.is_beyond(&one, 40), "it has one answer to be sent");
    }

    #[test]
    fn a_client_that_holds_nothing_may_have_a_command_under_way() {
        let mut budget = Budget::default();
        let mut hog = Account::default();
        budget.add_unsent(&mut hog, 2 * BYTES_MAX);
        assert!(!budget.has_room(&hog));
        let mut other = Account::default();
        assert_eq!(read_all(&mut budget, &mut other).len(), 1);
    }

    #[test]
    fn as_many_short_commands_are_under_way_as_one_client_may_have() {
        let (mut budget, mut account) = (Budget::default(), Account::default());
        for _ in 0..1000 {
            let charge = budget.charge(&mut account, 100);
            answer(&mut budget, &mut account, charge, 10);
            budget.set_unsent(&mut account, 0);
        }
        let most = COMMANDS_MAX;
        let under_way = read_all(&mut budget, &mut account).len();
        assert!((most * 9 / 10..=most).contains(&under_way), "{under_way} of {most}");
    }

    #[test]
    fn long_answers_are_expected_again_until_they_are_long_ago() {
        let (mut budget, mut account) = (Budget::default(), Account::default());
        let mut charge_after = |answer_bytes| {
            account.expect(answer_bytes);
            budget.charge(&mut account, 0)
        };
        assert_eq!(charge_after(1 << 20), Charge(1 << 20));
        let charges: Vec<Charge> = (0..2000).map(|_| charge_after(10)).collect();
        assert!(charges.is_sorted_by_key(|Charge(bytes)| std::cmp::Reverse(*bytes)));
        assert!(charges[200].0 > 400 << 10, "{:?} after two hundred", charges[200]);
        assert_eq!(charges[1999].0 as usize, ANSWER_BYTES_MIN);
    }
}
