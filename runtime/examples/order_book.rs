//! A limit order book with price-time priority, replicated in this process, and how long an order
//! takes.
//!
//! `cargo run --release --example order_book`, and `cargo test --example order_book` for what every
//! state machine should be tested with.
//!
//! ```text
//!   command   limit    0 │ side u8 │ price u64 │ quantity u64
//!             cancel   1 │ order: slot u64, index u32
//!   reply     order: slot u64, index u32 │ quantity left u64 │ (order, price u64, quantity u64)*
//!                                           what it was filled with, the best price first
//!             nothing where a command means nothing, or there is no such order
//! ```
//!
//! An order is named by its place in the log: every replica gives it the same name, and the log has
//! one for everybody.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::time::{Duration, Instant};

use loggos::{At, Config, LocalCluster, MalformedSnapshot, Position, Reply, Slot, StateMachine};

/// The bytes of an order in a snapshot.
const ORDER_BYTES: usize = 1 + 8 + 12 + 8;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Bid,
    Ask,
}

/// An order that rests in the book.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Order {
    name: Position,
    quantity: u64,
}

/// All orders that rest, by side and price; those of one price in the order of their arrival.
#[derive(Default)]
struct Book {
    bids: BTreeMap<u64, VecDeque<Order>>,
    asks: BTreeMap<u64, VecDeque<Order>>,
    /// The side and price of each of them.
    places: BTreeMap<Position, (Side, u64)>,
    /// A digest of them, kept up with each change.
    hash: u64,
    /// The orders as they were when frozen, as bytes, and how many of these are written.
    frozen: Option<(Vec<u8>, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Limit { side: Side, price: u64, quantity: u64 },
    Cancel { order: Position },
}

impl Command {
    fn encode(self) -> Vec<u8> {
        match self {
            Self::Limit { side, price, quantity } => {
                let tags = [0, u8::from(side == Side::Ask)];
                [&tags[..], &price.to_le_bytes(), &quantity.to_le_bytes()].concat()
            }
            Self::Cancel { order } => [&[1][..], &encode_name(order)].concat(),
        }
    }

    /// Commands come from clients: anything may be in them.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, mut rest) = bytes.split_first()?;
        let command = match tag {
            0 => {
                let [side] = take(&mut rest)?;
                let (price, quantity) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
                let side = match side {
                    0 => Side::Bid,
                    1 => Side::Ask,
                    _ => return None,
                };
                Self::Limit { side, price, quantity }
            }
            1 => Self::Cancel { order: take_name(&mut rest)? },
            _ => return None,
        };
        rest.is_empty().then_some(command)
    }
}

impl Book {
    /// Fills what it can of an order from the other side; the rest of it rests.
    fn limit(&mut self, side: Side, price: u64, order: Order, reply: &mut Vec<u8>) {
        let mut left = order.quantity;
        while left > 0
            && let Some((best, maker)) = self.best(side.other())
            && side.would_trade(price, best)
        {
            let filled = left.min(maker.quantity);
            left -= filled;
            reply.extend(encode_name(maker.name));
            reply.extend(best.to_le_bytes());
            reply.extend(filled.to_le_bytes());
            self.remove(maker.name);
            if filled < maker.quantity {
                let rest = Order { quantity: maker.quantity - filled, ..maker };
                self.insert(side.other(), best, rest, true);
            }
        }
        if left > 0 {
            self.insert(side, price, Order { quantity: left, ..order }, false);
        }
        reply.splice(0..0, [&encode_name(order.name)[..], &left.to_le_bytes()].concat());
    }

    /// Returns the order of a side that trades first, and its price.
    fn best(&self, side: Side) -> Option<(u64, Order)> {
        let (price, orders) = match side {
            Side::Bid => self.bids.last_key_value()?,
            Side::Ask => self.asks.first_key_value()?,
        };
        Some((*price, *orders.front()?))
    }

    fn insert(&mut self, side: Side, price: u64, order: Order, is_first: bool) {
        let orders = self.side_mut(side).entry(price).or_default();
        if is_first {
            orders.push_front(order);
        } else {
            orders.push_back(order);
        }
        self.places.insert(order.name, (side, price));
        self.hash ^= digest(side, price, order);
    }

    fn remove(&mut self, name: Position) -> Option<Order> {
        let (side, price) = self.places.remove(&name)?;
        let orders = self.side_mut(side).get_mut(&price)?;
        let place = orders.iter().position(|order| order.name == name)?;
        let order = orders.remove(place)?;
        if orders.is_empty() {
            self.side_mut(side).remove(&price);
        }
        self.hash ^= digest(side, price, order);
        Some(order)
    }

    fn side_mut(&mut self, side: Side) -> &mut BTreeMap<u64, VecDeque<Order>> {
        match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        }
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Bid => Self::Ask,
            Self::Ask => Self::Bid,
        }
    }

    /// Whether an order of this side at `price` trades with one of the other side at `best`.
    fn would_trade(self, price: u64, best: u64) -> bool {
        match self {
            Self::Bid => best <= price,
            Self::Ask => best >= price,
        }
    }
}

impl StateMachine for Book {
    fn apply(&mut self, at: At, command: &[u8], reply: &mut Reply<'_>) {
        let mut answer = Vec::new();
        match Command::decode(command) {
            Some(Command::Limit { side, price, quantity }) => {
                let order = Order { name: at.position(), quantity };
                self.limit(side, price, order, &mut answer);
            }
            Some(Command::Cancel { order }) => {
                if let Some(Order { name, quantity }) = self.remove(order) {
                    answer.extend(encode_name(name));
                    answer.extend(quantity.to_le_bytes());
                }
            }
            None => {}
        }
        reply.put(&answer);
    }

    fn state_hash(&self) -> u64 {
        self.hash
    }

    /// A copy: tens of thousands of orders are copied in less time than a large batch takes. A
    /// larger book would set aside what a command is about to change instead.
    fn freeze(&mut self) -> bool {
        let mut bytes = Vec::with_capacity(self.places.len() * ORDER_BYTES);
        for (side, book) in [(Side::Bid, &self.bids), (Side::Ask, &self.asks)] {
            for (price, orders) in book {
                for order in orders {
                    bytes.push(u8::from(side == Side::Ask));
                    bytes.extend(price.to_le_bytes());
                    bytes.extend(encode_name(order.name));
                    bytes.extend(order.quantity.to_le_bytes());
                }
            }
        }
        self.frozen = Some((bytes, 0));
        true
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        let Some((bytes, written)) = &mut self.frozen else { return false };
        let orders = bytes_max.div_ceil(ORDER_BYTES);
        let end = bytes.len().min(*written + orders * ORDER_BYTES);
        part.extend(&bytes[*written..end]);
        *written = end;
        let is_more = end < bytes.len();
        self.frozen.take_if(|_| !is_more);
        is_more
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        for mut bytes in part.chunks(ORDER_BYTES) {
            let side = match take(&mut bytes).ok_or(MalformedSnapshot)? {
                [0] => Side::Bid,
                [1] => Side::Ask,
                [_] => return Err(MalformedSnapshot),
            };
            let price = take_u64(&mut bytes).ok_or(MalformedSnapshot)?;
            let name = take_name(&mut bytes).ok_or(MalformedSnapshot)?;
            let quantity = take_u64(&mut bytes).ok_or(MalformedSnapshot)?;
            self.insert(side, price, Order { name, quantity }, false);
        }
        Ok(())
    }
}

/// The digest of one order: of all, none may stand in for another.
fn digest(side: Side, price: u64, order: Order) -> u64 {
    let Position { slot, index } = order.name;
    let words = [u64::from(side == Side::Ask), price, slot.0, u64::from(index), order.quantity];
    words.iter().fold(0xCBF2_9CE4_8422_2325, |digest, word| {
        let mixed = (digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ mixed >> 29
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

fn take_name(bytes: &mut &[u8]) -> Option<Position> {
    let slot = Slot(take_u64(bytes)?);
    Some(Position { slot, index: u32::from_le_bytes(take(bytes)?) })
}

fn encode_name(name: Position) -> Vec<u8> {
    [&name.slot.0.to_le_bytes()[..], &name.index.to_le_bytes()].concat()
}

fn main() -> Result<(), Box<dyn Error>> {
    const ORDERS: u64 = 50_000;
    let cluster = LocalCluster::start(&Config::standard(), |_| Book::default())?;
    cluster.wait_ready(Duration::from_secs(10))?;
    let client = cluster.client();
    let mut took = Vec::new();
    let (mut filled, mut last) = (0, None);
    for number in 0..ORDERS {
        // Bids around 100, asks around 102: they meet now and then.
        let side = if number % 2 == 0 { Side::Bid } else { Side::Ask };
        let price = 95 + 2 * (number % 2) + number * 7919 % 11;
        let command = match last.take_if(|_| number % 10 == 0) {
            Some(order) => Command::Cancel { order },
            None => Command::Limit { side, price, quantity: 1 + number % 5 },
        };
        let sent = Instant::now();
        let executed = client.execute_blocking(&command.encode())?;
        took.push(sent.elapsed());
        let fills = executed.reply.as_slice().get(20..).unwrap_or_default();
        filled += usize::from(!fills.is_empty());
        last = Some(executed.at);
    }
    took.sort_unstable();
    let at = |part: f64| {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        took[(part * (took.len() - 1) as f64) as usize]
    };
    println!("{ORDERS} orders, one after the other, {filled} of which traded at once");
    println!("p50 {:?}, p99 {:?}, p99.9 {:?}", at(0.5), at(0.99), at(0.999));
    Ok(cluster.stop()?)
}

#[cfg(test)]
mod tests {
    use loggos::conformance::{Conformance, Rng};

    use super::*;

    fn name(index: u32) -> Position {
        Position { slot: Slot(1), index }
    }

    /// Executes a limit order; returns what is left of it, and the fills: order, price, quantity.
    fn limit(
        book: &mut Book,
        at: u32,
        side: Side,
        price: u64,
        quantity: u64,
    ) -> (u64, Vec<[u64; 3]>) {
        let mut reply = Vec::new();
        book.limit(side, price, Order { name: name(at), quantity }, &mut reply);
        let mut rest = &reply[..];
        assert_eq!(take_name(&mut rest), Some(name(at)));
        let left = take_u64(&mut rest).unwrap();
        let mut fills = Vec::new();
        while let Some(maker) = take_name(&mut rest) {
            let (price, quantity) = (take_u64(&mut rest).unwrap(), take_u64(&mut rest).unwrap());
            fills.push([u64::from(maker.index), price, quantity]);
        }
        (left, fills)
    }

    #[test]
    fn the_best_price_trades_first_and_of_one_price_the_oldest() {
        let mut book = Book::default();
        for (at, price, quantity) in [(0, 101, 5), (1, 100, 5), (2, 100, 5), (3, 103, 5)] {
            assert_eq!(limit(&mut book, at, Side::Ask, price, quantity), (quantity, vec![]));
        }
        // Two of the three at its price or better, in part.
        let fills = vec![[1, 100, 5], [2, 100, 2]];
        assert_eq!(limit(&mut book, 4, Side::Bid, 101, 7), (0, fills));
        assert_eq!(book.remove(name(9)), None);
        // What was filled in part is still the oldest; what finds nothing more rests.
        let fills = vec![[2, 100, 3], [0, 101, 5]];
        assert_eq!(limit(&mut book, 5, Side::Bid, 102, 10), (2, fills));
        assert_eq!(book.remove(name(5)), Some(Order { name: name(5), quantity: 2 }));
        assert_eq!(limit(&mut book, 6, Side::Ask, 1, 1), (1, vec![]), "it was cancelled");
    }

    #[test]
    fn replicas_stay_equal_and_are_restored_from_snapshots() {
        let draw = |rng: &mut Rng| {
            let side = if rng.below(2) == 0 { Side::Bid } else { Side::Ask };
            let (price, quantity) = (90 + rng.below(20), rng.below(10));
            let slot = Slot(rng.below(200));
            let order = Position { slot, index: u32::try_from(rng.below(4)).unwrap_or(0) };
            let mut command = match rng.below(4) {
                0 => Command::Cancel { order },
                _ => Command::Limit { side, price, quantity },
            }
            .encode();
            if rng.below(20) == 0 {
                command.pop(); // clients send what they will
            }
            command
        };
        let conforms = Conformance::default().check(Book::default, draw);
        let conforms = conforms.unwrap_or_else(|violation| panic!("{violation}"));
        assert!(conforms.snapshots > 0, "{conforms:?}");
    }

    #[test]
    fn it_runs() {
        main().unwrap();
    }
}
