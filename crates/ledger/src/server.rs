use std::{fmt, str::FromStr};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tls::Authorities;

use crate::LedgerError;

/// Set for every connection. A statement beyond its time is stuck behind a lock or a sick disk; a transaction beyond its time
/// belongs to a dispatcher that hangs, and what it holds must become free.
const SESSION_OPTIONS: [(&str, &str); 2] = [("statement_timeout", "30s"), ("idle_in_transaction_session_timeout", "60s")];

/// Where Postgres is, how to log in, and how to know it.
#[derive(Clone)]
pub struct Server {
    pub(crate) options: PgConnectOptions,
}

impl Server {
    /// Reads a URL.
    ///
    /// A connection is either checked in full, certificate and host name, or it is in the clear: `sslmode=require` and `verify-ca` mean
    /// `verify-full` here, as they would let others pass for the server; and so does a URL that leaves the choice to the server where
    /// authorities are given. `sslmode=disable` and a Unix socket are in the clear.
    pub fn new(url: &str, authorities: &Authorities) -> Result<Self, LedgerError> {
        secrets::check_url(url, &["postgres", "postgresql"]).map_err(|reason| LedgerError::Url { reason: reason.into() })?;
        let options: PgConnectOptions =
            url.parse().map_err(|error: sqlx::Error| LedgerError::Url { reason: error.to_string() })?;
        let mut options = options.application_name("dotmask").options(SESSION_OPTIONS);
        let is_socket = options.get_socket().is_some() || options.get_host().starts_with('/');
        let mode = match options.get_ssl_mode() {
            _ if is_socket => PgSslMode::Disable,
            PgSslMode::Disable => PgSslMode::Disable,
            PgSslMode::Allow | PgSslMode::Prefer if authorities.pem().is_none() => PgSslMode::Prefer,
            _ => PgSslMode::VerifyFull,
        };
        if let Some(pem) = authorities.pem() {
            options = options.ssl_root_cert_from_pem(pem.as_bytes().to_vec());
        }
        Ok(Self { options: options.ssl_mode(mode) })
    }

    /// Says so in the log where who is on the way can read and change everything: for a program's start.
    pub fn warn_of_plain(&self) {
        let is_checked = matches!(self.options.get_ssl_mode(), PgSslMode::VerifyFull);
        if !is_checked && self.options.get_socket().is_none() && !tls::is_loopback(self.options.get_host()) {
            tls::warn_of_plain("postgres", &self.to_string(), "add sslmode=verify-full to the database URL");
        }
    }
}

/// Trusts the system's authorities.
impl FromStr for Server {
    type Err = LedgerError;

    fn from_str(url: &str) -> Result<Self, LedgerError> {
        Self::new(url, &Authorities::default())
    }
}

/// `host:port/database`.
impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        match options.get_socket() {
            Some(folder) => write!(formatter, "{}:{}/{database}", folder.display(), options.get_port()),
            None => write!(formatter, "{}:{}/{database}", options.get_host(), options.get_port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_checked_in_full_or_known_to_be_in_the_clear() {
        let authority = rcgen::generate_simple_self_signed(["authority".to_owned()]).expect("made").cert.pem();
        let file = tempfile::NamedTempFile::new().expect("made");
        std::fs::write(&file, authority).expect("written");
        let given = Authorities::read(Some(file.path())).expect("an authority");
        let system = Authorities::default();
        let mode = |url: &str, authorities| Server::new(url, authorities).expect("valid").options.get_ssl_mode();
        for asked in ["require", "verify-ca", "verify-full"] {
            let url = format!("postgres://u:p@db/x?sslmode={asked}");
            assert!(matches!(mode(&url, &system), PgSslMode::VerifyFull), "{asked}");
        }
        for left_open in ["postgres://u:p@db/x", "postgres://u:p@db/x?sslmode=prefer", "postgres://u:p@db/x?sslmode=allow"] {
            assert!(matches!(mode(left_open, &given), PgSslMode::VerifyFull), "{left_open}");
            assert!(matches!(mode(left_open, &system), PgSslMode::Prefer), "{left_open}");
        }
        for plain in
            ["postgres://u:p@db/x?sslmode=disable", "postgres://u:p@%2Frun%2Fpostgresql/x", "postgres://u@x/y?host=/run/p"]
        {
            assert!(matches!(mode(plain, &given), PgSslMode::Disable), "{plain}");
        }
    }
}
