use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::ServerError;

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(20);

/// One server's process. Dropping it ends the process and everything it started.
pub(crate) struct Process {
    server: &'static str,
    child: Child,
    log: PathBuf,
    /// What asks this server to end at once and leave nothing behind; whoever is still there soon after is killed.
    quit: Signal,
}

impl Process {
    /// Starts `program` with its output appended to `log`. It gets `quit` when this process ends in whatever way.
    pub(crate) fn spawn(
        server: &'static str,
        program: &Path,
        user: Option<&str>,
        quit: Signal,
        log: &Path,
        arrange: impl FnOnce(&mut Command),
    ) -> Result<Self, ServerError> {
        let output = OpenOptions::new().create(true).append(true).open(log).map_err(ServerError::file("open", log))?;
        let errors = output.try_clone().map_err(ServerError::file("open", log))?;
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(quit.as_str().trim_start_matches("SIG"));
        if let Some(user) = user {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.arg("--").arg(program);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // A group of its own, out of the terminal's reach: at Ctrl-C whoever started it ends it, in order.
        command.process_group(0);
        arrange(&mut command);
        let child = spawn_on_lasting_thread(command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ServerError::Missing { program: "setpriv", package: "util-linux" },
            _ => ServerError::File { action: "run", path: program.to_owned(), source: error },
        })?;
        Ok(Self { server, child, log: log.to_owned(), quit })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready`, or for the reason why it never will be.
    pub(crate) async fn wait_until_ready(&mut self, limit: Duration, ready: impl AsyncFn() -> bool) -> Result<(), ServerError> {
        let deadline = Instant::now() + limit;
        loop {
            if tokio::time::timeout(Duration::from_secs(5), ready()).await == Ok(true) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(ServerError::did_not_start(self.server, format!("it ended with {status}"), &self.log));
            }
            if Instant::now() > deadline {
                let reason = format!("it was not ready after {} s", limit.as_secs());
                return Err(ServerError::did_not_start(self.server, reason, &self.log));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for an end that nobody asked for.
    pub(crate) async fn unexpected_end(&mut self) -> ServerError {
        loop {
            match self.child.try_wait() {
                Ok(None) => tokio::time::sleep(POLL).await,
                Ok(Some(status)) => return ServerError::ended(self.server, &status, &self.log),
                Err(error) => return ServerError::ended(self.server, &error, &self.log),
            }
        }
    }

    /// Asks the process to end and waits for it; kills it when it does not.
    pub(crate) async fn stop(mut self, signal: Signal, limit: Duration) -> Result<(), ServerError> {
        self.signal(signal);
        let deadline = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() > deadline {
                return Err(ServerError::DidNotStop { server: self.server, seconds: limit.as_secs(), log: self.log.clone() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits for a program that ends by itself.
    pub(crate) async fn wait(mut self) -> Result<(), ServerError> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(ServerError::did_not_start(self.server, format!("it ended with {status}"), &self.log));
                }
                Ok(None) => tokio::time::sleep(POLL).await,
                Err(error) => return Err(ServerError::did_not_start(self.server, error.to_string(), &self.log)),
            }
        }
    }

    /// Kills the process and all it started with SIGKILL, as a crash of the machine would, and waits until they are gone.
    pub(crate) fn kill(mut self) {
        self.kill_all();
    }

    fn kill_all(&mut self) {
        let family = descendants(self.pid());
        // A failure means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in &family {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        // They are no children of ours, so somebody else reaps them: their pids vanish soon, and nothing more can be done.
        wait_briefly(|| !family.iter().any(|pid| is_alive(*pid)));
    }

    /// Sends a signal to the process itself; one that has ended does not mind.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid() as i32), signal);
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        if self.quit != Signal::SIGKILL {
            self.signal(self.quit);
            wait_briefly(|| !self.is_running());
        }
        self.kill_all();
    }
}

/// Waits up to 3 s, for `Drop` and other places that can't be async.
fn wait_briefly(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(3);
    while !done() && Instant::now() < deadline {
        thread::sleep(POLL);
    }
}

/// Starts a process from a thread that lives as long as this program: "parent death" signals are sent when the *thread* that
/// forked ends, and a thread of an async runtime's pool may end long before the program.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Nobody gives up waiting for the reply.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    SPAWNER.send((command, reply)).expect("the spawning thread never ends");
    answer.recv().expect("the spawning thread answers every order")
}

/// Children, their children, and so on.
fn descendants(pid: u32) -> Vec<Pid> {
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?.parent))
        })
        .collect();
    let mut family = vec![pid as i32];
    let mut seen = 0;
    while seen < family.len() {
        let parent = family[seen];
        family.extend(parents.iter().filter(|(_, its_parent)| *its_parent == parent).map(|(pid, _)| *pid));
        seen += 1;
    }
    family[1..].iter().copied().map(Pid::from_raw).collect()
}

struct Stat {
    parent: i32,
    state: char,
}

/// The state and parent in /proc/PID/stat: "pid (name) state ppid ...", where the name may hold spaces and brackets.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}

fn is_alive(pid: Pid) -> bool {
    stat(pid.as_raw()).is_some_and(|stat| stat.state != 'Z')
}
