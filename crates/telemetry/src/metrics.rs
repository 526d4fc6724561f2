use std::{collections::BTreeSet, fmt::Write as _};

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::Collector,
    process_collector::ProcessCollector,
    proto::{LabelPair, Metric, MetricFamily, MetricType},
};

/// Histogram buckets in seconds, from a fast request to a long fine-tuning.
pub const SECONDS: &[f64] = &[0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// All that a process counts: what is added here is what /metrics shows and what the documentation lists.
pub struct Catalogue {
    registry: Registry,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    kind: &'static str,
    labels: Vec<String>,
    meaning: String,
}

impl Catalogue {
    /// Begins with which build this is, and with how much memory, CPU and how many files the process uses. Every series bears `labels`.
    pub fn new(version: &str, labels: &[(&str, &str)]) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut catalogue = Self { registry: Registry::new_custom(None, Some(labels))?, entries: Vec::new() };
        let build = Opts::new("dotmask_build_info", "Always 1; the label says which version runs");
        catalogue.add(IntGaugeVec::new(build, &["version"]))?.with_label_values(&[version]).set(1);
        catalogue.register(ProcessCollector::for_self())?;
        Ok(catalogue)
    }

    /// Registers a metric and gives it back.
    pub fn add<C: Collector + Clone + 'static>(&mut self, collector: prometheus::Result<C>) -> prometheus::Result<C> {
        let collector = collector?;
        self.register(collector.clone())?;
        Ok(collector)
    }

    fn register(&mut self, collector: impl Collector + 'static) -> prometheus::Result<()> {
        let families = collector.collect();
        for desc in collector.desc() {
            let family = families.iter().find(|family| family.name() == desc.fq_name);
            self.entries.push(Entry {
                name: desc.fq_name.clone(),
                kind: family.map_or("untyped", |family| kind(family.get_field_type())),
                labels: desc.variable_labels.clone(),
                meaning: desc.help.clone(),
            });
        }
        self.registry.register(Box::new(collector))
    }

    /// For [`routes`](crate::routes).
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Every metric as a row of a Markdown table, in the order they were added: name, type, labels with those values that are there from the
    /// start, meaning.
    pub fn markdown(&self) -> String {
        let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
        for Entry { name, kind, labels, meaning } in &self.entries {
            let labels: Vec<String> = labels.iter().map(|label| self.label(name, label)).collect();
            let _ = writeln!(table, "| `{name}` | {kind} | {} | {meaning} |", labels.join("; "));
        }
        table
    }

    fn label(&self, name: &str, label: &str) -> String {
        let families = self.registry.gather();
        let series = families.iter().filter(|family| family.name() == name).flat_map(MetricFamily::get_metric);
        let pairs = series.flat_map(Metric::get_label);
        let values: BTreeSet<&str> = pairs.filter(|pair| pair.name() == label).map(LabelPair::value).collect();
        if values.is_empty() {
            return format!("`{label}`");
        }
        format!("`{label}`: {}", values.into_iter().collect::<Vec<_>>().join(", "))
    }
}

fn kind(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "untyped",
    }
}
