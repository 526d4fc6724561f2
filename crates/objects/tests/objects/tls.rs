//! Connections by TLS: which stores are trusted, and what is said of the others.

use std::fs;

use objects::{ObjectsConfig, ObjectsError};
use servers::{Authority, ObjectStore};
use tls::Authorities;

use crate::support::{Outcome, PLENTY, client, config, uri};

#[tokio::test]
async fn a_store_is_used_by_tls_only_where_its_certificate_is_trusted_and_names_it() -> Outcome {
    let dir = tempfile::tempdir()?;
    let [ours, other] = [Authority::new(), Authority::new()];
    let store = ObjectStore::start_encrypted(&dir.path().join("encrypted"), &ours.certificate()).await?;
    store.create_bucket("scans")?;
    let plain = ObjectStore::start(&dir.path().join("plain")).await?;
    let authorities = |authority: &Authority| -> Result<Authorities, Box<dyn std::error::Error>> {
        let path = dir.path().join("ca.pem");
        fs::write(&path, authority.pem())?;
        Ok(Authorities::read(Some(&path))?)
    };
    let (trusting, system) = (authorities(&ours)?, Authorities::default());
    let connect = async |endpoint: String, authorities: &Authorities| {
        let config = ObjectsConfig { authorities: authorities.clone(), ..config(endpoint) };
        client(&config, store.access_key(), store.secret_key()).await
    };

    let objects = connect(store.endpoint(), &trusting).await;
    objects.put(&uri("s3://scans/a.png"), "pixels".into(), "image/png").await?;
    assert_eq!(&objects.get(&uri("s3://scans/a.png"), PLENTY).await?[..], b"pixels");

    for (endpoint, authorities, expected) in [
        (
            store.endpoint(),
            &system,
            "of no authority that is trusted; give the authority's certificate in the file that DOTMASK_CA_FILE",
        ),
        (store.endpoint(), &authorities(&other)?, "of no authority that is trusted"),
        (store.endpoint().replace("127.0.0.1", "localhost"), &trusting, "is another server's"),
        (plain.endpoint().replace("http://", "https://"), &trusting, "it does not speak TLS there"),
    ] {
        let error = connect(endpoint, authorities).await.check("scans").await.expect_err(expected);
        assert!(matches!(&error, ObjectsError::Unavailable { reason, .. } if reason.contains(expected)), "{error:?}");
    }
    Ok(())
}
