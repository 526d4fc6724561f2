use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Every authority that a system knows takes a quarter of that, in bytes.
const LARGEST: u64 = 1 << 20;

/// The authorities that are trusted beside the system's to say whose a certificate is. Clones share them.
#[derive(Clone, Default)]
pub struct Authorities {
    pem: Option<Arc<str>>,
}

/// Why a file's authorities cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file cannot be read.
    #[error("cannot read {}, which DOTMASK_CA_FILE (or --ca-file) names: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What it holds is no certificate.
    #[error("{}, which DOTMASK_CA_FILE (or --ca-file) names, {reason}; expected certificates of authorities in PEM", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Authorities {
    /// Those whose certificates are in the file, each of which must be usable; none where no file is named.
    pub fn read(file: Option<&Path>) -> Result<Self, AuthoritiesError> {
        let Some(path) = file else { return Ok(Self::default()) };
        let pem = read(path).map_err(|source| AuthoritiesError::File { path: path.to_owned(), source })?;
        check(&pem).map_err(|reason| AuthoritiesError::Unusable { path: path.to_owned(), reason })?;
        Ok(Self { pem: Some(pem.into()) })
    }

    /// Their certificates in PEM, of which every one has been read once; `None` where only the system's authorities are trusted.
    pub fn pem(&self) -> Option<&str> {
        self.pem.as_deref()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.pem.is_some() { "the system's and a file's" } else { "the system's" })
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {LARGEST} bytes")));
    }
    Ok(text)
}

fn check(pem: &str) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let unusable = |reason: &dyn fmt::Display| format!("holds a certificate (number {}) that is none: {reason}", index + 1);
        let certificate = certificate.map_err(|error| unusable(&error))?;
        store.add(certificate).map_err(|error| unusable(&error))?;
    }
    if store.is_empty() { Err("holds no certificate".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn takes_a_file_of_certificates_and_refuses_any_other() {
        let folder = tempfile::tempdir().expect("made");
        let path = folder.path().join("ca.pem");
        let read = |text: &str| {
            fs::write(&path, text).expect("written");
            Authorities::read(Some(&path)).map_err(|error| error.to_string())
        };
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["authority".to_owned()]).expect("made");
        let two = format!("a comment\n{}{}", cert.pem(), cert.pem());
        assert_eq!(read(&two).expect("valid").pem(), Some(two.as_str()));
        for (text, expected) in [
            ("", "holds no certificate"),
            (&*signing_key.serialize_pem(), "holds no certificate"),
            (&*cert.pem().replace("\nMII", "\nAAA"), "certificate (number 1) that is none"),
            (&*format!("{}{}", cert.pem(), cert.pem().replace("END", "THE END")), "certificate (number 2) that is none"),
            (&*"x".repeat(1 << 21), "larger than"),
        ] {
            let error = read(text).expect_err(expected);
            assert!(error.contains(expected) && error.contains("ca.pem, which DOTMASK_CA_FILE"), "{error}");
        }
        let missing = Authorities::read(Some(&folder.path().join("none"))).expect_err("no such file").to_string();
        assert!(missing.contains("none, which DOTMASK_CA_FILE (or --ca-file) names: No such file"), "{missing}");
        assert_eq!(Authorities::read(None).expect("no file").pem(), None);
    }
}
