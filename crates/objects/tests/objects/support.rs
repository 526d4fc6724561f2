//! A store of the test's own, and shorthands for what most tests do.

use objects::{Objects, ObjectsConfig};
use request::S3Uri;
use servers::ObjectStore;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

pub const PLENTY: u64 = 1 << 20;

pub fn uri(text: &str) -> S3Uri {
    text.parse().expect("valid")
}

pub fn config(endpoint: String) -> ObjectsConfig {
    ObjectsConfig { endpoint: Some(endpoint), path_style: true, ..ObjectsConfig::default() }
}

/// A client with these credentials. The chain's first place is the environment.
pub async fn client(config: &ObjectsConfig, access_key: &str, secret_key: &str) -> Objects {
    #[expect(unsafe_code, reason = "the environment is where credentials come from, and no other thread reads it yet")]
    // SAFETY: the test's own thread is the only one that reads or writes the environment.
    unsafe {
        std::env::set_var("AWS_ACCESS_KEY_ID", access_key);
        std::env::set_var("AWS_SECRET_ACCESS_KEY", secret_key);
    }
    Objects::connect(config).await
}

pub async fn store() -> Result<(TempDir, ObjectStore, Objects), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = ObjectStore::start(dir.path()).await?;
    store.create_bucket("scans")?;
    let objects = client(&config(store.endpoint()), store.access_key(), store.secret_key()).await;
    Ok((dir, store, objects))
}

/// Reads a request without a body.
pub async fn read_head(connection: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
