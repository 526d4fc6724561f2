//! Text that means something to a program somewhere on its way: it is kept as it stands or refused, and nothing of it is ever done.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, System, reqwest_client};

/// For SQL, COPY's text format, shells, paths, formats, templates, terminals and readers of JSON.
const HOSTILE: [&str; 24] = [
    "'; DROP TABLE jobs; --",
    "\"; DELETE FROM tokens; --",
    "' OR '1'='1",
    "$1; SELECT pg_sleep(60)",
    "\\",
    "\\.",
    "\\N",
    "a\\tb\\nc",
    "a\\\\.b",
    "$(touch injected)",
    "`touch injected`",
    "; touch injected #",
    "| touch injected",
    "../../../../etc/passwd",
    "..\\..\\windows",
    "%2e%2e%2fetc%2fpasswd",
    "{}{0}%s%n{{7*7}}${7*7}",
    "${jndi:ldap://127.0.0.1:1/a}",
    "<script>alert(1)</script>",
    "\",\"state\":\"succeeded\",\"x\":\"",
    "=1+1",
    "\u{202e}gnp.elif",
    "\u{feff}e\u{301}\u{10ffff}",
    "2030-01-01T00:00:00Z ERROR dispatcher: forged",
];
/// Each is a control character, which no text field takes.
const CONTROL: [&str; 6] = ["a\u{0}b", "a\nb", "a\rb", "a\tb", "a\u{1b}[2Jb", "a\u{85}b"];

async fn submit(system: &System, query: &[(&str, &str)], headers: &[(&str, &str)], body: String) -> Answer {
    let mut request = reqwest_client().post(format!("{}/v1/batches", system.dispatcher.url)).query(query).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(request.send().await.unwrap()).await
}

async fn jobs_of(system: &System, batch: Uuid) -> Vec<Value> {
    let page = system.dispatcher.get(&format!("/v1/batches/{batch}/jobs?limit=1000")).await.json;
    page["jobs"].as_array().unwrap().clone()
}

/// A line with hostile text in every place that takes some.
fn line(text: &str) -> Value {
    json!({
        "image": format!("s3://scans/{text}"), "truth": format!("s3://truths/{text}"), "setting": "1/0",
        "id": text, "group": text,
    })
}

#[tokio::test]
async fn hostile_text_is_kept_as_it_stands() {
    let system = System::start().await;
    // Keys that stores read in different ways are refused; every other text is an object's name like any.
    let is_key = |text: &str| !text.split('/').any(|part| matches!(part, "" | "." | ".."));
    let usable: Vec<&str> = HOSTILE.into_iter().filter(|text| is_key(text)).collect();
    // Often enough that most of it goes by COPY, and the last of it by INSERT.
    let texts: Vec<&str> = usable.iter().copied().cycle().take(usable.len() * 45).collect();
    let body: Vec<String> = texts.iter().map(|text| line(text).to_string()).collect();
    assert!(body.join("\n").len() > 128 * 1_024, "{}", body.join("\n").len());
    let batch = submit(&system, &[("pool", "gpu")], &[], body.join("\n")).await.id();
    let jobs = jobs_of(&system, batch).await;
    assert_eq!(jobs.len(), texts.len());
    for (job, text) in jobs.iter().zip(&texts) {
        let evaluation = &job["evaluation"];
        let kept = json!([job["image"], evaluation["truth"], job["user_id"], evaluation["group"]]);
        assert_eq!(kept, json!([format!("s3://scans/{text}"), format!("s3://truths/{text}"), text, text]));
        assert_eq!(job["state"], "queued");
    }

    for text in HOSTILE {
        let segmented = json!({"image": "s3://scans/a.png", "objects": [{"id": text, "points": [[1, 2, 1]]}]}).to_string();
        let named = submit(&system, &[("pool", "gpu"), ("name", text)], &[], segmented.clone()).await.id();
        assert_eq!(system.dispatcher.get(&format!("/v1/batches/{named}")).await.json["name"], text);
        assert_eq!(jobs_of(&system, named).await[0]["objects"][0]["id"], text);
        // The same name and content is the same batch, so the comparison in the database is of the text itself.
        assert_eq!(
            submit(&system, &[("pool", "gpu"), ("name", text)], &[], segmented.clone()).await.json["id"],
            named.to_string()
        );
        if text.is_ascii() {
            let keyed = submit(&system, &[("pool", "gpu")], &[("idempotency-key", text)], segmented.clone()).await.id();
            let again = submit(&system, &[("pool", "gpu")], &[("idempotency-key", text)], segmented).await;
            assert_eq!((again.status.as_u16(), &again.json["id"]), (200, &keyed.to_string().into()));
        }
        let token = reqwest_client().post(format!("{}/v1/tokens", system.dispatcher.url));
        let made = Answer::read(token.json(&json!({"name": text, "scope": "read"})).send().await.unwrap()).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    let tokens = system.dispatcher.get("/v1/tokens").await.json;
    let names: Vec<&str> = tokens["tokens"].as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!(names, HOSTILE.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(system.ledger.pool_names().await.unwrap(), ["cpu", "gpu"], "every table is there");
    assert!(!std::path::Path::new("injected").exists() && !system.dir.path().join("injected").exists());
}

#[tokio::test]
async fn text_that_cannot_be_kept_is_refused_and_leaves_nothing() {
    let system = System::start().await;
    let good = r#"{"image":"s3://scans/a.png","points":[[1,2,1]]}"#;
    for text in CONTROL {
        for field in ["image", "truth", "id", "group"] {
            let mut line = line("a");
            line[field] = if matches!(field, "image" | "truth") { format!("s3://scans/{text}").into() } else { text.into() };
            let refused = submit(&system, &[("pool", "gpu")], &[], line.to_string()).await;
            assert_eq!(refused.status, 400, "{field}: {text:?}: {refused:?}");
            let said = refused.json["lines"][0]["error"].as_str().unwrap();
            assert!(said.contains("control character") && !said.contains(text), "{field}: {said}");
        }
        let refused = submit(&system, &[("pool", "gpu"), ("name", text)], &[], good.into()).await;
        assert!(refused.status == 400 && refused.error().contains("control character"), "{text:?}: {refused:?}");
    }
    for text in HOSTILE.into_iter().chain(CONTROL) {
        let refused = submit(&system, &[("pool", text)], &[], good.into()).await;
        assert!(refused.status == 400 && refused.error().contains("is unknown, expected one of: cpu, gpu"), "{refused:?}");
        let with_pool = json!({"image": "s3://scans/a.png", "points": [[1, 2, 1]], "pool": text}).to_string();
        let refused = submit(&system, &[("pool", "gpu")], &[], with_pool).await;
        assert_eq!((refused.status.as_u16(), &refused.json["bad_lines"]), (400, &1.into()), "{refused:?}");
        for path in ["batches", "jobs", "pools", "tokens"] {
            let mut url: reqwest::Url = system.dispatcher.url.parse().unwrap();
            url.path_segments_mut().unwrap().extend(["v1", path, text]);
            let answer = Answer::read(reqwest_client().get(url).send().await.unwrap()).await;
            assert!(matches!(answer.status.as_u16(), 400 | 404 | 405 | 503), "{path}/{text:?}: {answer:?}");
        }
    }
    // Nor is a bad trace a reason to refuse, or anything that is kept.
    for text in HOSTILE.into_iter().filter(|text| text.is_ascii()) {
        submit(&system, &[("pool", "gpu")], &[("traceparent", text)], good.into()).await.id();
    }
    let kept = HOSTILE.iter().filter(|text| text.is_ascii()).count() as u64;
    assert_eq!(system.queued().await, kept, "the batches with a bad trace, and no other");
    let log = system.dispatcher.log();
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"] != "ERROR")), "{log}");
}
