use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{ServerError, ports::free_ports, process::Process, program::answers_ok};

const SERVER: &str = "Prometheus";
const PROGRAM: &str = "prometheus";

const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const START_ATTEMPTS: u32 = 5;

/// Where Prometheus finds its targets, and the name under which a new list is written before it takes that one's place.
const TARGETS: [&str; 2] = ["targets.json", "targets.unfinished"];

/// A private Prometheus on a free port of the loopback interface, that scrapes and evaluates its rules every second.
pub struct Prometheus {
    address: SocketAddr,
    dir: PathBuf,
    process: Process,
}

/// What is scraped.
#[derive(Debug, Clone)]
pub struct ScrapeTarget {
    /// Host and port; the path is /metrics.
    pub address: String,
    /// Labels that its series get, such as the namespace that a Prometheus in Kubernetes adds.
    pub labels: Vec<(&'static str, &'static str)>,
}

impl Prometheus {
    /// Starts Prometheus in `dir`, which is made if need be, with these files of rules. It scrapes nothing yet.
    pub async fn start(dir: &Path, rules: &[PathBuf]) -> Result<Self, ServerError> {
        let program = find_program()?;
        fs::create_dir_all(dir).map_err(ServerError::file("create", dir))?;
        let dir = dir.canonicalize().map_err(ServerError::file("find", dir))?;
        let rules = rules.iter().map(|path| in_yaml(path)).collect::<Vec<_>>().join(", ");
        let settings = dir.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{rules}]\n\
             scrape_configs: [{{job_name: dotmask, file_sd_configs: [{{files: [{}], refresh_interval: 1s}}]}}]\n",
            in_yaml(&dir.join(TARGETS[0])),
        );
        fs::write(&settings, text).map_err(ServerError::file("write", &settings))?;
        write_targets(&dir, &[])?;
        let mut attempt = 1;
        loop {
            match run(&program, &dir, &settings).await {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                outcome => return outcome.map(|(address, process)| Self { address, dir, process }),
            }
        }
    }

    /// From now on these are scraped, and no others.
    pub fn scrape(&self, targets: &[ScrapeTarget]) -> Result<(), ServerError> {
        write_targets(&self.dir, targets)
    }

    /// Where its API is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.process.stop(Signal::SIGTERM, STOP_LIMIT).await
    }
}

async fn run(program: &Path, dir: &Path, settings: &Path) -> Result<(SocketAddr, Process), ServerError> {
    let [port] = free_ports();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut process = Process::spawn(SERVER, program, None, Signal::SIGTERM, &dir.join("prometheus.log"), |command| {
        command.arg("--config.file").arg(settings).arg("--storage.tsdb.path").arg(dir.join("data"));
        command.arg("--web.listen-address").arg(address.to_string());
    })?;
    let at = address.to_string();
    process.wait_until_ready(START_LIMIT, async || answers_ok(&at, "/-/ready").await.unwrap_or(false)).await?;
    Ok((address, process))
}

fn in_yaml(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

/// JSON and Rust write such plain strings alike. Put in place whole: Prometheus reads the file whenever it changes.
fn write_targets(dir: &Path, targets: &[ScrapeTarget]) -> Result<(), ServerError> {
    let entries = targets.iter().map(|target| {
        let labels: Vec<String> = target.labels.iter().map(|(name, value)| format!("{name:?}: {value:?}")).collect();
        format!("{{\"targets\": [{:?}], \"labels\": {{{}}}}}", target.address, labels.join(", "))
    });
    let text = format!("[{}]\n", entries.collect::<Vec<_>>().join(",\n"));
    let [place, unfinished] = TARGETS.map(|name| dir.join(name));
    fs::write(&unfinished, text).map_err(ServerError::file("write", &unfinished))?;
    fs::rename(&unfinished, &place).map_err(ServerError::file("rename", &unfinished))
}

fn find_program() -> Result<PathBuf, ServerError> {
    let search_path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&search_path)
        .map(|folder| folder.join(PROGRAM))
        .find(|program| program.is_file())
        .ok_or(ServerError::Missing { program: PROGRAM, package: "prometheus" })
}
