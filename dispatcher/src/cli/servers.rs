//! Where the servers are, how to log in, and whom to trust.

use std::path::PathBuf;

use clap::Args;
use reqwest::Url;
use secrets::{Secret, SecretError, names_user};
use tls::{Authorities, AuthoritiesError};

use super::BadSettings;

/// Where Postgres is.
#[derive(Args)]
pub struct PostgresArgs {
    /// The file that holds postgres://user:password@host:port/database, in place of the variable that does, [env: DATABASE_URL]. No flag takes
    /// the URL itself: arguments are visible to others.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArgs,
}

impl PostgresArgs {
    /// Where it is, how to log in, and how to know it.
    pub fn server(&self) -> anyhow::Result<ledger::Server> {
        let url = Secret::required("DATABASE_URL", self.database_url_file.as_deref())?;
        Ok(ledger::Server::new(url.expose(), &self.trust.authorities()?)?)
    }
}

/// Whom to trust.
#[derive(Args)]
pub struct TrustArgs {
    /// The file with the certificates, in PEM, of authorities that are trusted beside the system's to say who a server is that is reached by
    /// TLS.
    #[arg(long, env = "DOTMASK_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl TrustArgs {
    /// Whom to trust beside the system's authorities.
    pub fn authorities(&self) -> Result<Authorities, AuthoritiesError> {
        Authorities::read(self.ca_file.as_deref())
    }
}

/// Where RabbitMQ is.
#[derive(Args)]
pub struct RabbitMqArgs {
    /// The file that holds amqp://user:password@host:port/vhost, in place of the variable that does, [env: AMQP_URL].
    #[arg(long, env = "AMQP_URL_FILE", value_name = "FILE")]
    amqp_url_file: Option<PathBuf>,
}

impl RabbitMqArgs {
    /// Where it is, how to log in, and how to know it.
    pub fn server(&self, trust: &TrustArgs) -> anyhow::Result<broker::Server> {
        let url = Secret::required("AMQP_URL", self.amqp_url_file.as_deref())?;
        Ok(broker::Server::new(url.expose(), &trust.authorities()?)?)
    }
}

/// Where the dispatcher's API is, and what lets us in.
#[derive(Args)]
pub struct ServerArgs {
    /// URL of the dispatcher's API.
    #[arg(long = "server", env = "DOTMASK_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = server_url)]
    pub url: Url,
    /// The file that holds the API token, in place of the variable that does, [env: DOTMASK_TOKEN]. A dispatcher that serves without tokens needs
    /// neither.
    #[arg(long, env = "DOTMASK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArgs,
}

impl ServerArgs {
    /// What no single value shows to be wrong: the URL is shown in messages, and must hold no password.
    pub fn check(&self) -> Result<(), BadSettings> {
        if names_user(self.url.as_str()) {
            Err(BadSettings::UserInUrl { variable: "DOTMASK_SERVER (or --server)" })
        } else {
            Ok(())
        }
    }

    /// The API token, if there is one.
    pub fn token(&self) -> Result<Option<Secret>, SecretError> {
        Secret::optional("DOTMASK_TOKEN", self.token_file.as_deref())
    }
}

fn server_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}; expected http://host:port"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("expected http://host:port or https://host:port".into()),
    }
}
