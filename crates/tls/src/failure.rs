use std::{error::Error, io};

use rustls::CertificateError;

/// What a failed handshake means and what to do, if that is what the error or one of its causes is.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref() {
            return Some(words(failure));
        }
        next = match error.downcast_ref::<io::Error>() {
            // Its source is what comes after what it holds.
            Some(error) => error.get_ref().map(|held| held as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

fn words(failure: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(refusal) = failure else {
        return match failure {
            rustls::Error::InvalidMessage(_) => "it does not speak TLS there; check the port, or let it speak TLS".into(),
            other => format!("TLS failed: {other}"),
        };
    };
    match refusal {
        // A wrong signature: the authority has the name of one that is trusted, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of no authority that is trusted; give \
             the authority's certificate in the file that DOTMASK_CA_FILE names"
                .into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is another server's ({refusal}); name the server in the URL as its certificate does")
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            format!("its certificate is not valid at this time ({refusal}); renew it, or set this machine's clock")
        }
        other => format!("its certificate is refused: {other}"),
    }
}
