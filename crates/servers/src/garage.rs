use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    ServerError,
    ports::free_ports,
    process::Process,
    program::answers_ok,
    secret::{kept_secret, new_secret},
};

const SERVER: &str = "Garage";
const REGION: &str = "garage";

const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const START_ATTEMPTS: u32 = 5;

/// A private [Garage](https://garagehq.deuxfleurs.fr) of one node and one bucket on free ports of the loopback interface: a store
/// that others run in production, where [`crate::ObjectStore`] is one for demo and tests.
pub struct Garage {
    address: SocketAddr,
    access_key: String,
    secret_key: String,
    process: Process,
}

impl Garage {
    /// Starts the program `binary` (version 2) in `dir`, which is made if need be, with the bucket.
    pub async fn start(binary: &Path, dir: &Path, bucket: &str) -> Result<Self, ServerError> {
        fs::create_dir_all(dir).map_err(ServerError::file("create", dir))?;
        let dir = dir.canonicalize().map_err(ServerError::file("find", dir))?;
        // As Garage wants them: GK and 24 hexadecimal digits, and 64.
        let access_key = format!("GK{}", &kept_secret(&dir.join("access_key"))?[..24]);
        let secret_key = kept_secret(&dir.join("secret_key"))?.repeat(2);
        let mut attempt = 1;
        loop {
            match Self::run(binary, &dir, bucket, &access_key, &secret_key).await {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                outcome => {
                    return outcome.map(|(address, process)| Self { address, access_key, secret_key, process });
                }
            }
        }
    }

    async fn run(
        binary: &Path,
        dir: &Path,
        bucket: &str,
        access_key: &str,
        secret_key: &str,
    ) -> Result<(SocketAddr, Process), ServerError> {
        let [api, rpc, admin] = free_ports().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let settings = write_settings(dir, [api, rpc, admin])?;
        let log = dir.join("garage.log");
        let mut process = Process::spawn(SERVER, binary, None, Signal::SIGTERM, &log, |command| {
            command.arg("-c").arg(&settings).args(["server", "--single-node", "--default-bucket"]);
            command.env("GARAGE_DEFAULT_ACCESS_KEY", access_key).env("GARAGE_DEFAULT_SECRET_KEY", secret_key);
            command.env("GARAGE_DEFAULT_BUCKET", bucket);
        })?;
        let address = admin.to_string();
        process.wait_until_ready(START_LIMIT, async || answers_ok(&address, "/health").await.unwrap_or(false)).await?;
        Ok((api, process))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The region that clients have to name.
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// The only user.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The user's secret.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(self) -> Result<(), ServerError> {
        self.process.stop(Signal::SIGTERM, STOP_LIMIT).await
    }
}

fn write_settings(dir: &Path, [api, rpc, admin]: [SocketAddr; 3]) -> Result<PathBuf, ServerError> {
    let mut text = String::new();
    let folder = |name: &str| dir.join(name).display().to_string();
    write!(
        text,
        "metadata_dir = {:?}\ndata_dir = {:?}\ndb_engine = \"lmdb\"\nreplication_factor = 1\n\
         rpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{}\"\n\
         [s3_api]\ns3_region = \"{REGION}\"\napi_bind_addr = \"{api}\"\n[admin]\napi_bind_addr = \"{admin}\"\n",
        folder("metadata"),
        folder("data"),
        new_secret().repeat(2),
    )
    .expect("writing to a String does not fail");
    let path = dir.join("garage.toml");
    fs::write(&path, text).map_err(ServerError::file("write", &path))?;
    Ok(path)
}
