//! Manifests on their way in: the whole one or nothing.

use axum::body::Bytes;
use futures_util::stream;
use reqwest::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{System, line, manifest};

const MEBIBYTE: usize = 1 << 20;

#[tokio::test]
async fn refuses_a_manifest_with_bad_lines_whole_and_names_each() {
    let system = System::start().await;
    let bad = [
        line(1),
        "not json\n".into(),
        "\n".into(),
        "{\"image\":\"s3://scans/a.png\",\"points\":[[1,2,0]]}\n".into(),
        "{\"image\":\"s3://scans/a.png\",\"points\":[[1,2,1]],\"pool\":\"tpu\"}\n".into(),
        "{\"image\":\"s3://scans/a.png\",\"points\":[[1,2,1]],\"id\":\"a\\u0000b\"}\n".into(),
        format!("{}\n", " ".repeat(300_000)),
        line(8),
        "{\"image\":\"s3://scans/last.png\"}".into(),
    ];
    let answer = system.dispatcher.post("/v1/batches?pool=gpu", bad.concat()).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (400, "7 of 9 lines are bad; nothing was submitted"));
    let expected = [
        (2, "expected ident"),
        (3, "blank"),
        (4, "no positive point"),
        (5, "pool \"tpu\" is unknown, expected one of: cpu, gpu"),
        (6, "the id has 3 bytes or a control character"),
        (7, "the line has 300000 bytes, expected at most 262144"),
        (9, "nothing says what to segment"),
    ];
    let lines = answer.json["lines"].as_array().unwrap();
    assert_eq!(lines.len(), expected.len(), "{answer:?}");
    for (found, (number, part)) in lines.iter().zip(expected) {
        assert_eq!(found["line"], number);
        assert!(found["error"].as_str().unwrap().contains(part), "{found}");
    }
    assert_eq!(system.queued().await, 0);
}

#[tokio::test]
async fn refuses_fields_that_do_not_go_together_and_says_which() {
    let system = System::start().await;
    let truth = r#""truth":"s3://scans/t.png""#;
    let points = r#""points":[[1,2,1]]"#;
    let cases = [
        (format!(r#"{points},"objects":[{{{points}}}]"#), "points and objects exclude each other"),
        (format!(r#"{points},"methods":["untuned"]"#), "methods is for evaluations only: it needs truth"),
        (r#""setting":"3/3""#.into(), "setting is for evaluations only: it needs truth"),
        (format!(r#"{truth},{points},"repeats":5"#), "points and repeats exclude each other"),
        (format!(r#"{truth},"setting":"3/3","repeats":0"#), "repeats is 0, expected 1 to 100"),
        (format!(r#"{truth},"setting":"3/3","methods":[]"#), "methods is empty"),
        (format!(r#"{truth},"setting":"3/3","methods":["untuned","untuned"]"#), "methods has untuned twice"),
        (truth.into(), "an evaluation needs points, or a setting"),
        (r#""objects":[]"#.into(), "0 objects, expected 1 to 64"),
    ];
    let lines: Vec<String> = cases.iter().map(|(fields, _)| format!("{{\"image\":\"s3://scans/a.png\",{fields}}}\n")).collect();
    let answer = system.dispatcher.post("/v1/batches?pool=gpu", lines.concat()).await;
    assert_eq!(answer.error(), "9 of 9 lines are bad; nothing was submitted");
    for (found, (fields, part)) in answer.json["lines"].as_array().unwrap().iter().zip(&cases) {
        assert!(found["error"].as_str().unwrap().contains(part), "{fields}: {found}");
    }
    assert_eq!(system.queued().await, 0);
}

#[tokio::test]
async fn takes_a_manifest_with_a_byte_order_mark_and_no_second_one() {
    let system = System::start().await;
    let marked = format!("\u{feff}{}", manifest(2));
    let answer = system.dispatcher.post("/v1/batches?pool=gpu", marked.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.json["jobs"].as_u64()), (201, Some(2)), "{answer:?}");
    let answer = system.dispatcher.post("/v1/batches?pool=gpu", marked.repeat(2)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["lines"][0]["line"]), (400, &3.into()), "{answer:?}");
    assert_eq!(system.queued().await, 2);
}

#[tokio::test]
async fn lists_the_first_thousand_bad_lines_and_counts_the_others() {
    let system = System::start().await;
    let answer = system.dispatcher.post("/v1/batches?pool=gpu", "{}\n".repeat(1_500)).await;
    assert_eq!((answer.status.as_u16(), answer.json["bad_lines"].as_u64()), (400, Some(1_500)));
    let lines = answer.json["lines"].as_array().unwrap();
    assert_eq!((lines.len(), lines[999]["line"].as_u64()), (1_000, Some(1_000)));
}

#[tokio::test]
async fn refuses_what_is_no_manifest_at_all() {
    let system = System::start_with(crate::support::NO_BROKER, &["--max-manifest-bytes", "1000000"]).await;
    let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 1_000]].concat();
    let gzip = [b"\x1f\x8b\x08\x00".as_slice(), &[7; 1_000]].concat();
    let large = manifest(20_000);
    let announced: Body = large.clone().into();
    let streamed = Body::wrap_stream(stream::iter(
        large.into_bytes().chunks(10_000).map(Bytes::copy_from_slice).map(Ok::<_, String>).collect::<Vec<_>>(),
    ));
    let cases: [(Body, u16, &str); 6] = [
        ("".into(), 400, "the manifest is empty"),
        (png.into(), 400, "the manifest is binary"),
        (gzip.into(), 400, "if it is compressed, unpack it first"),
        ("\n".into(), 400, "1 of 1 lines is bad"),
        (announced, 413, "more than 1000000 bytes"),
        (streamed, 413, "more than 1000000 bytes"),
    ];
    for (body, status, part) in cases {
        let answer = system.dispatcher.post("/v1/batches?pool=gpu", body).await;
        assert_eq!(answer.status, status, "{part}: {answer:?}");
        assert!(answer.error().contains(part), "{answer:?}");
    }
    assert_eq!(system.queued().await, 0);
}

#[tokio::test]
async fn needs_little_memory_for_long_manifests_and_endless_lines() {
    let system = System::start().await;
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", system.dispatcher.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
    };
    system.dispatcher.post("/v1/batches?pool=gpu", manifest(1)).await.id();
    let before = peak();

    let submitted = system.dispatcher.post("/v1/batches?pool=gpu", manifest(100_000)).await;
    assert_eq!(submitted.json["jobs"], 100_000);
    let chunk = Bytes::from(vec![b'x'; MEBIBYTE]);
    let endless = stream::iter(std::iter::repeat_n(Ok::<_, String>(chunk), 200));
    let answer = system.dispatcher.post("/v1/batches?pool=gpu", Body::wrap_stream(endless)).await;
    assert!(answer.json["lines"][0]["error"].as_str().unwrap().contains("the line has 209715200 bytes"), "{answer:?}");

    let growth = peak() - before;
    assert!(growth < 12 * MEBIBYTE, "grew by {growth} bytes for bodies of 8 and 200 MiB");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing_behind() {
    let mut system = System::start().await;
    let address = system.dispatcher.url.trim_start_matches("http://").to_owned();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = manifest(5_000);
    let head = format!("POST /v1/batches?pool=gpu HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len() + 1);
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    // The end of the answer is the end of the upload's transaction.
    let mut answer = String::new();
    let _ = connection.read_to_string(&mut answer).await;
    assert!(!answer.starts_with("HTTP/1.1 201"), "{answer}");
    drop(connection);

    assert_eq!(system.dispatcher.stop().await, Some(0), "{}", system.dispatcher.log());
    assert_eq!(system.queued().await, 0);
}
