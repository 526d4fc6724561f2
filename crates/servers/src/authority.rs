use std::{net::Ipv4Addr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

/// An authority of this process's own, for servers that speak TLS.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a server shows, and the key to it, in PEM.
pub struct Certificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// Another one each time.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("ring makes keys");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "dotmask's private authority");
        let pem = parameters.self_signed(&key).expect("the parameters are good").pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    /// Its own certificate: who trusts it trusts the servers'.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For servers at 127.0.0.1, by this address alone: by the name `localhost` it is another server's.
    pub fn certificate(&self) -> Certificate {
        let key = KeyPair::generate().expect("ring makes keys");
        let parameters = CertificateParams::new([Ipv4Addr::LOCALHOST.to_string()]).expect("an address");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("the parameters are good").pem();
        Certificate { certificate, key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// For a server in this process.
    pub fn acceptor(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("just made");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("just made");
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key is the certificate's");
        TlsAcceptor::from(Arc::new(config))
    }
}
