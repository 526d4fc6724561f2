//! Calls of one kind that come while a statement for others of that kind is on its way wait for its end, and go together in the next one: under
//! load a statement, its transaction and its flush of the write-ahead log serve many calls. With nothing on its way a call goes at once, so that
//! an idle caller waits for nobody.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{LedgerError, Result};

/// The most calls a statement serves.
const AT_MOST: usize = 64;
/// For so long do calls wait for the end of a statement that others began; one that takes longer may hang, on a dead connection, and those who
/// wait go without it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a group's statement answers: one for each call, in their order.
pub(crate) type Answers<O> = Vec<Result<O>>;

/// Where they go.
type Senders<O> = Vec<oneshot::Sender<Result<O>>>;

/// Calls of one kind. Clones are of the same calls.
#[derive(Debug)]
pub(crate) struct Together<I, O>(Arc<Mutex<Calls<I, O>>>);

#[derive(Debug)]
struct Calls<I, O> {
    waiting: VecDeque<(I, oneshot::Sender<Result<O>>)>,
    /// A task of [`Together::serve`] will look at `waiting` when its statement has ended.
    is_served: bool,
}

impl<I, O> Clone for Together<I, O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I, O> Default for Together<I, O> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Calls { waiting: VecDeque::new(), is_served: false })))
    }
}

impl<I: Send + 'static, O: Send + 'static> Together<I, O> {
    /// Waits for the answer to this call, which `run` gives with those to others. Whoever stops waiting keeps nobody else from an answer.
    pub(crate) async fn call<F, R>(&self, call: I, run: F) -> Result<O>
    where
        F: Fn(Vec<I>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Answers<O>> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let is_served = {
            let mut calls = self.calls();
            calls.waiting.push_back((call, sender));
            std::mem::replace(&mut calls.is_served, true)
        };
        if !is_served {
            self.clone().serve(run);
        }
        // A panic of `run`, or the runtime's end.
        answer.await.unwrap_or(Err(LedgerError::GivenUp))
    }

    /// Statement after statement, until no call waits. In tasks of their own: whoever stops waiting for an answer does not stop what others wait
    /// for.
    fn serve<F, R>(self, run: F)
    where
        F: Fn(Vec<I>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Answers<O>> + Send + 'static,
    {
        tokio::spawn(async move {
            while let Some((calls, senders)) = self.next() {
                let run_once = run.clone();
                let mut statement = tokio::spawn(async move { run_once(calls).await });
                let in_time = tokio::time::timeout(PATIENCE, &mut statement).await;
                let is_late = in_time.is_err();
                if is_late {
                    self.clone().serve(run.clone());
                }
                let answers = match in_time {
                    Ok(answers) => answers,
                    Err(_) => statement.await,
                };
                for (sender, answer) in senders.into_iter().zip(answers.unwrap_or_default()) {
                    // Its caller may have stopped waiting.
                    drop(sender.send(answer));
                }
                if is_late {
                    return;
                }
            }
        });
    }

    /// The calls of the next statement, oldest first; without any, the next call begins to be served by itself.
    fn next(&self) -> Option<(Vec<I>, Senders<O>)> {
        let mut calls = self.calls();
        calls.waiting.retain(|(_, sender)| !sender.is_closed());
        let count = calls.waiting.len().min(AT_MOST);
        calls.is_served = count > 0;
        calls.is_served.then(|| calls.waiting.drain(..count).unzip())
    }

    fn calls(&self) -> MutexGuard<'_, Calls<I, O>> {
        // A panic between lock and unlock is not possible: nothing there can fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error that is everybody's.
pub(crate) fn everyones<O>(error: LedgerError, calls: usize) -> Answers<O> {
    if calls == 1 {
        return vec![Err(error)];
    }
    let error = Arc::new(error);
    (0..calls).map(|_| Err(LedgerError::Shared(Arc::clone(&error)))).collect()
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use tokio::sync::Semaphore;

    use super::*;

    /// Statements that wait for leave to end; each answers with how many it served.
    #[derive(Clone)]
    struct Statements {
        together: Together<u32, usize>,
        begun: Arc<Semaphore>,
        leave: Arc<Semaphore>,
    }

    impl Statements {
        fn new() -> Self {
            let none = || Arc::new(Semaphore::new(0));
            Self { together: Together::default(), begun: none(), leave: none() }
        }

        fn call(&self, call: u32) -> tokio::task::JoinHandle<Result<usize>> {
            let Self { together, begun, leave } = self.clone();
            let run = move |calls: Vec<u32>| {
                let (begun, leave) = (begun.clone(), leave.clone());
                async move {
                    begun.add_permits(1);
                    leave.acquire().await.expect("nobody closes it").forget();
                    calls.iter().map(|_| Ok(calls.len())).collect()
                }
            };
            tokio::spawn(async move { together.call(call, run).await })
        }

        async fn has_begun(&self) {
            self.begun.acquire().await.expect("nobody closes it").forget();
        }

        async fn until_waiting(&self, count: usize) {
            while self.together.calls().waiting.len() < count {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn answer(call: tokio::task::JoinHandle<Result<usize>>) -> usize {
        call.await.expect("no panic").expect("an answer")
    }

    #[tokio::test]
    async fn calls_that_come_meanwhile_go_together_in_the_next_statement() {
        let statements = Statements::new();
        let first = statements.call(0);
        statements.has_begun().await;
        let others: Vec<_> = (1..=5).map(|call| statements.call(call)).collect();
        statements.until_waiting(5).await;
        statements.leave.add_permits(2);
        assert_eq!(answer(first).await, 1);
        for other in others {
            assert_eq!(answer(other).await, 5);
        }
        // And so on, from the beginning.
        statements.leave.add_permits(1);
        assert_eq!(answer(statements.call(6)).await, 1);
    }

    #[tokio::test]
    async fn who_stops_waiting_keeps_nobody_from_an_answer() {
        let statements = Statements::new();
        let first = statements.call(0);
        statements.has_begun().await;
        let (second, third) = (statements.call(1), statements.call(2));
        statements.until_waiting(2).await;
        first.abort();
        second.abort();
        assert!(first.await.is_err() && second.await.is_err());
        statements.leave.add_permits(2);
        assert_eq!(answer(third).await, 1, "the second one is not asked for any more");
    }

    #[tokio::test]
    async fn a_statement_that_hangs_holds_the_others_up_for_a_moment_only() {
        let statements = Statements::new();
        let hangs = statements.call(0);
        statements.has_begun().await;
        let other = statements.call(1);
        // Begun beside the one that hangs.
        statements.has_begun().await;
        statements.leave.add_permits(2);
        assert_eq!(answer(other).await, 1);
        assert_eq!(answer(hangs).await, 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_callers_and_of_nobody_else() {
        let together = Together::<u32, u32>::default();
        let panics = |_| -> Ready<Answers<u32>> { panic!("on purpose") };
        assert!(matches!(together.call(0, panics).await, Err(LedgerError::GivenUp)));
        let answers = |calls: Vec<u32>| ready(calls.into_iter().map(Ok).collect());
        assert_eq!(together.call(7, answers).await.expect("an answer"), 7);
    }
}
