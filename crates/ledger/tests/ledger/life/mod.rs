//! A job's life as a property: whatever is done, in whatever order, by whoever holds whatever old lease, the ledger does what a
//! simple model says and the invariants of ARCHITECTURE.md hold after each step.

mod invariants;
mod model;

use std::{cell::RefCell, collections::BTreeMap};

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use tokio::runtime::Runtime;

use crate::fixture::Fixture;
use model::Model;

/// Where no other number is asked for with `PROPTEST_CASES`.
const CASES: u32 = 48;
const MOST_STEPS: usize = 80;

/// What may happen. An index picks one of what there is, whatever its number.
#[derive(Debug, Clone)]
pub enum Step {
    Submit {
        jobs: u64,
        priority: i16,
        key: Option<u8>,
    },
    Claim {
        worker: u8,
    },
    Heartbeat {
        lease: prop::sample::Index,
    },
    /// The lease's time is over; its worker may not know.
    Expire {
        lease: prop::sample::Index,
    },
    Reap,
    Finalise {
        lease: prop::sample::Index,
    },
    FailTransiently {
        lease: prop::sample::Index,
    },
    FailForGood {
        lease: prop::sample::Index,
    },
    Release {
        lease: prop::sample::Index,
    },
    CancelBatch {
        batch: prop::sample::Index,
    },
    CancelJob {
        job: prop::sample::Index,
    },
    RetryBatch {
        batch: prop::sample::Index,
        also_quarantined: bool,
    },
    RetryJob {
        job: prop::sample::Index,
    },
    EndBackOffs,
    /// The outbox's tokens go to the broker.
    Relay,
    /// The broker loses every token.
    Purge,
    /// What is due gets the tokens that are missing.
    Reconcile,
    /// Jobs that are passed over are raised.
    Age,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        2 => submission(prop::option::weighted(0.3, 0..2_u8)),
        8 => (0..3_u8).prop_map(|worker| Step::Claim { worker }),
        2 => index().prop_map(|lease| Step::Heartbeat { lease }),
        5 => index().prop_map(|lease| Step::Expire { lease }),
        5 => Just(Step::Reap),
        5 => index().prop_map(|lease| Step::Finalise { lease }),
        3 => index().prop_map(|lease| Step::FailTransiently { lease }),
        2 => index().prop_map(|lease| Step::FailForGood { lease }),
        2 => index().prop_map(|lease| Step::Release { lease }),
        1 => index().prop_map(|batch| Step::CancelBatch { batch }),
        1 => index().prop_map(|job| Step::CancelJob { job }),
        2 => (index(), any::<bool>()).prop_map(|(batch, also_quarantined)| Step::RetryBatch { batch, also_quarantined }),
        1 => index().prop_map(|job| Step::RetryJob { job }),
        2 => Just(Step::EndBackOffs),
        2 => Just(Step::Relay),
        1 => Just(Step::Purge),
        2 => Just(Step::Reconcile),
        1 => Just(Step::Age),
    ];
    (beginning(), prop::collection::vec(step, 1..MOST_STEPS)).prop_map(|(beginning, steps)| [beginning, steps].concat())
}

/// One time in two the first steps lead where mere chance seldom does, so that every run gets there often.
fn beginning() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let claim = || Just(Step::Claim { worker: 0 }).boxed();
    let expire = || index().prop_map(|lease| Step::Expire { lease }).boxed();
    let reap = || Just(Step::Reap).boxed();
    let job = || submission(Just(None)).boxed();
    let keyed = || submission(Just(Some(0))).boxed();
    let fail = || index().prop_map(|lease| Step::FailForGood { lease }).boxed();
    let retry = || index().prop_map(|batch| Step::RetryBatch { batch, also_quarantined: true }).boxed();
    let lost_twice = vec![job(), claim(), expire(), reap(), claim(), expire(), expire(), reap()];
    let retried = vec![job(), claim(), fail(), retry()];
    let submitted_twice = vec![keyed(), keyed()];
    prop_oneof![4 => Just(Vec::new()), 2 => lost_twice, 1 => retried, 1 => submitted_twice]
}

fn submission(key: impl Strategy<Value = Option<u8>>) -> impl Strategy<Value = Step> {
    (1..4_u64, -1..2_i16, key).prop_map(|(jobs, priority, key)| Step::Submit { jobs, priority, key })
}

#[test]
fn every_order_of_events_leads_where_the_model_says_and_breaks_no_invariant() {
    let runtime = Runtime::new().unwrap();
    let fixture = runtime.block_on(async {
        let fixture = Fixture::start().await;
        // What is proved here is logic: the disk may lag.
        fixture.execute("ALTER DATABASE dotmask SET synchronous_commit = off").await;
        fixture
    });
    let met = RefCell::new(BTreeMap::new());
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    // Milliseconds: a failure is told soon, if not in the fewest steps.
    let max_shrink_time = 20_000;
    let mut runner = TestRunner::new(Config { cases, max_shrink_time, failure_persistence: None, ..Config::default() });
    let outcome = runner
        .run(&steps(), |steps| runtime.block_on(case(&fixture, &steps, &mut met.borrow_mut())).map_err(TestCaseError::fail));
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // A test that never meets the interesting ways proves nothing.
    for way in ["accepted", "refused", "lost", "quarantined", "retried", "cancelled", "submitted twice"] {
        assert!(met.borrow().contains_key(way), "{way} was never met, only {:?}", met.borrow());
    }
}

/// One sequence of events on an empty ledger, then everything to its end.
async fn case(fixture: &Fixture, steps: &[Step], met: &mut BTreeMap<&'static str, u32>) -> Result<(), String> {
    fixture.execute("TRUNCATE batches, jobs, leases, attempts, results, outbox, queue_heads CASCADE").await;
    let mut model = Model::default();
    for step in steps {
        model.apply(fixture, step, met).await.map_err(|error| format!("{step:?}: {error}"))?;
        invariants::check(fixture, &model).await.map_err(|error| format!("after {step:?}: {error}"))?;
    }
    model.finish(fixture, met).await.map_err(|error| format!("at the end: {error}"))?;
    invariants::check(fixture, &model).await.map_err(|error| format!("at the end: {error}"))
}
