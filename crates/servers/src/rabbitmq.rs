use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Certificate, ServerError,
    ports::free_ports,
    process::Process,
    secret::{kept_secret, write_secret},
};

const SERVER: &str = "RabbitMQ";
const USER: &str = "dotmask";
/// The node's name is in its data, so it never changes; nodes of the same name on one machine are told apart by their
/// registrars.
const NODE: &str = "dotmask@localhost";

const START_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const START_ATTEMPTS: u32 = 5;
/// The tool starts an Erlang machine of its own.
const CONTROL_LIMIT: Duration = Duration::from_mins(1);

/// A private `RabbitMQ` without plugins on a free port of the loopback interface, with its data in a folder of its own and a
/// registrar (epmd) of its own.
pub struct RabbitMq {
    dir: PathBuf,
    script: PathBuf,
    ports: Ports,
    password: String,
    is_encrypted: bool,
    // Ended before the registrar, which it reports to.
    node: Option<Process>,
    registrar: Option<Process>,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    /// Of AMQP by TLS.
    amqps: u16,
    distribution: u16,
    registrar: u16,
}

impl RabbitMq {
    /// Starts `RabbitMQ` in `dir`, which is made if need be. Data from an earlier run in the same folder is kept.
    pub async fn start(dir: &Path) -> Result<Self, ServerError> {
        Self::start_with(dir, None).await
    }

    /// The same with TLS on a port of its own.
    pub async fn start_encrypted(dir: &Path, certificate: &Certificate) -> Result<Self, ServerError> {
        Self::start_with(dir, Some(certificate)).await
    }

    async fn start_with(dir: &Path, certificate: Option<&Certificate>) -> Result<Self, ServerError> {
        let script = find_script()?;
        fs::create_dir_all(dir).map_err(ServerError::file("create", dir))?;
        let dir = dir.canonicalize().map_err(ServerError::file("find", dir))?;
        let password = kept_secret(&dir.join("password"))?;
        if let Some(Certificate { certificate, key }) = certificate {
            write_secret(&dir.join("server.crt"), certificate)?;
            write_secret(&dir.join("server.key"), key)?;
        }
        let mut attempt = 1;
        loop {
            let [amqp, amqps, distribution, registrar] = free_ports();
            let mut rabbitmq = Self {
                dir: dir.clone(),
                script: script.clone(),
                ports: Ports { amqp, amqps, distribution, registrar },
                password: password.clone(),
                is_encrypted: certificate.is_some(),
                node: None,
                registrar: None,
            };
            match rabbitmq.run().await {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                outcome => return outcome.map(|()| rabbitmq),
            }
        }
    }

    /// Where clients connect: the virtual host `/`, with the password.
    pub fn url(&self) -> String {
        self.url_via(self.address())
    }

    /// The same through a proxy at that address.
    pub fn url_via(&self, address: SocketAddr) -> String {
        format!("amqp://{USER}:{}@{address}/%2f", self.password)
    }

    /// Where clients connect by TLS.
    pub fn tls_url(&self) -> String {
        self.tls_url_via(self.tls_address())
    }

    /// The same through a proxy at that address.
    pub fn tls_url_via(&self, address: SocketAddr) -> String {
        self.url_via(address).replace("amqp://", "amqps://")
    }

    /// Where it listens for TLS; the same over restarts.
    pub fn tls_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqps))
    }

    /// Where it listens; the same over restarts.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqp))
    }

    /// The port on the loopback interface; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// The processes, if they run: the node and its registrar.
    pub fn pids(&self) -> Vec<u32> {
        [&self.node, &self.registrar].into_iter().flatten().map(Process::pid).collect()
    }

    /// Stops the server as an administrator would.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        let stopped = match self.node.take() {
            Some(node) => node.stop(Signal::SIGTERM, STOP_LIMIT).await,
            None => Ok(()),
        };
        self.registrar = None;
        stopped
    }

    /// Kills the server with SIGKILL, as a crash would.
    pub fn kill(&mut self) {
        if let Some(node) = self.node.take() {
            node.kill();
        }
        self.registrar = None;
    }

    /// Starts the server again on the same data and port, after stopping it if it runs.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.stop().await?;
        self.run().await
    }

    /// Ends every client's connection, as an administrator would.
    pub async fn close_all_connections(&self) -> Result<(), ServerError> {
        self.control(&["close_all_connections", "closed by an administrator"]).await.map(drop)
    }

    /// Raises the server's memory alarm, or ends it: meanwhile it blocks the connections of publishers.
    pub async fn set_memory_alarm(&self, is_short: bool) -> Result<(), ServerError> {
        let change = if is_short {
            "set_alarm({{resource_limit, memory, node()}, []})"
        } else {
            "clear_alarm({resource_limit, memory, node()})"
        };
        // Asking for the alarms waits until the change is made.
        let expression = format!("rabbit_alarm:{change}, rabbit_alarm:get_alarms().");
        self.control(&["eval", &expression]).await.map(drop)
    }

    /// Runs `rabbitmqctl` and says what it wrote.
    pub async fn control(&self, arguments: &[&str]) -> Result<String, ServerError> {
        let mut command = Command::new(self.script.with_file_name("rabbitmqctl"));
        self.set_environment(&mut command);
        command.args(["--quiet", "--node", NODE]).args(arguments).stdin(Stdio::null());
        let failed = |reason| ServerError::Control { command: arguments.join(" "), reason };
        let mut command = tokio::process::Command::from(command);
        let output = tokio::time::timeout(CONTROL_LIMIT, command.kill_on_drop(true).output()).await;
        let output = output.map_err(|_| failed(format!("it took more than {} s", CONTROL_LIMIT.as_secs())))?;
        let output = output.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let text = [output.stdout, output.stderr].concat();
            Err(failed(String::from_utf8_lossy(&text).into_owned()))
        }
    }

    async fn run(&mut self) -> Result<(), ServerError> {
        self.configure()?;
        // Started here, in the foreground, or the node would start one that outlives it.
        let log = self.dir.join("epmd.log");
        let mut registrar = Process::spawn("epmd", Path::new("epmd"), None, Signal::SIGKILL, &log, |command| {
            command.args(["-address", "127.0.0.1", "-port", &self.ports.registrar.to_string()]);
        })?;
        let address = ("127.0.0.1", self.ports.registrar);
        registrar.wait_until_ready(START_LIMIT, async || TcpStream::connect(address).await.is_ok()).await?;
        let log = self.dir.join("rabbitmq.log");
        let mut node =
            Process::spawn(SERVER, &self.script, None, Signal::SIGKILL, &log, |command| self.set_environment(command))?;
        node.wait_until_ready(START_LIMIT, async || self.can_log_in().await.is_ok_and(|welcome| welcome)).await?;
        (self.node, self.registrar) = (Some(node), Some(registrar));
        Ok(())
    }

    fn configure(&self) -> Result<(), ServerError> {
        let mut settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\ndefault_user = {USER}\ndefault_pass = {}\n\
             default_user_tags.administrator = true\nlog.console = true\nlog.console.level = info\nlog.file = false\n",
            self.ports.amqp, self.password
        );
        if self.is_encrypted {
            let (port, dir) = (self.ports.amqps, self.dir.display());
            write!(
                settings,
                "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {dir}/server.crt\nssl_options.keyfile = {dir}/server.key\n\
                 ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n"
            )
            .expect("writing to a String does not fail");
        }
        for (name, text) in [("rabbitmq.conf", settings.as_str()), ("enabled_plugins", "[]."), ("environment", "")] {
            let path = self.dir.join(name);
            fs::write(&path, text).map_err(ServerError::file("write", &path))?;
        }
        Ok(())
    }

    /// Nothing of the caller's environment but the PATH gets through: a RABBITMQ_ variable meant for a packaged server would
    /// lead this one to that one's data.
    fn set_environment(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dir = &self.dir;
        command.current_dir(dir).env_clear().env("PATH", path).env("LANG", "C.UTF-8");
        command
            .env("HOME", dir) // where the cookie is
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("ERL_EPMD_PORT", self.ports.registrar.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_CONF_ENV_FILE", dir.join("environment"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", dir.join("generated"))
            .env("RABBITMQ_MNESIA_BASE", dir.join("data"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", dir.join("pid"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2")
            // The script becomes the server, where it would wait for it as its parent and outlive a SIGKILL of its own.
            .env("RUNNING_UNDER_SYSTEMD", "true");
    }

    /// Whether the server on our port lets us in. That it answers is not enough: it could be another one.
    async fn can_log_in(&self) -> std::io::Result<bool> {
        let mut server = TcpStream::connect(("127.0.0.1", self.ports.amqp)).await?;
        server.write_all(b"AMQP\x00\x00\x09\x01").await?;
        if read_method(&mut server).await? != START {
            return Ok(false);
        }
        server.write_all(&start_ok(&self.password)).await?;
        Ok(read_method(&mut server).await? == TUNE)
    }
}

// The first steps of AMQP 0-9-1: the methods as class and number, from the specification's sections 1.4.2.
const START: [u8; 4] = [0, 10, 0, 10];
const START_OK: [u8; 4] = [0, 10, 0, 11];
const TUNE: [u8; 4] = [0, 10, 0, 30];

/// Reads one frame (type, channel, length, payload, end mark) and says which method it carries.
async fn read_method(server: &mut TcpStream) -> std::io::Result<[u8; 4]> {
    let mut head = [0; 7];
    server.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]).min(1 << 17);
    let mut payload = vec![0; length as usize + 1];
    server.read_exact(&mut payload).await?;
    Ok([payload[0], payload[1], payload[2], payload[3]])
}

/// The frame that logs in: no client properties, mechanism PLAIN, user and password, locale.
fn start_ok(password: &str) -> Vec<u8> {
    let login = format!("\0{USER}\0{password}");
    let payload =
        [&START_OK[..], &[0; 4], b"\x05PLAIN", &(login.len() as u32).to_be_bytes(), login.as_bytes(), b"\x05en_US"].concat();
    [&[1, 0, 0][..], &(payload.len() as u32).to_be_bytes(), &payload, &[0xCE]].concat()
}

/// The server's own start script. The one on the PATH of Debian and Ubuntu is a wrapper that changes the user and the
/// environment.
fn find_script() -> Result<PathBuf, ServerError> {
    ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server"]
        .into_iter()
        .map(PathBuf::from)
        .find(|script| script.exists())
        .ok_or(ServerError::Missing { program: "RabbitMQ (/usr/lib/rabbitmq/bin/rabbitmq-server)", package: "rabbitmq-server" })
}
