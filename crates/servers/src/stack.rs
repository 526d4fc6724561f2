use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{Authority, ObjectStore, Postgres, Proxy, RabbitMq, ServerError};

/// All servers that dotmask needs. Dropping it ends them.
pub struct Stack {
    /// The ledger's database.
    pub postgres: Postgres,
    /// The tokens' broker.
    pub rabbitmq: RabbitMq,
    /// The images' and masks' store.
    pub objects: ObjectStore,
    /// Whom clients have to trust, where all three speak TLS.
    ca_file: Option<PathBuf>,
}

impl Stack {
    /// Starts all three at the same time, each in a folder of its own below `dir`, which is made if need be.
    pub async fn start(dir: &Path) -> Result<Self, ServerError> {
        let (postgres, rabbitmq, objects) = (dir.join("postgres"), dir.join("rabbitmq"), dir.join("objects"));
        let (postgres, rabbitmq, objects) =
            tokio::try_join!(Postgres::start(&postgres), RabbitMq::start(&rabbitmq), ObjectStore::start(&objects))?;
        Ok(Self { postgres, rabbitmq, objects, ca_file: None })
    }

    /// The same, and clients are to use TLS with all three.
    pub async fn start_encrypted(dir: &Path, authority: &Authority) -> Result<Self, ServerError> {
        fs::create_dir_all(dir).map_err(ServerError::file("create", dir))?;
        let ca_file = dir.join("ca.pem");
        fs::write(&ca_file, authority.pem()).map_err(ServerError::file("write", &ca_file))?;
        let certificate = authority.certificate();
        let (postgres, rabbitmq, objects) = (dir.join("postgres"), dir.join("rabbitmq"), dir.join("objects"));
        let (postgres, rabbitmq, objects) = tokio::try_join!(
            Postgres::start_encrypted(&postgres, &certificate),
            RabbitMq::start_encrypted(&rabbitmq, &certificate),
            ObjectStore::start_encrypted(&objects, &certificate),
        )?;
        Ok(Self { postgres, rabbitmq, objects, ca_file: Some(ca_file) })
    }

    /// What dotmask's programs need in their environment to use these servers, as names and values. It holds passwords.
    pub fn environment(&self) -> Vec<(String, String)> {
        let rabbitmq = if self.ca_file.is_some() { self.rabbitmq.tls_address() } else { self.rabbitmq.address() };
        self.environment_at(self.postgres.address(), rabbitmq, self.objects.address())
    }

    /// The same, for programs that reach the servers through these proxies.
    pub fn environment_via(&self, proxies: &Proxies) -> Vec<(String, String)> {
        self.environment_at(proxies.postgres.address(), proxies.rabbitmq.address(), proxies.objects.address())
    }

    fn environment_at(&self, postgres: SocketAddr, rabbitmq: SocketAddr, objects: SocketAddr) -> Vec<(String, String)> {
        let (database_url, amqp_url) = match self.ca_file {
            None => (self.postgres.url_via(postgres), self.rabbitmq.url_via(rabbitmq)),
            Some(_) => (self.postgres.tls_url_via(postgres), self.rabbitmq.tls_url_via(rabbitmq)),
        };
        let ca_file = self.ca_file.iter().map(|path| ("DOTMASK_CA_FILE", path.display().to_string()));
        [
            ("DATABASE_URL", database_url),
            ("AMQP_URL", amqp_url),
            ("DOTMASK_S3_ENDPOINT", self.objects.endpoint_via(objects)),
            ("DOTMASK_S3_PATH_STYLE", "true".into()),
            ("AWS_ACCESS_KEY_ID", self.objects.access_key().into()),
            ("AWS_SECRET_ACCESS_KEY", self.objects.secret_key().into()),
            ("AWS_REGION", self.objects.region().into()),
        ]
        .into_iter()
        .chain(ca_file)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Stops all three, those that clients reach first.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        self.objects.stop();
        let (postgres, rabbitmq) = tokio::join!(self.postgres.stop(), self.rabbitmq.stop());
        postgres.and(rabbitmq)
    }
}

/// A proxy in front of each server of a [`Stack`].
pub struct Proxies {
    /// In front of the database.
    pub postgres: Proxy,
    /// In front of the broker.
    pub rabbitmq: Proxy,
    /// In front of the store.
    pub objects: Proxy,
}

impl Proxies {
    /// Starts all three, forwarding everything.
    pub fn start(stack: &Stack) -> io::Result<Self> {
        Ok(Self {
            postgres: Proxy::start(stack.postgres.address())?,
            rabbitmq: Proxy::start(stack.rabbitmq.address())?,
            objects: Proxy::start(stack.objects.address())?,
        })
    }
}
