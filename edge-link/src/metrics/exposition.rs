//! A server's counters as OpenMetrics text, which Prometheus reads.

use std::{collections::BTreeMap, fmt};

use link_driver::{RoundTrips, Runtime, ServerHandle, ServerStats};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What there is to scrape.
#[derive(Debug)]
pub(super) struct Exposition(Registry);

impl Exposition {
    pub(super) fn new<R: Runtime>(server: ServerHandle<R>) -> Self {
        let mut registry = Registry::with_prefix("link");
        registry.register_collector(Box::new(Counters(server)));
        Self(registry)
    }

    /// The counters, as they are now.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

struct Counters<R: Runtime>(ServerHandle<R>);

impl<R: Runtime> Collector for Counters<R> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Writer(encoder).stats(&self.0.stats())
    }
}

impl<R: Runtime> fmt::Debug for Counters<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counters").field(&self.0).finish()
    }
}

/// Writes metrics. The crate adds to a name its unit and, for a counter, `_total`.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn stats(&mut self, stats: &ServerStats) -> fmt::Result {
        let mut connections =
            self.metric("connections", "Open connections, by state.", None, MetricType::Gauge)?;
        for (state, count) in
            [("authenticated", stats.authenticated), ("unauthenticated", stats.unauthenticated)]
        {
            connections.encode_family(&[("state", state)])?.encode_gauge(&count)?;
        }
        self.counter("connections_accepted", "Connections that were accepted.", None, stats.accepted)?;
        self.by_reason(
            "connections_turned_away",
            "Connections that were closed at once because of a limit, by reason.",
            &stats.turned_away,
        )?;
        self.by_reason(
            "connections_rejected",
            "Accepted connections that ended before they were authenticated, by reason.",
            &stats.rejected,
        )?;
        self.by_reason(
            "connections_disconnected",
            "Authenticated connections that ended, by reason.",
            &stats.disconnected,
        )?;
        self.counter("messages_received", "Messages received from clients.", None, stats.messages_received)?;
        self.counter("messages_sent", "Messages sent to clients.", None, stats.messages_sent)?;
        let bytes = Some(&Unit::Bytes);
        self.counter(
            "received",
            "Length of the messages received from clients.",
            bytes,
            stats.bytes_received,
        )?;
        self.counter("sent", "Length of the messages sent to clients.", bytes, stats.bytes_sent)?;
        self.round_trips(&stats.round_trips)
    }

    fn metric<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, count: u64) -> fmt::Result {
        self.metric(name, help, unit, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&count, None)
    }

    fn by_reason(&mut self, name: &str, help: &str, counts: &BTreeMap<&'static str, u64>) -> fmt::Result {
        let mut counters = self.metric(name, help, None, MetricType::Counter)?;
        for (reason, count) in counts {
            counters
                .encode_family(&[("reason", *reason)])?
                .encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        Ok(())
    }

    /// The sum and the count; with one bucket for all, since the server keeps no others.
    fn round_trips(&mut self, round_trips: &RoundTrips) -> fmt::Result {
        let help = "Round trips of the heartbeats that clients answered.";
        let seconds = Unit::Seconds;
        let mut histogram =
            self.metric("heartbeat_round_trip", help, Some(&seconds), MetricType::Histogram)?;
        let (sum, count) = (round_trips.total.as_secs_f64(), round_trips.count);
        histogram.encode_histogram::<NoLabelSet>(sum, count, &[(f64::INFINITY, count)], None)
    }
}
