//! Faults of the network and of the store: tried again with limits, and then an error that says the cause.

use std::time::Duration;

use bytes::Bytes;
use objects::{Download, DownloadError, Objects, ObjectsConfig, ObjectsError};
use request::S3Uri;
use servers::{Mode, ObjectStore, Proxy, SLOW_DOWN};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use crate::support::{Outcome, PLENTY, client, config, read_head, store, uri};

/// The attempts at a request, or at its body.
const ATTEMPTS: u64 = 3;
const INTERNAL_ERROR: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-type: application/xml\r\ncontent-length: 83\r\n\r\n\
    <Error><Code>InternalError</Code><Message>We encountered an error</Message></Error>";
const NO_SUCH_KEY: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-type: application/xml\r\ncontent-length: 63\r\n\r\n\
    <Error><Code>NoSuchKey</Code><Message>no key</Message></Error>\n";
const ACCESS_DENIED: &[u8] =
    b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: application/xml\r\ncontent-length: 65\r\n\r\n\
    <Error><Code>AccessDenied</Code><Message>denied</Message></Error>";

/// A store behind a proxy, with one object, and an impatient client.
struct Behind {
    proxy: Proxy,
    objects: Objects,
    object: S3Uri,
    content: Bytes,
    store: (TempDir, ObjectStore, Objects),
}

impl Behind {
    async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let store = store().await?;
        let proxy = Proxy::start(store.1.address())?;
        let impatient = ObjectsConfig {
            read_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_millis(1_500),
            operation_timeout: Duration::from_secs(10),
            ..config(store.1.endpoint_via(proxy.address()))
        };
        let objects = client(&impatient, store.1.access_key(), store.1.secret_key()).await;
        let object = uri("s3://scans/x");
        let content: Bytes = (0..400_000_u32).map(|number| (number % 251) as u8).collect();
        store.2.put(&object, content.clone(), "image/png").await?;
        Ok(Self { proxy, objects, object, content, store })
    }

    async fn get(&self) -> Result<Bytes, ObjectsError> {
        self.objects.get(&self.object, PLENTY).await
    }

    async fn put(&self) -> Result<(), ObjectsError> {
        self.objects.put(&self.object, self.content.clone(), "image/png").await
    }

    /// Reading and writing fail while this mode lasts, with all these words, and work afterwards. How many connections that took.
    async fn fails_while(&self, mode: Mode, words: &[&str]) -> Result<[u64; 2], ObjectsError> {
        self.proxy.set(mode);
        let before = self.proxy.accepted();
        let get = self.get().await.expect_err("cannot be read");
        let between = self.proxy.accepted();
        let put = self.put().await.expect_err("cannot be written");
        let after = self.proxy.accepted();
        for error in [&get, &put] {
            assert!(matches!(error, ObjectsError::Unavailable { .. }) && error.is_transient(), "{mode:?}: {error:?}");
        }
        let text = get.to_string().to_lowercase();
        assert!(words.iter().all(|word| text.contains(word)), "{mode:?}: {text}");
        self.proxy.set(Mode::Pass);
        self.put().await?;
        assert_eq!(self.get().await?, self.content);
        Ok([between - before, after - between])
    }
}

#[tokio::test]
async fn a_store_that_is_busy_or_fails_inside_is_asked_three_times() -> Outcome {
    let behind = Behind::start().await?;
    for (answer, code) in [(SLOW_DOWN, "slowdown"), (INTERNAL_ERROR, "internalerror")] {
        let connections = behind.fails_while(Mode::Answer(answer), &[code, "s3://scans/x"]).await?;
        // The first attempt may have met the end of a connection that lay idle.
        assert!(connections.iter().all(|made| (ATTEMPTS - 1..=ATTEMPTS).contains(made)), "{code}: {connections:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_burst_of_refusals_is_waited_out() -> Outcome {
    let behind = Behind::start().await?;
    behind.proxy.set(Mode::Answer(SLOW_DOWN));
    let burst_ends = async {
        while behind.proxy.accepted() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        behind.proxy.set(Mode::Pass);
    };
    let (content, ()) = tokio::join!(behind.get(), burst_ends);
    assert_eq!(content?, behind.content);
    assert!(behind.proxy.accepted() >= 2, "the first was refused");
    Ok(())
}

#[tokio::test]
async fn what_the_store_refuses_for_good_is_not_asked_again() -> Outcome {
    let behind = Behind::start().await?;
    behind.proxy.set(Mode::Answer(NO_SUCH_KEY));
    let error = behind.get().await.expect_err("missing");
    assert!(matches!(error, ObjectsError::NotFound { .. }) && !error.is_transient(), "{error:?}");
    behind.proxy.set(Mode::Answer(ACCESS_DENIED));
    let error = behind.put().await.expect_err("denied");
    assert!(matches!(error, ObjectsError::Denied { .. }), "{error:?}");
    assert_eq!(behind.proxy.accepted(), 2);
    Ok(())
}

#[tokio::test]
async fn connections_that_are_cut_or_reset_are_made_again_a_few_times() -> Outcome {
    let behind = Behind::start().await?;
    for mode in [Mode::Cut, Mode::Reset] {
        let connections = behind.fails_while(mode, &["s3://scans/x", "connection"]).await?;
        assert!(connections.iter().all(|made| (ATTEMPTS - 1..=2 * ATTEMPTS).contains(made)), "{mode:?}: {connections:?}");
    }
    // One that lies idle is not missed.
    behind.get().await?;
    behind.proxy.reset_connections();
    behind.put().await?;
    behind.proxy.close_connections();
    assert_eq!(behind.get().await?, behind.content);
    Ok(())
}

#[tokio::test]
async fn silence_is_not_waited_for_long() -> Outcome {
    let behind = Behind::start().await?;
    for mode in [Mode::Stall, Mode::StallAnswers] {
        behind.fails_while(mode, &["s3://scans/x", "time"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_again_three_times_and_is_never_taken_for_whole() -> Outcome {
    let behind = Behind::start().await?;
    behind.proxy.set(Mode::Truncate(200_000));
    let error = behind.get().await.expect_err("half an object");
    assert!(matches!(error, ObjectsError::Unavailable { .. }) && error.is_transient(), "{error:?}");
    assert_eq!(behind.proxy.accepted(), ATTEMPTS);

    let whole_again = async {
        while behind.proxy.accepted() == ATTEMPTS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        behind.proxy.set(Mode::Pass);
    };
    let (content, ()) = tokio::join!(behind.get(), whole_again);
    assert_eq!(content?, behind.content);
    Ok(())
}

/// Each byte comes soon after the last one, and the whole would take more than two seconds.
#[tokio::test]
async fn a_body_that_trickles_in_is_given_up_in_time() -> Outcome {
    let behind = Behind::start().await?;
    behind.proxy.set(Mode::Delay(Duration::from_millis(100)));
    let error = behind.get().await.expect_err("too slow");
    assert!(matches!(error, ObjectsError::Unavailable { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("was not read within 1.5s"), "{error}");
    behind.proxy.set(Mode::Pass);
    assert_eq!(behind.get().await?, behind.content);
    Ok(())
}

/// A store that says of each object that it has this checksum, and how often it was asked at least.
async fn telling(checksum: &'static str) -> std::io::Result<(String, tokio::sync::watch::Receiver<u64>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (count, asked) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await?;
            read_head(&mut connection).await?;
            count.send_modify(|count| *count += 1);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\nx-amz-checksum-crc32: {checksum}\r\n\r\n123456789"
            );
            connection.write_all(answer.as_bytes()).await?;
        }
        #[expect(unreachable_code, reason = "it says the type of the loop's errors")]
        std::io::Result::Ok(())
    });
    Ok((endpoint, asked))
}

#[tokio::test]
async fn content_that_is_not_what_the_store_says_is_read_again_and_refused() -> Outcome {
    // CBF43926 is the check value of CRC-32, of these very nine bytes.
    let (endpoint, _) = telling("y/Q5Jg==").await?;
    assert_eq!(client(&config(endpoint), "any", "any").await.get(&uri("s3://scans/x"), PLENTY).await?, "123456789");

    let (endpoint, asked) = telling("AAAAAA==").await?;
    let error = client(&config(endpoint), "any", "any").await.get(&uri("s3://scans/x"), PLENTY).await.expect_err("wrong content");
    assert!(matches!(error, ObjectsError::Unavailable { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(*asked.borrow(), ATTEMPTS);
    Ok(())
}

/// An empty file that an object is read into.
fn empty() -> std::io::Result<(tempfile::NamedTempFile, Download)> {
    let file = tempfile::NamedTempFile::new()?;
    let download = Download::new(file.reopen()?.into());
    Ok((file, download))
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stood() -> Outcome {
    let behind = Behind::start().await?;
    behind.proxy.set(Mode::Truncate(100_000));
    let (file, mut download) = empty()?;
    let mut there_before = 0;
    let mut goes_on = |there: u64, whole: Option<u64>| {
        assert!(there > there_before && whole == Some(400_000), "{there} of {whole:?} bytes after {there_before}");
        there_before = there;
    };
    behind.objects.download(&behind.object, &mut download, PLENTY, &mut goes_on).await?;
    assert_eq!(download.finish().await?, sha256(&behind.content));
    assert!(std::fs::read(file.path())? == behind.content);
    // Each connection brings its share, less the answer's head; one may bring nothing on a busy machine.
    assert!(behind.proxy.accepted() >= 5, "{}", behind.proxy.accepted());
    Ok(())
}

#[tokio::test]
async fn a_download_is_given_up_in_silence_and_goes_on_later_unless_the_object_was_replaced() -> Outcome {
    let behind = Behind::start().await?;
    let replacements: [Option<Bytes>; 3] = [None, Some(vec![7; 300_000].into()), Some(vec![8; 1_000].into())];
    for replacement in replacements {
        behind.store.2.put(&behind.object, behind.content.clone(), "image/png").await?;
        let (file, mut download) = empty()?;
        // Slow enough that most of it is not on its way yet when the first piece is there.
        behind.proxy.set(Mode::Delay(Duration::from_millis(50)));
        let mut fall_silent = |_: u64, _: Option<u64>| behind.proxy.set(Mode::Stall);
        let error = behind.objects.download(&behind.object, &mut download, PLENTY, &mut fall_silent).await.expect_err("silence");
        assert!(matches!(&error, DownloadError::Store(error) if error.is_transient()), "{error:?}");

        if let Some(replacement) = &replacement {
            behind.store.2.put(&behind.object, replacement.clone(), "image/png").await?;
        }
        behind.proxy.set(Mode::Pass);
        behind.objects.download(&behind.object, &mut download, PLENTY, &mut |_, _| {}).await?;
        let expected = replacement.as_ref().unwrap_or(&behind.content);
        assert_eq!(download.finish().await?, sha256(expected));
        assert!(std::fs::read(file.path())? == *expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_download_keeps_to_its_limit_and_tells_of_a_full_disk() -> Outcome {
    let behind = Behind::start().await?;
    let into = |path: &str| Ok::<_, std::io::Error>(Download::new(std::fs::File::options().write(true).open(path)?.into()));
    let error =
        behind.objects.download(&behind.object, &mut into("/dev/null")?, 399_999, &mut |_, _| {}).await.expect_err("too long");
    assert!(matches!(error, DownloadError::Store(ObjectsError::TooLarge { .. })), "{error:?}");
    let error = behind.objects.download(&behind.object, &mut into("/dev/full")?, PLENTY, &mut |_, _| {}).await.expect_err("full");
    assert!(matches!(error, DownloadError::File(_)) && error.to_string().contains("No space left"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn an_object_that_is_replaced_while_it_is_read_is_the_new_one_as_a_whole() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let serve = tokio::spawn(async move {
        // Breaks off after the half.
        for (etag, body) in [("old", "old o"), ("new", "new object")] {
            let (mut connection, _) = listener.accept().await?;
            read_head(&mut connection).await?;
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\netag: \"{etag}\"\r\ncontent-length: 10\r\n\r\n");
            connection.write_all(format!("{head}{body}").as_bytes()).await?;
        }
        std::io::Result::Ok(())
    });
    let object = client(&config(endpoint), "any", "any").await.fetch(&uri("s3://scans/x"), PLENTY).await?;
    assert_eq!((&object.bytes[..], object.etag.as_deref()), (&b"new object"[..], Some("new")));
    Ok(serve.await??)
}
