//! The object store of a run, and a client of the verdict's own: it knows nothing of dotmask's.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, ensure};
use aws_sdk_s3::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region},
    primitives::ByteStream,
};
use servers::{Garage, ObjectStore};

use crate::BUCKET;

/// The images' and masks' store.
pub enum Store {
    /// In this process.
    Private(ObjectStore),
    /// A process of its own.
    Garage(Garage),
}

impl Store {
    /// Starts Garage from its program, or the private store without one, with the bucket.
    pub async fn start(garage: Option<&Path>, dir: &Path) -> anyhow::Result<Self> {
        if let Some(binary) = garage {
            return Ok(Self::Garage(Garage::start(binary, dir, BUCKET).await?));
        }
        let store = ObjectStore::start(dir).await?;
        store.create_bucket(BUCKET)?;
        Ok(Self::Private(store))
    }

    /// What it is, for the report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Private(_) => "private store (s3s-fs)",
            Self::Garage(_) => "Garage",
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Private(store) => store.address(),
            Self::Garage(store) => store.address(),
        }
    }

    /// What programs that reach it at `address` need in their environment.
    pub fn environment(&self, address: SocketAddr) -> Vec<(String, String)> {
        let (region, access_key, secret_key) = self.identity();
        [
            ("DOTMASK_S3_ENDPOINT", format!("http://{address}")),
            ("DOTMASK_S3_PATH_STYLE", "true".into()),
            ("AWS_ACCESS_KEY_ID", access_key.into()),
            ("AWS_SECRET_ACCESS_KEY", secret_key.into()),
            ("AWS_REGION", region.into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// A client that reaches it without detour.
    pub fn client(&self) -> StoreClient {
        let (region, access_key, secret_key) = self.identity();
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(format!("http://{}", self.address()))
            .region(Region::new(region))
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "chaos"))
            .force_path_style(true);
        StoreClient(Client::from_conf(config.build()))
    }

    fn identity(&self) -> (&'static str, &str, &str) {
        match self {
            Self::Private(store) => (store.region(), store.access_key(), store.secret_key()),
            Self::Garage(store) => (store.region(), store.access_key(), store.secret_key()),
        }
    }
}

/// Reads and writes the bucket. Clones share its connections.
#[derive(Clone)]
pub struct StoreClient(Client);

impl StoreClient {
    /// Writes an object.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        let request = self.0.put_object().bucket(BUCKET).key(key).body(ByteStream::from(bytes));
        request.send().await.map(drop).with_context(|| format!("cannot write {key}"))
    }

    /// Reads an object that a URI names.
    pub async fn get(&self, uri: &str) -> anyhow::Result<Vec<u8>> {
        let key = uri.strip_prefix("s3://").and_then(|rest| rest.strip_prefix(BUCKET)?.strip_prefix('/'));
        let key = key.with_context(|| format!("{uri} is not in the bucket {BUCKET}"))?;
        let object = self.0.get_object().bucket(BUCKET).key(key).send().await.with_context(|| format!("cannot read {uri}"))?;
        Ok(object.body.collect().await.with_context(|| format!("cannot read {uri} to its end"))?.to_vec())
    }

    /// How many objects there are below a folder.
    pub async fn count(&self, folder: &str) -> anyhow::Result<usize> {
        let (mut objects, mut next) = (0, None);
        loop {
            let request = self.0.list_objects_v2().bucket(BUCKET).prefix(folder).set_continuation_token(next);
            let page = request.send().await.with_context(|| format!("cannot list {folder}"))?;
            objects += page.contents().len();
            if page.is_truncated != Some(true) {
                return Ok(objects);
            }
            ensure!(page.next_continuation_token.is_some(), "the store does not say how its listing goes on");
            next = page.next_continuation_token;
        }
    }
}
