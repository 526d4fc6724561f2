use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{ServerError, process::Process};

/// How long a program may take to end after SIGTERM: longer than it promises.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// One of dotmask's own programs, run as the servers are: its output in a log, and gone when this program is, however that ends.
pub struct Program(Process);

impl Program {
    /// Starts `name`, which was built into the same target folder as this program, with its output appended to `log`.
    pub fn start(
        name: &'static str,
        arguments: &[&str],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Self, ServerError> {
        Self::start_file(name, &Self::path(name)?, arguments, environment, log)
    }

    /// The same of the program in that file, from another version of dotmask.
    pub fn start_file(
        name: &'static str,
        file: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Self, ServerError> {
        let process = Process::spawn(name, file, None, Signal::SIGTERM, log, |command| {
            command.args(arguments);
            clean_environment(command, environment);
        })?;
        Ok(Self(process))
    }

    /// How to run `name` as a client that ends by itself, and with this program if need be. To be run on the program's first thread:
    /// the kernel takes the end of the thread that started a process for its parent's.
    pub fn client(name: &'static str, environment: &[(String, String)]) -> Result<Command, ServerError> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(Self::path(name)?).stdin(Stdio::null());
        clean_environment(&mut command, environment);
        Ok(command)
    }

    /// Where the program is that was built into the same target folder as this one.
    pub fn path(name: &'static str) -> Result<PathBuf, ServerError> {
        let this = env::current_exe().map_err(ServerError::file("find", Path::new("this program")))?;
        // Tests are one folder further down, in deps.
        let folders = this.ancestors().skip(1).take(2);
        let place = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
        place.ok_or(ServerError::NotBuilt { program: name })
    }

    /// Waits until it says at `address` that it is ready; an error, with the end of its log, if it ends before.
    pub async fn wait_until_ready(&mut self, address: &str, limit: Duration) -> Result<(), ServerError> {
        self.0.wait_until_ready(limit, async || answers_ok(address, "/readyz").await.unwrap_or(false)).await
    }

    /// Waits for its end, which nobody asked for; the error shows the end of its log.
    pub async fn unexpected_end(&mut self) -> ServerError {
        self.0.unexpected_end().await
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.0.stop(Signal::SIGTERM, STOP_LIMIT).await
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// SIGSTOP: it does nothing more, and its connections stay open.
    pub fn pause(&self) {
        self.0.signal(Signal::SIGSTOP);
    }

    /// SIGCONT: it goes on as if no time had passed.
    pub fn resume(&self) {
        self.0.signal(Signal::SIGCONT);
    }

    /// kill -9.
    pub fn kill(self) {
        self.0.kill();
    }
}

/// Gives a command these settings, and keeps away from it what was meant for another dotmask, another object store or another trace.
fn clean_environment(command: &mut Command, environment: &[(String, String)]) {
    for (name, _) in env::vars_os() {
        let is_setting = |name: &str| ["DOTMASK_", "AWS_", "OTEL_", "TRACEPARENT"].iter().any(|prefix| name.starts_with(prefix));
        if name.to_str().is_some_and(is_setting) {
            command.env_remove(name);
        }
    }
    // All it talks to is on this machine.
    command.env("NO_PROXY", "127.0.0.1").envs(environment.iter().map(|(name, value)| (name, value)));
}

/// Whether an HTTP server answers with 200.
pub(crate) async fn answers_ok(address: &str, path: &str) -> io::Result<bool> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
}
