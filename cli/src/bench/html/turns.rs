//! A picture of what cores did in a moment, turn by turn.
//!
//! ```text
//!   core 0   ▒▒█████▒████▒▒▒   ▒███▒     a tick, and in it the turns of callers and roles;
//!   core 1      ▒▒███████████▒▒  ▒▒██    between ticks it looks for work, or sleeps
//!            0       20      40 µs
//! ```

use loggos::{CoreTrace, Doing, RoleId, Time, Turn};

use super::pictures::{LEFT, RIGHT, WIDTH, step};
use super::push;

/// The turns that the busiest core has in the picture: more could not be told apart.
const TURNS_SHOWN: usize = 160;

/// The room of a core, and what of it ticks and turns have.
const LANE: f64 = 40.0;
const TICK_HEIGHT: f64 = 30.0;
const TURN_HEIGHT: f64 = 22.0;

/// What is told apart: by its class, and as the legend names it.
const KINDS: [(&str, &str); 7] = [
    ("tick", "tick"),
    ("callers", "callers"),
    ("gateway", "gateway"),
    ("proposer", "proposer"),
    ("proxy", "proxy leader"),
    ("acceptor", "acceptor"),
    ("replica", "replica"),
];

/// The picture, under its heading; nothing where nothing was traced.
pub(super) fn turns(traces: &[CoreTrace]) -> String {
    let Some((from, to)) = moment(traces) else { return String::new() };
    let lanes = traces.len() as f64;
    let height = LANE * lanes + 60.0;
    let nanos = to.since(from).as_secs_f64() * 1e9;
    let x = |at: Time| LEFT + at.since(from).as_secs_f64() * 1e9 / nanos * (RIGHT - LEFT);
    let mut svg = format!(
        "<h2>Turns of cores</h2>\n<figure><div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Turns of cores\">\n"
    );
    for (lane, trace) in traces.iter().enumerate() {
        let middle = LANE * (lane as f64 + 0.5);
        push(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">core {}</text>\n",
                LEFT - 8.0,
                middle + 4.0,
                trace.core
            ),
        );
        let shown = || trace.turns.iter().filter(|turn| turn.from >= from && turn.to <= to);
        let ticks = shown().filter(|turn| turn.doing == Doing::Tick);
        for turn in ticks.chain(shown().filter(|turn| turn.doing != Doing::Tick)) {
            let Some((class, what)) = drawn(turn.doing) else { continue };
            let high = if turn.doing == Doing::Tick { TICK_HEIGHT } else { TURN_HEIGHT };
            let (left, top) = (x(turn.from), middle - high / 2.0);
            let (width, took) = (x(turn.to) - left, micros(*turn));
            push(
                &mut svg,
                format_args!(
                    "<rect class=\"{class}\" x=\"{left:.2}\" y=\"{top}\" width=\"{width:.2}\" height=\"{high}\">\
                     <title>{what}: {took:.1} µs</title></rect>\n"
                ),
            );
        }
    }
    push_scale(&mut svg, nanos / 1e3, LANE * lanes);
    push_legend(&mut svg, LANE * lanes + 48.0);
    svg.push_str(
        "</svg></div>\n<figcaption>Ticks, and in them the turns of roles and callers; the rest of a tick goes to \
         mailboxes, sockets and the log. Blank: it looks for work, or sleeps.</figcaption></figure>\n",
    );
    svg
}

/// A time that all cores have been traced for, in which the busiest has as many turns as can be
/// shown.
fn moment(traces: &[CoreTrace]) -> Option<(Time, Time)> {
    let first = |trace: &CoreTrace| trace.turns.iter().map(|turn| turn.from).min();
    let from = traces.iter().map(first).collect::<Option<Vec<_>>>()?.into_iter().max()?;
    let ends = traces.iter().filter_map(|trace| trace.turns.last()).map(|turn| turn.to);
    let enough = traces.iter().filter_map(|trace| {
        let mut after = trace.turns.iter().filter(|turn| turn.from >= from);
        after.nth(TURNS_SHOWN).map(|turn| turn.to)
    });
    let to = ends.chain(enough).min()?;
    (to > from).then_some((from, to))
}

/// The class and the name of what is drawn; sleep is not.
fn drawn(doing: Doing) -> Option<(&'static str, String)> {
    let [tick, callers, gateway, proposer, proxy_leader, acceptor, replica] =
        KINDS.map(|(class, _)| class);
    Some(match doing {
        Doing::Sleep => return None,
        Doing::Tick => (tick, "tick".to_owned()),
        Doing::Callers => (callers, "callers".to_owned()),
        Doing::Role(role) => {
            let class = match role {
                RoleId::Gateway(_) => gateway,
                RoleId::Proposer(_) => proposer,
                RoleId::ProxyLeader(_) => proxy_leader,
                RoleId::Acceptor(_) => acceptor,
                RoleId::Replica(_) => replica,
            };
            (class, role.to_string())
        }
    })
}

fn micros(turn: Turn) -> f64 {
    turn.to.since(turn.from).as_secs_f64() * 1e6
}

/// Marks microseconds below the lanes.
fn push_scale(svg: &mut String, micros: f64, y: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a picture")]
    let whole = micros as u64;
    let apart = step(whole.max(1), 10);
    for mark in (0..=whole / apart).map(|n| n * apart) {
        let x = LEFT + mark as f64 / micros * (RIGHT - LEFT);
        push(
            svg,
            format_args!(
                "<path class=\"line\" d=\"M{x:.1} {y}V{}\"/><text x=\"{x:.1}\" y=\"{}\" \
                 text-anchor=\"middle\">{mark} µs</text>\n",
                y + 5.0,
                y + 20.0
            ),
        );
    }
}

fn push_legend(svg: &mut String, y: f64) {
    let apart = (RIGHT - LEFT) / KINDS.len() as f64;
    for (place, (class, name)) in KINDS.iter().enumerate() {
        let x = LEFT + apart * place as f64;
        push(
            svg,
            format_args!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{}\" width=\"12\" height=\"12\"/>\
                 <text x=\"{:.1}\" y=\"{y}\">{name}</text>\n",
                y - 10.0,
                x + 18.0
            ),
        );
    }
}
