use std::{fs, io, path::Path, path::PathBuf};

/// How much of a server's log an error shows.
const LOG_TAIL_LINES: usize = 15;

/// Why a private server is not there. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A program is not installed.
    #[error("{program} was not found; install it: sudo apt-get install {package}")]
    Missing {
        /// The program looked for.
        program: &'static str,
        /// The Debian and Ubuntu package that has it.
        package: &'static str,
    },
    /// One of dotmask's own programs is not where this one is.
    #[error("{program} is not built; build it: cargo build --workspace")]
    NotBuilt {
        /// The program looked for.
        program: &'static str,
    },
    /// A program ended that nobody had asked to.
    #[error("{program} ended with {status}; its log {} ends:\n{tail}", log.display())]
    Ended {
        /// Which program.
        program: &'static str,
        /// Its exit status or the signal that ended it.
        status: String,
        /// Where the whole log is.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server ended, or was not ready in time.
    #[error("{server} did not start: {reason}; its log {} ends:\n{tail}", log.display())]
    DidNotStart {
        /// Which server.
        server: &'static str,
        /// What was seen from outside.
        reason: String,
        /// Where the whole log is.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server had to be killed because it did not stop when asked.
    #[error("{server} did not stop within {seconds} s and was killed; see its log {}", log.display())]
    DidNotStop {
        /// Which server.
        server: &'static str,
        /// How long it was given.
        seconds: u64,
        /// Where the whole log is.
        log: PathBuf,
    },
    /// Started by root, the server runs as another user, who can't reach its folder.
    #[error("the user {user} cannot enter {}, so PostgreSQL cannot run below it; choose a folder that everyone may enter, such as one below /var/tmp, or run this as a user other than root", folder.display())]
    Unreachable {
        /// The user the server runs as.
        user: &'static str,
        /// The first folder on the way that is closed.
        folder: PathBuf,
    },
    /// A file or folder could not be made, read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Postgres runs, and a database could not be made in it.
    #[error("cannot create the database {database}: {source}")]
    Database {
        /// The database's name.
        database: String,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// Postgres did not end its clients' connections.
    #[error("cannot end the connections to Postgres: {source}")]
    Terminate {
        /// Why it failed.
        source: sqlx::Error,
    },
    /// The broker's own tool failed.
    #[error("rabbitmqctl {command} failed: {reason}")]
    Control {
        /// What it was told to do.
        command: String,
        /// What it wrote.
        reason: String,
    },
}

impl ServerError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn did_not_start(server: &'static str, reason: impl Into<String>, log: &Path) -> Self {
        Self::DidNotStart { server, reason: reason.into(), log: log.to_owned(), tail: tail(log) }
    }

    pub(crate) fn ended(program: &'static str, status: &impl ToString, log: &Path) -> Self {
        Self::Ended { program, status: status.to_string(), log: log.to_owned(), tail: tail(log) }
    }

    /// Whether another process took the port between choosing and using it.
    pub(crate) fn is_port_taken(&self) -> bool {
        let Self::DidNotStart { tail, .. } = self else { return false };
        ["Address already in use", "address already in use", "eaddrinuse", "already a epmd running"]
            .iter()
            .any(|words| tail.contains(words))
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
