use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, anyhow};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

/// How long a program may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(15);
const LOG_LINES: usize = 10;

/// dotmask's own long-running programs, each with a log file. They end with this one however it ends.
#[derive(Default)]
pub struct Processes(Vec<Process>);

struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Processes {
    /// Starts `name`, the program that was built beside this one, with its output in `logs`.
    ///
    /// To be called on the program's first thread: the kernel sends the signal of a parent's death when the thread that started a
    /// process ends, and the runtime's other threads come and go.
    pub fn start(
        &mut self,
        name: &'static str,
        arguments: &[&str],
        environment: &[(String, String)],
        logs: &Path,
    ) -> anyhow::Result<()> {
        let log = logs.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program(name)?).args(arguments);
        in_environment(&mut command, environment);
        // A group of its own, out of the terminal's reach: at Ctrl-C this program ends the others, in order.
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {name}: setpriv, of util-linux, is needed"))?;
        self.0.push(Process { name, child, log });
        Ok(())
    }

    /// Waits until one of them ends, which none should.
    pub async fn first_to_end(&mut self) -> anyhow::Error {
        loop {
            for process in &mut self.0 {
                match process.child.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) => return process.describe_end(status),
                    Err(error) => return anyhow!("cannot wait for {}: {error}", process.name),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops all, the last started first.
    pub async fn stop(&mut self) {
        while let Some(mut process) = self.0.pop() {
            if let Some(pid) = process.child.id() {
                // A failure means that it has ended already.
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
            }
            if tokio::time::timeout(PATIENCE, process.child.wait()).await.is_err() {
                eprintln!("demo: {} did not stop and is killed", process.name);
                let _ = process.child.kill().await;
            }
        }
    }
}

impl Process {
    fn describe_end(&self, status: ExitStatus) -> anyhow::Error {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  | ");
        anyhow!("{} ended with {status}; the end of {}:\n  | {last}", self.name, self.log.display())
    }
}

/// A program that was built beside this one.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(anyhow!("{} is not there; build it: cargo build -p {name}", path.display())) }
}

/// Gives the program these settings and keeps away from it what was meant for another dotmask, or for another object store.
pub fn in_environment(command: &mut Command, environment: &[(String, String)]) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("DOTMASK_") || name.starts_with("AWS_")) {
            command.env_remove(name);
        }
    }
    // All it talks to is on this machine.
    command.env("NO_PROXY", "127.0.0.1").envs(environment.iter().map(|(name, value)| (name, value)));
}
