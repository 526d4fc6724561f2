//! What a store is asked for, and what it answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use objects::{ObjectsConfig, ObjectsError};
use servers::ObjectStore;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{Outcome, PLENTY, client, config, read_head, store, uri};

/// Keys that a path, a URL, a form or a listing could make others of, and that look like each other.
const KEYS: [&str; 31] = [
    "x.png",
    "a/b/c/d",
    "a+b",
    "a b",
    "a%2Bb",
    "a%20b",
    "a%252Bb",
    " a ",
    "100%",
    "%",
    "%2e%2e/x",
    "%2E%2E/x",
    "..%2fx",
    "a%2Fb",
    "a%00b",
    "...",
    ".hidden",
    "q?x=1&y=2#z",
    "q",
    "q?versionId=1",
    "a&amp;b",
    "a&b",
    "'\"<>|",
    "]]>",
    "a\\b",
    "~a*(b)!$,;:=@",
    "fr\u{fc}h/\u{4eba}.png",
    // The same to the eye, decomposed.
    "fru\u{308}h/\u{4eba}.png",
    "\u{2028}\u{202e}gnp.x",
    "\u{1f9e0}",
    "A+B",
];

#[tokio::test]
async fn every_key_is_an_object_of_its_own_byte_for_byte() -> Outcome {
    let (_dir, store, objects) = store().await?;
    let keys: Vec<String> = KEYS.iter().map(|&key| key.to_owned()).collect();
    for key in &keys {
        let body = Bytes::from(format!("bytes of {key}"));
        objects.put(&uri(&format!("s3://scans/{key}")), body, "image/png").await?;
    }
    for key in &keys {
        let body = format!("bytes of {key}");
        assert_eq!(objects.get(&uri(&format!("s3://scans/{key}")), PLENTY).await?, body, "{key}");
        // The demo store's keys are paths: what it was asked for is where it should be.
        assert_eq!(std::fs::read_to_string(store.dir().join("scans").join(key))?, body, "{key}");
    }
    let mut listed = objects.list("scans", "", keys.len()).await?;
    listed.sort();
    let mut expected = keys;
    expected.sort();
    assert_eq!(listed, expected);
    Ok(())
}

/// The demo store's file system takes shorter ones only.
#[tokio::test]
async fn the_longest_key_is_asked_for_byte_for_byte() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let asked = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await?;
        let head = read_head(&mut connection).await?;
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbytes").await?;
        std::io::Result::Ok(head)
    });
    let key = "ü+".repeat(341) + "x";
    assert_eq!(key.len(), 1_024);
    let body = client(&config(endpoint), "any", "any").await.get(&uri(&format!("s3://scans/{key}")), PLENTY).await?;
    assert_eq!(body, "bytes");
    let head = asked.await??;
    let expected = format!("GET /scans/{}x?x-id=GetObject HTTP/1.1\r\n", "%C3%BC%2B".repeat(341));
    assert!(head.starts_with(&expected), "{head}");
    Ok(())
}

#[tokio::test]
async fn lists_a_folder_and_nothing_beside_it() -> Outcome {
    let (_dir, _store, objects) = store().await?;
    for key in ["data/b/1.png", "data/a.png", "data/a b+ü.png", "database/c.png", "d.png"] {
        objects.put(&uri(&format!("s3://scans/{key}")), Bytes::from_static(b"x"), "image/png").await?;
    }
    let mut keys = objects.list("scans", "data/", 3).await?;
    keys.sort();
    assert_eq!(keys, ["data/a b+ü.png", "data/a.png", "data/b/1.png"]);
    assert_eq!(objects.list("scans", "", 5).await?.len(), 5);
    assert!(objects.list("scans", "nothing/", 1).await?.is_empty());
    let error = objects.list("scans", "data/", 2).await.expect_err("three objects");
    assert!(matches!(error, ObjectsError::TooMany { limit: 2, .. }) && !error.is_transient(), "{error:?}");
    assert!(error.to_string().starts_with("s3://scans/data/ has more than 2 objects"), "{error}");
    let error = objects.list("elsewhere", "", 5).await.expect_err("missing");
    assert!(matches!(error, ObjectsError::NoBucket { .. }), "{error:?}");
    Ok(())
}

/// A store that answers each request with the next of these pages, and where it is.
async fn paging(pages: [&'static str; 2]) -> std::io::Result<(String, tokio::task::JoinHandle<std::io::Result<Vec<String>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for page in pages {
            let (mut connection, _) = listener.accept().await?;
            asked.push(read_head(&mut connection).await?);
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/xml\r\ncontent-length: ";
            connection.write_all(format!("{head}{}\r\n\r\n{page}", page.len()).as_bytes()).await?;
        }
        Ok(asked)
    });
    Ok((endpoint, asked))
}

#[tokio::test]
async fn asks_for_every_page_of_a_long_listing() -> Outcome {
    let pages = [
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>\
         <Contents><Key>a</Key></Contents><Contents><Key>b</Key></Contents></ListBucketResult>",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>c</Key></Contents></ListBucketResult>",
    ];
    let (endpoint, asked) = paging(pages).await?;
    let objects = client(&config(endpoint), "any", "any").await;
    assert_eq!(objects.list("scans", "", 3).await?, ["a", "b", "c"]);
    let asked = asked.await??;
    assert!(asked[1].contains("continuation-token=more"), "{asked:?}");
    Ok(())
}

#[tokio::test]
async fn takes_the_key_as_it_stands() -> Outcome {
    let (_dir, store, objects) = store().await?;
    objects.put(&uri("s3://scans/a%20b+c/x"), Bytes::from_static(b"1"), "text/plain").await?;
    assert!(store.dir().join("scans/a%20b+c/x").is_file());
    Ok(())
}

#[tokio::test]
async fn replaces_an_object() -> Outcome {
    let (_dir, _store, objects) = store().await?;
    let uri = uri("s3://scans/x");
    objects.put(&uri, Bytes::from_static(b"first and longer"), "text/plain").await?;
    objects.put(&uri, Bytes::from_static(b"second"), "text/plain").await?;
    let second = objects.fetch(&uri, PLENTY).await?;
    assert_eq!(second.bytes, "second");
    objects.put(&uri, Bytes::from_static(b"third"), "text/plain").await?;
    let third = objects.fetch(&uri, PLENTY).await?;
    assert!(third.etag.is_some() && third.etag != second.etag, "{third:?} after {second:?}");
    assert_eq!(objects.fetch(&uri, PLENTY).await?.etag, third.etag);
    Ok(())
}

#[tokio::test]
async fn names_a_missing_object_and_a_missing_bucket() -> Outcome {
    let (_dir, _store, objects) = store().await?;
    let error = objects.get(&uri("s3://scans/nothing.png"), PLENTY).await.expect_err("missing");
    assert!(matches!(error, ObjectsError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("s3://scans/nothing.png") && !error.is_transient(), "{error}");

    objects.check("scans").await?;
    let error = objects.check("elsewhere").await.expect_err("missing");
    assert!(matches!(error, ObjectsError::NoBucket { .. }), "{error:?}");
    assert!(error.to_string().contains("bucket elsewhere") && !error.is_transient(), "{error}");
    Ok(())
}

/// A store that gives one answer, once, and where it is.
async fn answering(status: &'static str, body: &'static str) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await?;
        read_head(&mut connection).await?;
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n", body.len());
        connection.write_all(format!("{head}{body}").as_bytes()).await
    });
    Ok(endpoint)
}

/// The demo store makes a bucket that is missing; this is S3's own answer.
#[tokio::test]
async fn names_a_bucket_that_is_missing_when_an_object_is_wanted() -> Outcome {
    let body = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>";
    let endpoint = answering("404 Not Found", body).await?;
    let error = client(&config(endpoint), "any", "any").await.get(&uri("s3://elsewhere/x"), PLENTY).await.expect_err("missing");
    assert!(matches!(error, ObjectsError::NoBucket { .. }), "{error:?}");
    assert!(error.to_string().contains("bucket elsewhere") && !error.is_transient(), "{error}");
    Ok(())
}

#[tokio::test]
async fn credentials_that_have_expired_may_be_tried_again() -> Outcome {
    let body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
    let endpoint = answering("400 Bad Request", body).await?;
    let error = client(&config(endpoint), "any", "any").await.get(&uri("s3://scans/x"), PLENTY).await.expect_err("refused");
    assert!(matches!(error, ObjectsError::Denied { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("ExpiredToken") && error.to_string().contains("check the credentials"), "{error}");
    Ok(())
}

#[tokio::test]
async fn takes_an_object_of_the_limit_and_refuses_a_byte_more() -> Outcome {
    let (_dir, _store, objects) = store().await?;
    let uri = uri("s3://scans/x");
    objects.put(&uri, Bytes::from(vec![7; 100_000]), "image/png").await?;
    assert_eq!(objects.get(&uri, 100_000).await?.len(), 100_000);
    let error = objects.get(&uri, 99_999).await.expect_err("too large");
    assert!(matches!(error, ObjectsError::TooLarge { limit: 99_999, .. }) && !error.is_transient(), "{error}");
    Ok(())
}

#[tokio::test]
async fn counts_a_body_whose_length_is_not_announced() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await?;
        read_head(&mut connection).await?;
        connection.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        // It never ends by itself.
        while connection.write_all(b"5\r\nbytes\r\n").await.is_ok() {}
        std::io::Result::Ok(())
    });
    let objects = client(&config(endpoint), "any", "any").await;
    let error = objects.get(&uri("s3://scans/x"), 1_000).await.expect_err("endless");
    assert!(matches!(error, ObjectsError::TooLarge { limit: 1_000, .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn gives_up_on_a_body_that_stalls() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let quick =
        ObjectsConfig { attempt_timeout: Duration::from_millis(500), ..config(format!("http://{}", listener.local_addr()?)) };
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await?;
        read_head(&mut connection).await?;
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbytes").await?;
        // Keeps the connection open until the client closes it.
        connection.read_u8().await
    });
    let error = client(&quick, "any", "any").await.get(&uri("s3://scans/x"), 1_000).await.expect_err("stalled");
    assert!(matches!(error, ObjectsError::Unavailable { .. }) && error.is_transient(), "{error:?}");
    Ok(())
}

/// A request for the real store, caught on its way.
async fn caught_upload(store: &ObjectStore, body: &'static [u8]) -> Result<(String, Vec<u8>), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let objects = client(&config(format!("http://{}", listener.local_addr()?)), store.access_key(), store.secret_key()).await;
    let catch = async {
        let (mut connection, _) = listener.accept().await?;
        let head = read_head(&mut connection).await?;
        let mut sent = vec![0; body.len()];
        connection.read_exact(&mut sent).await?;
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        std::io::Result::Ok((head, sent))
    };
    let uri = uri("s3://scans/mask.png");
    let (put, caught) = tokio::join!(objects.put(&uri, Bytes::from_static(body), "image/png"), catch);
    put?;
    Ok(caught?)
}

/// The first line of the real store's answer.
async fn forward(store: &ObjectStore, head: &str, body: &[u8]) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(store.endpoint().trim_start_matches("http://")).await?;
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body).await?;
    let answer = read_head(&mut connection).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_upload_carries_its_checksum_and_is_refused_when_it_was_changed_on_the_way() -> Outcome {
    let (dir, store, _) = store().await?;
    let (head, body) = caught_upload(&store, b"the mask").await?;
    let checksum = head.lines().find_map(|line| line.strip_prefix("x-amz-checksum-sha256: "));
    assert_eq!(checksum, Some("OaUPokWuglIDsSwUk844mEQ9NFXgRtlLwXO16HLAuHU="), "{head}");
    // S3 says that the request is bad, and this store that it failed.
    assert_ne!(forward(&store, &head, b"the mAsk").await?, "HTTP/1.1 200 OK");
    let stored = dir.path().join("objects/scans/mask.png");
    assert!(!stored.exists());
    assert_eq!((forward(&store, &head, &body).await?.as_str(), std::fs::read(stored)?), ("HTTP/1.1 200 OK", body));
    Ok(())
}

#[tokio::test]
async fn says_that_wrong_credentials_are_refused() -> Outcome {
    let (_dir, store, _) = store().await?;
    for (access_key, secret_key) in [(store.access_key(), "wrong"), ("nobody", store.secret_key())] {
        let objects = client(&config(store.endpoint()), access_key, secret_key).await;
        for error in [
            objects.get(&uri("s3://scans/x"), PLENTY).await.expect_err("refused"),
            objects.put(&uri("s3://scans/x"), Bytes::new(), "text/plain").await.expect_err("refused"),
            objects.check("scans").await.expect_err("refused"),
        ] {
            assert!(matches!(error, ObjectsError::Denied { .. }) && error.is_transient(), "{error:?}");
            assert!(error.to_string().contains("check the credentials") && !error.to_string().contains(secret_key), "{error}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_away_may_be_tried_again_and_comes_back() -> Outcome {
    let (_dir, mut store, objects) = store().await?;
    let uri = uri("s3://scans/x");
    objects.put(&uri, Bytes::from_static(b"kept"), "text/plain").await?;

    store.stop();
    let begin = Instant::now();
    let error = objects.get(&uri, PLENTY).await.expect_err("away");
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(begin.elapsed() < ObjectsConfig::default().operation_timeout);

    store.restart().await?;
    assert_eq!(objects.get(&uri, PLENTY).await?, "kept");
    Ok(())
}
