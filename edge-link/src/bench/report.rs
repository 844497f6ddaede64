//! What is printed of a run, for people or as one JSON object.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Ended, Run,
    schedule::Schedule,
    tally::{Errors, Kind, Tally, Traffic},
};
use crate::{
    args::{Bench, BenchMode},
    output::harmless,
};

/// A schedule counts as kept if at most one message of a hundred was sent later than this.
const TOLERANCE_MS: f64 = 10.0;

const CLOSED_LOOP: &str = "closed loop: these are service times; a slow server is asked less, so they say nothing about \
                           arrivals at a fixed rate (for that: --rate)";
const OPEN_LOOP: &str = "open loop: latency counts from when a message was due";

/// Times are in milliseconds where the name says `ms`, else in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    mode: &'static str,
    url: &'a str,
    #[serde(rename = "loop", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    warm_up: f64,
    timeout: f64,
    /// How long it was measured, which is less than was asked for if something came between.
    measured: f64,
    ended: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logins: Option<Flow>,
    /// None without any.
    latency_ms: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<Kept>,
    errors: Wrong<'a>,
    /// Messages that are not ours, which is no error: a welcome, say.
    foreign: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// In the measured time.
#[derive(Debug, Serialize)]
struct Flow {
    count: u64,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mib_per_second: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    count: u64,
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

/// How well the schedule was kept, in the measured time.
#[derive(Debug, Serialize)]
struct Kept {
    rate: u32,
    /// How fast it really was, over those that were due before as well.
    sent_per_second: f64,
    due: u64,
    /// Of those that were due then.
    sent: u64,
    /// Those that waited since `depth` others were in flight, or all connections were logging in; in the whole run.
    held: u64,
    kept: bool,
    /// By how much those that were sent were late.
    late_ms: Option<Latency>,
    #[serde(skip)]
    logins: bool,
}

/// In the whole run, the warm-up and the wait for the last answers included.
#[derive(Debug, Serialize)]
struct Wrong<'a> {
    failed_connections: BTreeMap<&'a str, u64>,
    lost_lines: BTreeMap<&'a str, u64>,
    unanswered: u64,
    unsent: u64,
    late_answers: u64,
    duplicates: u64,
    out_of_order: u64,
    wrong_answers: u64,
    #[serde(skip)]
    all: &'a Errors,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        args: &'a Bench,
        run: &Run,
        tally: &'a Tally,
        connections: usize,
        ended: Ended,
    ) -> Self {
        let measured = run.clock.window().length();
        let messages = matches!(args.mode, BenchMode::Echo | BenchMode::Broadcast);
        let flow = |traffic: Traffic| Flow::new(traffic, measured);
        let (kind, note) = match (args.mode, args.rate) {
            (BenchMode::Idle, _) => (None, None),
            (_, None) => (Some("closed"), Some(CLOSED_LOOP)),
            (_, Some(_)) => (Some("open"), Some(OPEN_LOOP)),
        };
        Self {
            mode: match args.mode {
                BenchMode::Echo => "echo",
                BenchMode::Broadcast => "broadcast",
                BenchMode::Login => "login",
                BenchMode::Idle => "idle",
            },
            url: &args.url,
            kind,
            connections,
            depth: messages.then_some(run.depth),
            size: messages.then(|| args.size()),
            warm_up: args.warm_up.as_secs_f64(),
            timeout: args.timeout.as_secs_f64(),
            measured: measured.as_secs_f64(),
            ended: match ended {
                Ended::InTime => "in_time",
                Ended::Interrupted => "interrupted",
                Ended::Early => "early",
            },
            sent: messages.then(|| flow(tally.sent)),
            received: messages.then(|| flow(tally.received)),
            logins: (args.mode == BenchMode::Login).then(|| flow(tally.received)),
            latency_ms: Latency::of(tally.latency()),
            schedule: args.rate.map(|rate| Kept::new(rate, args.mode == BenchMode::Login, run, tally)),
            errors: Wrong::new(&tally.errors),
            foreign: tally.foreign,
            note,
        }
    }

    /// Whether nothing went wrong.
    pub(super) fn went_well(&self) -> bool {
        let Wrong { failed_connections, lost_lines, unanswered, unsent, .. } = &self.errors;
        let Wrong { late_answers, duplicates, out_of_order, wrong_answers, .. } = &self.errors;
        let counts = [unanswered, unsent, late_answers, duplicates, out_of_order, wrong_answers];
        failed_connections.is_empty() && lost_lines.is_empty() && counts.into_iter().all(|count| *count == 0)
    }
}

impl Flow {
    fn new(traffic: Traffic, measured: Duration) -> Self {
        Self {
            count: traffic.messages,
            per_second: per_second(traffic.messages, measured),
            mib_per_second: (traffic.bytes > 0)
                .then(|| rounded(per_second(traffic.bytes, measured) / f64::from(1u32 << 20))),
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let ms = |nanos: u64| rounded(nanos as f64 / 1e6);
        let quantile = |quantile| ms(histogram.value_at_quantile(quantile));
        Some(Self {
            count: histogram.len(),
            min: ms(histogram.min()),
            mean: rounded(histogram.mean() / 1e6),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: ms(histogram.max()),
        })
    }
}

impl Kept {
    fn new(rate: u32, logins: bool, run: &Run, tally: &Tally) -> Self {
        let (schedule, window) = (Schedule::new(rate), run.clock.window());
        let due = schedule.before(window.end).saturating_sub(schedule.before(window.start));
        let late_ms = Latency::of(tally.lateness());
        let sent = late_ms.as_ref().map_or(0, |late| late.count);
        let kept = sent == due && late_ms.as_ref().is_none_or(|late| late.p99 <= TOLERANCE_MS);
        let sent_per_second = per_second(tally.sent.messages, window.length());
        Self { rate, sent_per_second, due, sent, held: tally.held, kept, late_ms, logins }
    }
}

impl<'a> Wrong<'a> {
    fn new(errors: &'a Errors) -> Self {
        let counts = |kinds: &'a BTreeMap<&'static str, Kind>| {
            kinds.iter().map(|(label, kind)| (*label, kind.count)).collect()
        };
        Self {
            failed_connections: counts(&errors.failed),
            lost_lines: counts(&errors.lost),
            unanswered: errors.unanswered,
            unsent: errors.unsent,
            late_answers: errors.late,
            duplicates: errors.duplicate,
            out_of_order: errors.out_of_order,
            wrong_answers: errors.wrong,
            all: errors,
        }
    }
}

pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { rounded(count as f64 / time.as_secs_f64()) }
}

/// As exact as anybody can read it: a millisecond to the nanosecond, say.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// For people.
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, url, connections, measured, .. } = self;
        write!(f, "{mode} at {url}: {connections} connection{}", plural(*connections as u64))?;
        if let (Some(depth), Some(size)) = (self.depth, self.size) {
            write!(f, ", {size} bytes, at most {depth} in flight")?;
        }
        writeln!(
            f,
            ", measured for {measured:.1} s{}",
            match self.ended {
                "interrupted" => " (interrupted)",
                "early" => " (ended early)",
                _ => "",
            }
        )?;
        for (name, flow) in [("sent", &self.sent), ("received", &self.received), ("logins", &self.logins)] {
            if let Some(Flow { count, per_second, mib_per_second }) = flow {
                write!(f, "  {name:<10}{count:>12} {per_second:>14.1}/s")?;
                match mib_per_second {
                    Some(mib) => writeln!(f, " {mib:>10.2} MiB/s")?,
                    None => writeln!(f)?,
                }
            }
        }
        let what = if self.mode == "idle" { "round trip" } else { "latency" };
        match &self.latency_ms {
            Some(latency) => write!(f, "  {what:<10}{latency}")?,
            None => writeln!(f, "  {what:<10} nothing was measured")?,
        }
        if let Some(kept) = &self.schedule {
            write!(f, "{kept}")?;
        }
        write!(f, "{}", self.errors)?;
        if self.foreign > 0 {
            writeln!(f, "  foreign    {} message{} that are not ours", self.foreign, plural(self.foreign))?;
        }
        match self.note {
            Some(note) => write!(f, "{note}"),
            None => write!(f, "round trips of this side's pings"),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, mean, p50, p90, p99, p99_9, max, .. } = self;
        writeln!(f, " p50 {p50:.3}  p90 {p90:.3}  p99 {p99:.3}  p99.9 {p99_9:.3}  max {max:.3} ms")?;
        writeln!(f, "  {:<10} min {min:.3}  mean {mean:.3} ms, of {}", "", self.count)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, sent_per_second, due, sent, held, kept, late_ms, logins } = self;
        let (done, limit, busy) = match logins {
            true => ("begun", "--connections", "all --connections were logging in"),
            false => ("sent", "--depth", "--depth others were in flight"),
        };
        write!(f, "  schedule   {rate}/s: of {due} due then {sent} were {done}")?;
        if let Some(Latency { p50, p99, max, .. }) = late_ms {
            write!(f, ", late by p50 {p50:.3}  p99 {p99:.3}  max {max:.3} ms")?;
        }
        writeln!(f)?;
        let why = match held {
            0 => "this machine is too slow for it, or lines were lost".into(),
            _ => format!("the server is too slow for it, or {limit} too small"),
        };
        if !kept {
            writeln!(f, "  {:<10} NOT KEPT: {sent_per_second:.1}/s were {done}; {why}", "")?;
        }
        if *held > 0 {
            writeln!(f, "  {:<10} {held} had to wait since {busy}", "")?;
        }
        Ok(())
    }
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for (what, kinds) in [("failed", &self.all.failed), ("lost", &self.all.lost)] {
            for (label, Kind { count, example }) in kinds {
                lines.push(format!(
                    "{count} connection{} {what}: {label} ({})",
                    plural(*count),
                    harmless(example)
                ));
            }
        }
        for (count, what) in [
            (self.unanswered, "unanswered in time"),
            (self.unsent, "due, and never sent"),
            (self.late_answers, "answered after the time-out"),
            (self.duplicates, "answered twice"),
            (self.out_of_order, "answered in the wrong order"),
            (self.wrong_answers, "answered wrongly: altered, never sent, or another connection's"),
        ] {
            if count > 0 {
                lines.push(format!("{count} {what}"));
            }
        }
        if lines.is_empty() {
            lines.push("none".into());
        }
        for (line, name) in lines.iter().zip(std::iter::once("errors").chain(std::iter::repeat(""))) {
            writeln!(f, "  {name:<10} {line}")?;
        }
        Ok(())
    }
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
