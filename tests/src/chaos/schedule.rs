//! Which fault is thrown when: a pure function of the seed.

use std::{fmt, time::Duration};

use super::{DISPATCHERS, LEASE, WORKERS, dice::Dice};

const STREAM: u64 = 1;

/// A fault and when it is thrown, counted from the first submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

/// What is done to the system. What is taken away comes back by itself, after the time it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of a worker in the middle of a job.
    KillWorker {
        /// Which.
        worker: usize,
        /// Until it is started again.
        down: Duration,
    },
    /// kill -9 of a dispatcher.
    KillDispatcher {
        /// Which.
        dispatcher: usize,
        /// Until it is started again.
        down: Duration,
    },
    /// SIGSTOP of a worker in the middle of a job, for longer than its lease, then SIGCONT: it wakes up stale.
    PauseWorker {
        /// Which.
        worker: usize,
        /// Until it goes on.
        pause: Duration,
    },
    /// kill -9 of the broker.
    KillBroker {
        /// Until it is started again.
        down: Duration,
    },
    /// The broker stopped as an administrator does, and started again.
    RestartBroker,
    /// All tokens thrown away.
    PurgeQueue,
    /// All connections closed by the broker.
    CloseConnections,
    /// Postgres stopped without a checkpoint, its backends ended, and started again.
    StopPostgres {
        /// Until it is started again.
        down: Duration,
    },
    /// All connections ended by Postgres.
    TerminateBackends,
    /// The network between programs and a server.
    Network {
        /// Which programs.
        programs: Programs,
        /// Which server.
        server: Server,
        /// What it does.
        trouble: Trouble,
        /// For how long.
        lasts: Duration,
    },
}

/// Whose connections are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// All dispatchers.
    Dispatchers,
    /// All workers.
    Workers,
    /// One dispatcher.
    Dispatcher(usize),
    /// One worker.
    Worker(usize),
}

/// The other end of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// The ledger's.
    Postgres,
    /// The tokens'.
    Broker,
    /// The images' and masks'.
    Store,
}

/// What a network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Connections are closed and new ones refused.
    Cut,
    /// Nothing gets through, and nobody is told.
    Stall,
    /// Requests get through, answers do not.
    StallAnswers,
    /// Connections are reset; new ones are good.
    Reset,
    /// Every request is answered 503 by something in between.
    Refuse,
}

/// What faults are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `Fault::KillWorker`.
    KillWorker,
    /// `Fault::KillDispatcher`.
    KillDispatcher,
    /// `Fault::PauseWorker`.
    PauseWorker,
    /// `Fault::KillBroker`.
    KillBroker,
    /// `Fault::RestartBroker`.
    RestartBroker,
    /// `Fault::PurgeQueue`.
    PurgeQueue,
    /// `Fault::CloseConnections`.
    CloseConnections,
    /// `Fault::StopPostgres`.
    StopPostgres,
    /// `Fault::TerminateBackends`.
    TerminateBackends,
    /// `Fault::Network`.
    Network(Server, Trouble),
}

impl Kind {
    /// Each kind with how often it is thrown in comparison with others. The broker takes long to start, and is needed for all else
    /// to mean anything.
    pub const WEIGHTED: [(Self, usize); 22] = [
        (Self::KillWorker, 12),
        (Self::PauseWorker, 11),
        (Self::KillDispatcher, 8),
        (Self::PurgeQueue, 8),
        (Self::TerminateBackends, 7),
        (Self::StopPostgres, 6),
        (Self::CloseConnections, 6),
        (Self::KillBroker, 3),
        (Self::RestartBroker, 3),
        (Self::Network(Server::Postgres, Trouble::Cut), 3),
        (Self::Network(Server::Postgres, Trouble::Stall), 5),
        (Self::Network(Server::Postgres, Trouble::StallAnswers), 4),
        (Self::Network(Server::Postgres, Trouble::Reset), 3),
        (Self::Network(Server::Broker, Trouble::Cut), 2),
        (Self::Network(Server::Broker, Trouble::Stall), 2),
        (Self::Network(Server::Broker, Trouble::StallAnswers), 2),
        (Self::Network(Server::Broker, Trouble::Reset), 2),
        (Self::Network(Server::Store, Trouble::Cut), 2),
        (Self::Network(Server::Store, Trouble::Stall), 2),
        (Self::Network(Server::Store, Trouble::StallAnswers), 2),
        (Self::Network(Server::Store, Trouble::Reset), 2),
        (Self::Network(Server::Store, Trouble::Refuse), 5),
    ];
}

/// The faults of a run in the order of their times: each kind once if there are enough, then by weight, spread over `duration`.
/// They overlap where one lasts longer than the time to the next.
pub fn schedule(seed: u64, faults: usize, duration: Duration) -> Vec<Scheduled> {
    let mut dice = Dice::new(seed, STREAM);
    let mut kinds = kinds(faults);
    dice.shuffle(&mut kinds);
    let slot = duration / faults.max(1) as u32;
    let scheduled = (0..).zip(kinds).map(|(place, kind)| {
        let at = slot * place + dice.time(Duration::ZERO, slot);
        Scheduled { at, fault: fault(kind, &mut dice) }
    });
    scheduled.collect()
}

/// So many kinds, each as often as its weight says.
fn kinds(count: usize) -> Vec<Kind> {
    let mut thrown = [0_usize; Kind::WEIGHTED.len()];
    let mut kinds = Vec::new();
    while kinds.len() < count {
        // Whose next one is the least too many; fractions compared by their cross products.
        let (place, (kind, _)) = Kind::WEIGHTED
            .into_iter()
            .enumerate()
            .min_by(|(left, (_, of_left)), (right, (_, of_right))| (thrown[*left] * of_right).cmp(&(thrown[*right] * of_left)))
            .expect("there are kinds");
        thrown[place] += 1;
        kinds.push(kind);
    }
    kinds
}

fn fault(kind: Kind, dice: &mut Dice) -> Fault {
    let seconds = Duration::from_secs_f64;
    match kind {
        Kind::KillWorker => Fault::KillWorker { worker: dice.below(WORKERS), down: dice.time(seconds(0.0), seconds(3.0)) },
        Kind::KillDispatcher => {
            Fault::KillDispatcher { dispatcher: dice.below(DISPATCHERS), down: dice.time(seconds(0.0), seconds(3.0)) }
        }
        Kind::PauseWorker => {
            let pause = LEASE + dice.time(seconds(0.5), seconds(4.0));
            Fault::PauseWorker { worker: dice.below(WORKERS), pause }
        }
        Kind::KillBroker => Fault::KillBroker { down: dice.time(seconds(0.0), seconds(2.0)) },
        Kind::RestartBroker => Fault::RestartBroker,
        Kind::PurgeQueue => Fault::PurgeQueue,
        Kind::CloseConnections => Fault::CloseConnections,
        Kind::StopPostgres => Fault::StopPostgres { down: dice.time(seconds(0.0), seconds(3.0)) },
        Kind::TerminateBackends => Fault::TerminateBackends,
        Kind::Network(server, trouble) => network(server, trouble, dice),
    }
}

fn network(server: Server, trouble: Trouble, dice: &mut Dice) -> Fault {
    let seconds = Duration::from_secs_f64;
    let programs = match (server, dice.below(4)) {
        // Dispatchers have nothing in the store.
        (_, 0) | (Server::Store, 1) => Programs::Workers,
        (Server::Postgres | Server::Broker, 1) => Programs::Dispatchers,
        (Server::Postgres | Server::Broker, 2) if trouble != Trouble::Stall => Programs::Dispatcher(dice.below(DISPATCHERS)),
        _ => Programs::Worker(dice.below(WORKERS)),
    };
    let lasts = match (server, trouble, programs) {
        (_, Trouble::Reset, _) => Duration::ZERO,
        // A word held up for longer than the lease comes when another has the job.
        (Server::Postgres, Trouble::Stall, Programs::Worker(_)) => LEASE + dice.time(seconds(0.5), seconds(4.0)),
        _ => dice.time(seconds(0.5), seconds(5.0)),
    };
    Fault::Network { programs, server, trouble, lasts }
}

impl Fault {
    /// What it is counted by.
    pub fn kind(self) -> Kind {
        match self {
            Self::KillWorker { .. } => Kind::KillWorker,
            Self::KillDispatcher { .. } => Kind::KillDispatcher,
            Self::PauseWorker { .. } => Kind::PauseWorker,
            Self::KillBroker { .. } => Kind::KillBroker,
            Self::RestartBroker => Kind::RestartBroker,
            Self::PurgeQueue => Kind::PurgeQueue,
            Self::CloseConnections => Kind::CloseConnections,
            Self::StopPostgres { .. } => Kind::StopPostgres,
            Self::TerminateBackends => Kind::TerminateBackends,
            Self::Network { server, trouble, .. } => Kind::Network(server, trouble),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, trouble) = match self {
            Self::KillWorker => return formatter.write_str("kill -9 of a worker"),
            Self::KillDispatcher => return formatter.write_str("kill -9 of a dispatcher"),
            Self::PauseWorker => return formatter.write_str("worker stopped for longer than its lease"),
            Self::KillBroker => return formatter.write_str("kill -9 of RabbitMQ"),
            Self::RestartBroker => return formatter.write_str("restart of RabbitMQ"),
            Self::PurgeQueue => return formatter.write_str("purge of the queue"),
            Self::CloseConnections => return formatter.write_str("all connections of RabbitMQ closed"),
            Self::StopPostgres => return formatter.write_str("immediate stop of Postgres"),
            Self::TerminateBackends => return formatter.write_str("all backends of Postgres terminated"),
            Self::Network(server, trouble) => (server, trouble),
        };
        let server = match server {
            Server::Postgres => "Postgres",
            Server::Broker => "RabbitMQ",
            Server::Store => "S3",
        };
        let trouble = match trouble {
            Trouble::Cut => "cut",
            Trouble::Stall => "stalled",
            Trouble::StallAnswers => "answers stalled",
            Trouble::Reset => "connections reset",
            Trouble::Refuse => "answers 503",
        };
        write!(formatter, "{server}: {trouble}")
    }
}

impl fmt::Display for Scheduled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:8.3} s  {}", self.at.as_secs_f64(), self.fault.kind())?;
        let seconds = |time: Duration| time.as_secs_f64();
        match self.fault {
            Fault::KillWorker { worker, down } => write!(formatter, ", worker {worker}, back after {:.3} s", seconds(down)),
            Fault::KillDispatcher { dispatcher, down } => {
                write!(formatter, ", dispatcher {dispatcher}, back after {:.3} s", seconds(down))
            }
            Fault::PauseWorker { worker, pause } => write!(formatter, ", worker {worker}, for {:.3} s", seconds(pause)),
            Fault::KillBroker { down } | Fault::StopPostgres { down } => {
                write!(formatter, ", back after {:.3} s", seconds(down))
            }
            Fault::Network { programs, lasts, .. } => {
                match programs {
                    Programs::Dispatchers => formatter.write_str(", of all dispatchers")?,
                    Programs::Workers => formatter.write_str(", of all workers")?,
                    Programs::Dispatcher(dispatcher) => write!(formatter, ", of dispatcher {dispatcher}")?,
                    Programs::Worker(worker) => write!(formatter, ", of worker {worker}")?,
                }
                if lasts.is_zero() { Ok(()) } else { write!(formatter, ", for {:.3} s", seconds(lasts)) }
            }
            Fault::RestartBroker | Fault::PurgeQueue | Fault::CloseConnections | Fault::TerminateBackends => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_mins(10);

    #[test]
    fn the_same_seed_throws_the_same_faults_and_another_one_others() {
        assert_eq!(schedule(7, 200, DURATION), schedule(7, 200, DURATION));
        assert_ne!(schedule(7, 200, DURATION), schedule(8, 200, DURATION));
    }

    #[test]
    fn every_kind_is_thrown_in_order_of_time_and_within_it() {
        for (faults, least) in [(22, 1), (200, 4)] {
            let schedule = schedule(1, faults, DURATION);
            assert_eq!(schedule.len(), faults);
            assert!(schedule.is_sorted_by_key(|scheduled| scheduled.at));
            assert!(schedule.iter().all(|scheduled| scheduled.at <= DURATION));
            for (kind, _) in Kind::WEIGHTED {
                let thrown = schedule.iter().filter(|scheduled| scheduled.fault.kind() == kind).count();
                assert!(thrown >= least, "{kind}: {thrown} of {faults}");
            }
        }
    }

    #[test]
    fn a_worker_is_stopped_for_longer_than_its_lease() {
        let pauses = schedule(1, 200, DURATION).into_iter().filter_map(|scheduled| match scheduled.fault {
            Fault::PauseWorker { pause, .. } => Some(pause),
            _ => None,
        });
        assert!(pauses.map(|pause| assert!(pause > LEASE)).count() > 10);
    }

    #[test]
    fn a_line_says_all_of_a_fault() {
        let fault = Fault::Network { programs: Programs::Worker(2), server: Server::Store, trouble: Trouble::Cut, lasts: LEASE };
        let line = Scheduled { at: Duration::from_millis(1_500), fault }.to_string();
        assert_eq!(line, "   1.500 s  S3: cut, of worker 2, for 4.000 s");
    }
}
