use std::time::Duration;

use tls::Authorities;

/// How to reach the object store.
#[derive(Debug, Clone)]
pub struct ObjectsConfig {
    /// Where a store other than AWS answers, such as `http://127.0.0.1:9000`; `None` for AWS itself.
    pub endpoint: Option<String>,
    /// The region, which is part of every signature.
    pub region: String,
    /// Whether the bucket is the path's first part and not part of the host's name; most stores other than AWS need it.
    pub path_style: bool,
    /// Whom an `https` store's certificate may be of, beside those whom the system trusts.
    pub authorities: Authorities,
    /// How long the TCP and TLS connection may take.
    pub connect_timeout: Duration,
    /// How long the store may stay silent within a request.
    pub read_timeout: Duration,
    /// How long one attempt at a request may take; reading an object's body may take as long again.
    pub attempt_timeout: Duration,
    /// How long a request may take with its retries and the waits between them.
    pub operation_timeout: Duration,
}

impl ObjectsConfig {
    /// Says so in the log where who is on the way can read and change everything: for a program's start.
    pub fn warn_of_plain(&self) {
        if let Some(endpoint) = self.endpoint.as_deref().filter(|endpoint| tls::is_plain_http(endpoint)) {
            tls::warn_of_plain("s3", endpoint, "give the store's endpoint as https://");
        }
    }
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".into(),
            path_style: false,
            authorities: Authorities::default(),
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(15),
            attempt_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(75),
        }
    }
}
