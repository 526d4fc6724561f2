use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::{Certificate, ServerError, ports::free_ports, secret::kept_secret};

const SERVER: &str = "the object store";
const ACCESS_KEY: &str = "dotmask";
const START_ATTEMPTS: u32 = 5;

/// A private S3 store on a free port of the loopback interface: a folder per bucket, a file per object, served by threads of
/// this program. Good enough for demo and tests: nothing is synced to disk, and no file's name may be longer than 255 bytes.
pub struct ObjectStore {
    objects: PathBuf,
    address: SocketAddr,
    secret_key: String,
    /// None where it speaks no TLS.
    tls: Option<TlsAcceptor>,
    // Its own, so that a test's single thread that waits for an object does not keep it from being served.
    runtime: Option<Runtime>,
}

impl ObjectStore {
    /// Starts the store in `dir`, which is made if need be. Objects from an earlier run in the same folder are kept.
    pub async fn start(dir: &Path) -> Result<Self, ServerError> {
        Self::start_with(dir, None).await
    }

    /// The same with TLS alone.
    pub async fn start_encrypted(dir: &Path, certificate: &Certificate) -> Result<Self, ServerError> {
        Self::start_with(dir, Some(certificate.acceptor())).await
    }

    async fn start_with(dir: &Path, tls: Option<TlsAcceptor>) -> Result<Self, ServerError> {
        let objects = dir.join("objects");
        fs::create_dir_all(&objects).map_err(ServerError::file("create", &objects))?;
        let secret_key = kept_secret(&dir.join("secret_key"))?;
        let mut attempt = 1;
        loop {
            let [port] = free_ports();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (objects, secret_key, tls) = (objects.clone(), secret_key.clone(), tls.clone());
            let mut store = Self { objects, address, secret_key, tls, runtime: None };
            match store.run().await {
                Err(_) if attempt < START_ATTEMPTS => attempt += 1,
                outcome => return outcome.map(|()| store),
            }
        }
    }

    /// Where clients connect, with path-style addresses.
    pub fn endpoint(&self) -> String {
        self.endpoint_via(self.address)
    }

    /// The same through a proxy at that address.
    pub fn endpoint_via(&self, address: SocketAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Where it listens; the same over restarts.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The region that clients name; the store accepts any.
    pub fn region(&self) -> &'static str {
        "us-east-1"
    }

    /// The only user.
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The user's secret.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The folder that holds the buckets; a key is a path below its bucket's folder.
    pub fn dir(&self) -> &Path {
        &self.objects
    }

    /// Makes a bucket, unless it is there already.
    pub fn create_bucket(&self, bucket: &str) -> Result<(), ServerError> {
        let path = self.objects.join(bucket);
        fs::create_dir_all(&path).map_err(ServerError::file("create", &path))
    }

    /// Stops serving: connections are cut, new ones refused. The objects stay.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Serves again on the same port.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.stop();
        self.run().await
    }

    async fn run(&mut self) -> Result<(), ServerError> {
        let did_not_start = |reason: String| ServerError::did_not_start(SERVER, reason, &self.objects);
        let files = FileSystem::new(&self.objects).map_err(|error| did_not_start(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, self.secret_key.as_str()));
        let service = service.build();
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("object-store")
            .enable_all()
            .build()
            .map_err(|error| did_not_start(error.to_string()))?;
        // Held by us before anything is awaited: a runtime must not be dropped where this future may be.
        let runtime = self.runtime.insert(runtime);
        let address = self.address;
        // Stopping does not wait for the old listener to close.
        let listen = async move {
            let mut attempt = 1;
            loop {
                match TcpListener::bind(address).await {
                    Err(_) if attempt < 50 => attempt += 1,
                    outcome => return outcome,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let listener = match runtime.spawn(listen).await {
            Ok(Ok(listener)) => listener,
            Ok(Err(error)) => return Err(did_not_start(format!("cannot listen on {address}: {error}"))),
            Err(error) => return Err(did_not_start(error.to_string())),
        };
        runtime.spawn(serve(listener, service, self.tls.clone()));
        Ok(())
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // Dropping a runtime within another one panics.
        self.stop();
    }
}

async fn serve(listener: TcpListener, service: S3Service, tls: Option<TlsAcceptor>) {
    loop {
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                debug!(%error, "a connection to the object store failed");
                continue;
            }
        };
        // Without it every answer in two parts waits 40 ms for the client's acknowledgement of the first.
        if let Err(error) = connection.set_nodelay(true) {
            debug!(%error, "a connection to the object store was lost");
            continue;
        }
        let (service, tls) = (service.clone(), tls.clone());
        tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            let served = match tls {
                None => http.serve_connection(TokioIo::new(connection), service).await,
                Some(tls) => match tls.accept(connection).await {
                    Ok(connection) => http.serve_connection(TokioIo::new(connection), service).await,
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(error) = served {
                debug!(error, "a connection to the object store failed");
            }
        });
    }
}
