use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::ServerError;

/// Bytes nobody can guess.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).expect("Linux always has /dev/urandom");
    bytes
}

/// A new secret: 32 hexadecimal digits.
pub(crate) fn new_secret() -> String {
    hex::encode(random_bytes::<16>())
}

/// The secret kept in a file, made at the first call: a server's data outlives one run, and so must its password.
pub(crate) fn kept_secret(path: &Path) -> Result<String, ServerError> {
    if path.exists() {
        return fs::read_to_string(path).map_err(ServerError::file("read", path));
    }
    let secret = new_secret();
    write_secret(path, &secret)?;
    Ok(secret)
}

/// Makes a file that its owner alone may read, in place of the one that may be there.
pub(crate) fn write_secret(path: &Path, secret: &str) -> Result<(), ServerError> {
    if path.exists() {
        fs::remove_file(path).map_err(ServerError::file("remove", path))?;
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(ServerError::file("create", path))?;
    file.write_all(secret.as_bytes()).map_err(ServerError::file("write", path))
}
