use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::Catalogue;

/// Readiness by part: each check is named once, at the start, and its part says from then on how it fares. The metrics show the same.
///
/// Clones share their state.
#[derive(Debug, Clone)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<&'static str, Check>>>,
    ready: IntGauge,
    up: IntGaugeVec,
    reconnects: IntCounterVec,
}

#[derive(Debug)]
struct Check {
    outcome: Result<(), String>,
    has_worked: bool,
}

impl Health {
    /// The checks that must pass before the process is ready. Until a part speaks, its check says "starting".
    pub fn new(checks: &[&'static str], catalogue: &mut Catalogue) -> prometheus::Result<Self> {
        let ready = IntGauge::new("dotmask_ready", "1 where every check passes, as /readyz has it; 0 otherwise");
        let up = Opts::new("dotmask_check_up", "1 where the part works, 0 where it does not or has not begun");
        let reconnects = Opts::new("dotmask_reconnects_total", "Times a part worked again after it had not");
        let health = Self {
            checks: Arc::default(),
            ready: catalogue.add(ready)?,
            up: catalogue.add(IntGaugeVec::new(up, &["check"]))?,
            reconnects: catalogue.add(IntCounterVec::new(reconnects, &["check"]))?,
        };
        for check in checks {
            health.up.with_label_values(&[check]).set(0);
            health.reconnects.with_label_values(&[check]).inc_by(0);
            health.checks().insert(check, Check { outcome: Err("starting".into()), has_worked: false });
        }
        Ok(health)
    }

    /// The part says how it is: fine, or what is wrong, in words that hold no secret.
    ///
    /// # Panics
    /// Where the check was not named at the start.
    pub fn set(&self, check: &'static str, outcome: Result<(), String>) {
        let mut checks = self.checks();
        let known = checks.get_mut(check).unwrap_or_else(|| panic!("{check:?} is no check of this process"));
        if outcome.is_ok() && known.outcome.is_err() && known.has_worked {
            self.reconnects.with_label_values(&[check]).inc();
        }
        known.has_worked |= outcome.is_ok();
        self.up.with_label_values(&[check]).set(outcome.is_ok().into());
        known.outcome = outcome;
        self.ready.set(checks.values().all(|check| check.outcome.is_ok()).into());
    }

    /// Whether every check passes but those, which do not matter to who asks.
    pub fn is_ready_without(&self, excluded: &[&str]) -> bool {
        self.checks().iter().all(|(name, check)| excluded.contains(name) || check.outcome.is_ok())
    }

    /// Every check with "ok" or what is wrong.
    pub fn report(&self) -> BTreeMap<&'static str, String> {
        let words = |check: &Check| check.outcome.as_ref().err().map_or_else(|| "ok".into(), Clone::clone);
        self.checks().iter().map(|(&name, check)| (name, words(check))).collect()
    }

    fn checks(&self) -> MutexGuard<'_, BTreeMap<&'static str, Check>> {
        // A panic between lock and unlock cannot leave the map half written.
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
