use prometheus::{IntGaugeVec, Opts, Registry, process_collector::ProcessCollector};

/// Histogram buckets in seconds, from a fast request to a long fine-tuning.
pub const SECONDS: &[f64] = &[0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// A registry that already says which build this is and how much memory, CPU and how many files the process uses.
pub fn registry(version: &str) -> Registry {
    let registry = Registry::new();
    let build = IntGaugeVec::new(Opts::new("dotmask_build_info", "Always 1; the label says which version runs"), &["version"])
        .expect("a constant name is valid");
    build.with_label_values(&[version]).set(1);
    registry.register(Box::new(build)).expect("a new registry holds no other collector of that name");
    registry.register(Box::new(ProcessCollector::for_self())).expect("a new registry holds no other collector of that name");
    registry
}
