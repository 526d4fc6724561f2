use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};
use sqlx::{Connection as _, PgConnection, migrate::MigrateDatabase as _};

use crate::{
    Certificate, ServerError,
    ports::free_ports,
    process::Process,
    secret::{kept_secret, write_secret},
};

const SERVER: &str = "PostgreSQL";
const ROLE: &str = "dotmask";
const DATABASE: &str = "dotmask";
/// What dotmask's programs call themselves.
const APPLICATION: &str = "dotmask";
/// Who runs it when we are root, which Postgres refuses to run as.
const SYSTEM_USER: &str = "postgres";

const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const START_ATTEMPTS: u32 = 5;

/// A private Postgres on a free port of the loopback interface, with its data in a folder of its own. Durable as in
/// production: fsync is on.
pub struct Postgres {
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
    password: String,
    settings: Vec<String>,
    process: Option<Process>,
}

impl Postgres {
    /// Starts Postgres in `dir`, which is made if need be. Data from an earlier run in the same folder is kept.
    pub async fn start(dir: &Path) -> Result<Self, ServerError> {
        Self::start_with(dir, None).await
    }

    /// The same with TLS, for who asks for it.
    pub async fn start_encrypted(dir: &Path, certificate: &Certificate) -> Result<Self, ServerError> {
        Self::start_with(dir, Some(certificate)).await
    }

    async fn start_with(dir: &Path, certificate: Option<&Certificate>) -> Result<Self, ServerError> {
        let bin = find_programs()?;
        fs::create_dir_all(dir).map_err(ServerError::file("create", dir))?;
        let dir = dir.canonicalize().map_err(ServerError::file("find", dir))?;
        let password_file = dir.join("password");
        let password = kept_secret(&password_file)?;
        let mut handed_over = vec![dir.clone(), password_file];
        let mut settings = vec!["max_connections=200".to_owned()];
        if let Some(Certificate { certificate, key }) = certificate {
            settings.push("ssl=on".into());
            for (setting, name, text) in [("ssl_cert_file", "server.crt", certificate), ("ssl_key_file", "server.key", key)] {
                let path = dir.join(name);
                write_secret(&path, text)?;
                settings.push(format!("{setting}={}", path.display()));
                handed_over.push(path);
            }
        }
        if geteuid().is_root() {
            let user = User::from_name(SYSTEM_USER).ok().flatten();
            let user = user.ok_or(ServerError::Missing { program: "the user postgres", package: "postgresql" })?;
            for path in &handed_over {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(ServerError::file("hand over", path))?;
            }
            check_way(&dir, user.uid.as_raw())?;
        }
        let mut postgres = Self { dir, bin, port: 0, password, settings, process: None };
        postgres.initialise().await?;
        let mut attempt = 1;
        loop {
            [postgres.port] = free_ports();
            match postgres.run().await {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                outcome => break outcome?,
            }
        }
        postgres.create_database(DATABASE).await?;
        Ok(postgres)
    }

    /// Where clients connect: the database `dotmask`, with the password.
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// Where clients connect by TLS.
    pub fn tls_url(&self) -> String {
        self.tls_url_via(self.address())
    }

    /// The same through a proxy at that address.
    pub fn tls_url_via(&self, address: SocketAddr) -> String {
        self.url_via(address).replace("sslmode=disable", "sslmode=verify-full")
    }

    /// Where clients connect to another database of this server.
    pub fn url_of(&self, database: &str) -> String {
        self.url_at(self.address(), database)
    }

    /// Where clients connect to the database `dotmask` through a proxy at that address.
    pub fn url_via(&self, address: SocketAddr) -> String {
        self.url_at(address, DATABASE)
    }

    fn url_at(&self, address: SocketAddr, database: &str) -> String {
        format!("postgres://{ROLE}:{}@{address}/{database}?sslmode=disable", self.password)
    }

    /// Where it listens; the same over restarts.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port on the loopback interface; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Makes an empty database, unless it is there already, and says its URL.
    pub async fn create_database(&self, database: &str) -> Result<String, ServerError> {
        let url = self.url_of(database);
        let create = async {
            if !sqlx::Postgres::database_exists(&url).await? {
                sqlx::Postgres::create_database(&url).await?;
            }
            Ok(())
        };
        create.await.map_err(|source| ServerError::Database { database: database.into(), source })?;
        Ok(url)
    }

    /// Stops the server as an administrator would, ending open connections.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        match self.process.take() {
            Some(process) => process.stop(Signal::SIGINT, STOP_LIMIT).await,
            None => Ok(()),
        }
    }

    /// Stops the server at once, with no word to its clients and no checkpoint: it recovers at the next start.
    pub async fn stop_immediately(&mut self) -> Result<(), ServerError> {
        match self.process.take() {
            Some(process) => process.stop(Signal::SIGQUIT, STOP_LIMIT).await,
            None => Ok(()),
        }
    }

    /// Ends every connection to the database `dotmask` that calls itself `dotmask`, as an administrator or a failover would,
    /// and says how many they were.
    pub async fn terminate_backends(&self) -> Result<i64, ServerError> {
        let terminate = async {
            let mut administrator = PgConnection::connect(&self.url_of("postgres")).await?;
            let terminated = sqlx::query_scalar(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = $1 AND application_name = $2",
            );
            terminated.bind(DATABASE).bind(APPLICATION).fetch_one(&mut administrator).await
        };
        terminate.await.map_err(|source| ServerError::Terminate { source })
    }

    /// Kills the server and its backends with SIGKILL, as a crash would.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// A setting of the server from its next start on, as `postgres -c` takes it: `name=value`.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.into());
    }

    /// Starts the server again on the same data and port, after stopping it if it runs.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.stop().await?;
        self.run().await
    }

    async fn initialise(&self) -> Result<(), ServerError> {
        let data = self.dir.join("data");
        if data.join("PG_VERSION").exists() {
            return Ok(());
        }
        // Made beside and renamed when whole: an interrupted initdb leaves nothing that looks like a cluster.
        let unfinished = self.dir.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(ServerError::file("remove", &unfinished))?;
        }
        self.spawn("initdb", |command| {
            command.arg("--pgdata").arg(&unfinished).arg("--pwfile").arg(self.dir.join("password"));
            command.args(["--username", ROLE, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"]);
        })?
        .wait()
        .await?;
        fs::rename(&unfinished, &data).map_err(ServerError::file("rename", &unfinished))
    }

    async fn run(&mut self) -> Result<(), ServerError> {
        let mut process = self.spawn("postgres", |command| {
            command.arg("-D").arg(self.dir.join("data")).args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
            command.args(["-c", "unix_socket_directories="]);
            for setting in &self.settings {
                command.args(["-c", setting]);
            }
        })?;
        let url = self.url_of("postgres");
        process.wait_until_ready(START_LIMIT, async || PgConnection::connect(&url).await.is_ok()).await?;
        self.process = Some(process);
        Ok(())
    }

    fn spawn(&self, program: &str, arrange: impl FnOnce(&mut std::process::Command)) -> Result<Process, ServerError> {
        let user = geteuid().is_root().then_some(SYSTEM_USER);
        let log = self.dir.join("postgres.log");
        // SIGQUIT makes Postgres end at once, with its backends, and recover at the next start.
        Process::spawn(SERVER, &self.bin.join(program), user, Signal::SIGQUIT, &log, |command| {
            command.current_dir(&self.dir).env("LC_ALL", "C");
            arrange(command);
        })
    }
}

/// The folder of the newest installed server programs; they are not on the PATH in Debian and Ubuntu.
fn find_programs() -> Result<PathBuf, ServerError> {
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut packaged: Vec<(u32, PathBuf)> =
        packaged.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))).collect();
    packaged.sort_by(|left, right| right.cmp(left));
    let search_path = env::var_os("PATH").unwrap_or_default();
    packaged
        .into_iter()
        .map(|(_, bin)| bin)
        .chain(env::split_paths(&search_path))
        .find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .ok_or(ServerError::Missing { program: "PostgreSQL (initdb)", package: "postgresql" })
}

/// Opens `dir`'s parent if it is a private folder of ours, as a temporary folder is, and makes sure that the user who runs
/// Postgres can enter every folder on the way.
fn check_way(dir: &Path, uid: u32) -> Result<(), ServerError> {
    const OTHERS_ENTER: u32 = 0o001;
    for (distance, folder) in dir.ancestors().skip(1).enumerate() {
        let metadata = fs::metadata(folder).map_err(ServerError::file("look at", folder))?;
        if metadata.mode() & OTHERS_ENTER != 0 || metadata.uid() == uid {
            continue;
        }
        if distance > 0 {
            return Err(ServerError::Unreachable { user: SYSTEM_USER, folder: folder.to_owned() });
        }
        let opened = fs::Permissions::from_mode(metadata.mode() | OTHERS_ENTER);
        fs::set_permissions(folder, opened).map_err(ServerError::file("open", folder))?;
    }
    Ok(())
}
