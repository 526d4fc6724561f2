use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{ServerError, process::Process};

/// How long a program may take to end after SIGTERM: longer than it promises.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// One of dotmask's own programs, run as the servers are: its output in a log, and gone when this program is, however that ends.
pub struct Program(Process);

impl Program {
    /// Starts `name`, which was built into the same target folder as this program.
    pub fn start(
        name: &'static str,
        arguments: &[&str],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Self, ServerError> {
        let process = Process::spawn(name, &Self::path(name)?, None, Signal::SIGTERM, log, |command| {
            command.args(arguments);
            Self::in_environment(command, environment);
        })?;
        Ok(Self(process))
    }

    /// Where the program is.
    pub fn path(name: &'static str) -> Result<PathBuf, ServerError> {
        let this = env::current_exe().map_err(ServerError::file("find", Path::new("this program")))?;
        // Tests are one folder further down, in deps.
        let folders = this.ancestors().skip(1).take(2);
        let place = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
        place.ok_or(ServerError::NotBuilt { program: name })
    }

    /// Gives a command these settings, and keeps away from it what was meant for another dotmask or another object store.
    pub fn in_environment(command: &mut Command, environment: &[(String, String)]) {
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DOTMASK_") || name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        // All it talks to is on this machine.
        command.env("NO_PROXY", "127.0.0.1").envs(environment.iter().map(|(name, value)| (name, value)));
    }

    /// Waits until `ready`; an error, with the end of its log, if it ends before.
    pub async fn wait_until_ready(&mut self, limit: Duration, ready: impl AsyncFn() -> bool) -> Result<(), ServerError> {
        self.0.wait_until_ready(limit, ready).await
    }

    /// Waits for its end, which nobody asked for; the error shows the end of its log.
    pub async fn unexpected_end(&mut self) -> ServerError {
        self.0.unexpected_end().await
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.0.stop(Signal::SIGTERM, STOP_LIMIT).await
    }

    /// kill -9.
    pub fn kill(self) {
        self.0.kill();
    }
}
