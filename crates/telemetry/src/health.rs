use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Readiness by part: each check is named once, at the start, and its part says from then on how it fares.
///
/// Clones share their state.
#[derive(Debug, Clone)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Health {
    /// The checks that must pass before the process is ready. Until a part speaks, its check says "starting".
    pub fn new(checks: &[&'static str]) -> Self {
        Self(Arc::new(Mutex::new(checks.iter().map(|&name| (name, Err("starting".into()))).collect())))
    }

    /// The part says how it is: fine, or what is wrong, in words that hold no secret.
    pub fn set(&self, check: &'static str, outcome: Result<(), String>) {
        self.checks().insert(check, outcome);
    }

    /// Whether every check passes.
    pub fn is_ready(&self) -> bool {
        self.checks().values().all(Result::is_ok)
    }

    /// Every check with "ok" or what is wrong.
    pub fn report(&self) -> BTreeMap<&'static str, String> {
        let words = |outcome: &Result<(), String>| outcome.as_ref().err().map_or_else(|| "ok".into(), Clone::clone);
        self.checks().iter().map(|(&name, outcome)| (name, words(outcome))).collect()
    }

    fn checks(&self) -> MutexGuard<'_, BTreeMap<&'static str, Result<(), String>>> {
        // A panic between lock and unlock cannot leave the map half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
