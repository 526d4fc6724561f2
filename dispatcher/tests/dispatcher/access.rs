//! Who is let in, and to what.

use std::collections::BTreeSet;

use ledger::{NewToken, ProjectChange, Scope};
use request::AllowList;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use servers::Postgres;
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

use crate::support::{Answer, Dispatcher, NO_BROKER, PROGRAM, System, client, line, manifest, reqwest_client};

/// A dispatcher that asks for tokens, two projects, and a token of each scope for the first.
struct Guarded {
    system: System,
    tokens: [(Scope, String); 3],
}

impl Guarded {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let postgres = Postgres::start(&dir.path().join("postgres")).await.unwrap();
        let dispatcher = Dispatcher::start_with_tokens(&postgres.url(), NO_BROKER, arguments).await;
        dispatcher.ready_for_batches().await;
        let ledger = ledger::Ledger::connect(&postgres.url(), 4).await.unwrap();
        let system = System { dispatcher, postgres, ledger, dir };
        for name in ["ours", "theirs"] {
            assert!(system.ledger.create_project(name, &list(&["s3://scans"]), 1_000).await.unwrap());
        }
        let mut tokens = Vec::new();
        for scope in [Scope::Read, Scope::Submit, Scope::Admin] {
            tokens.push((scope, token(&system, "ours", scope).await.1));
        }
        Self { system, tokens: tokens.try_into().unwrap() }
    }

    fn token(&self, scope: Scope) -> &str {
        &self.tokens.iter().find(|(of, _)| *of == scope).unwrap().1
    }

    /// Asks with a token, or with none.
    async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: impl Into<reqwest::Body>) -> Answer {
        let mut request = reqwest_client().request(method, format!("{}{path}", self.system.dispatcher.url)).body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    async fn submit(&self, token: &str, lines: usize) -> Uuid {
        self.ask(Method::POST, "/v1/batches?pool=gpu", Some(token), manifest(lines)).await.id()
    }
}

fn list(entries: &[&str]) -> AllowList {
    AllowList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
}

async fn token(system: &System, project: &str, scope: Scope) -> (Uuid, String) {
    let token = NewToken { project: project.into(), name: "a test's".into(), scope, lifetime: None };
    system.ledger.create_token(&token).await.unwrap()
}

/// Every route of the API, and what a token must be able to do there.
const ROUTES: [(&str, &str, Scope); 14] = [
    ("get", "/v1/batches/{id}", Scope::Read),
    ("get", "/v1/batches/{id}/jobs", Scope::Read),
    ("get", "/v1/batches/{id}/scores", Scope::Read),
    ("get", "/v1/jobs/{id}", Scope::Read),
    ("get", "/v1/pools", Scope::Read),
    ("get", "/v1/pools/{name}", Scope::Read),
    ("post", "/v1/batches", Scope::Submit),
    ("post", "/v1/batches/{id}/cancel", Scope::Submit),
    ("post", "/v1/batches/{id}/retry", Scope::Submit),
    ("post", "/v1/jobs/{id}/cancel", Scope::Submit),
    ("post", "/v1/jobs/{id}/retry", Scope::Submit),
    ("get", "/v1/tokens", Scope::Admin),
    ("post", "/v1/tokens", Scope::Admin),
    ("delete", "/v1/tokens/{id}", Scope::Admin),
];

#[tokio::test]
async fn every_route_of_the_document_refuses_whoever_may_not() {
    let guarded = Guarded::start().await;
    let document = guarded.ask(Method::GET, "/openapi.json", None, "").await.json;
    let routes: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())))
        .collect();
    assert_eq!(
        routes,
        ROUTES.iter().map(|(method, path, _)| ((*method).into(), (*path).into())).collect(),
        "ROUTES has them all"
    );

    let theirs = token(&guarded.system, "theirs", Scope::Admin).await.1;
    let (revoked_id, revoked) = token(&guarded.system, "ours", Scope::Admin).await;
    assert!(guarded.system.ledger.revoke_token(None, revoked_id).await.unwrap());
    let batch = guarded.submit(guarded.token(Scope::Submit), 1).await;
    let job = guarded.system.ledger.jobs(batch, 0, 1).await.unwrap()[0].id;
    let disposable = token(&guarded.system, "ours", Scope::Read).await.0;

    for (method, route, needs) in ROUTES {
        let id = match route {
            _ if route.contains("/batches/") => batch,
            _ if route.contains("/jobs/") => job,
            _ => disposable,
        };
        let path = route.replace("{id}", &id.to_string()).replace("{name}", "gpu");
        let (path, body) = match (method, route) {
            ("post", "/v1/batches") => (format!("{path}?pool=gpu"), manifest(1)),
            _ => (path, String::new()),
        };
        let http_method: Method = method.to_uppercase().parse().unwrap();
        let ask = async |token: Option<&str>| guarded.ask(http_method.clone(), &path, token, body.clone()).await;
        for (what, token) in [
            ("no token", None),
            ("a revoked one", Some(revoked.as_str())),
            ("none of ours", Some("dotmask_0000000000000000000000000000000000000000000000000000000000000000")),
            ("nonsense", Some("' OR 1=1 --")),
            ("a very long one", Some(&*"x".repeat(10_000))),
        ] {
            let answer = ask(token).await;
            assert_eq!(answer.status, 401, "{method} {route} with {what}: {answer:?}");
            assert!(answer.error().contains("token"), "{answer:?}");
        }
        for (scope, token) in &guarded.tokens {
            let answer = ask(Some(token)).await;
            if *scope < needs {
                assert_eq!(answer.status, 403, "{method} {route} with {scope:?}: {answer:?}");
                assert!(answer.error().contains(&format!("needs a token of the scope {}", needs.label())), "{answer:?}");
            } else {
                // Some are refused for what they ask, or nobody has measured the pools yet; but they are let in.
                assert!(
                    !matches!(answer.status.as_u16(), 401 | 403 | 404 | 405 | 500),
                    "{method} {route} with {scope:?}: {answer:?}"
                );
            }
        }
        // Of another project: what bears an id is not there, whoever asks.
        if route.contains("{id}") {
            let answer = ask(Some(&theirs)).await;
            assert_eq!(answer.status, 404, "{method} {route} with another project's: {answer:?}");
            assert!(answer.error().starts_with("there is no"), "{answer:?}");
        }
        let described = &document["paths"][route][method];
        assert_eq!(described["security"], json!([{"token": [needs.label()]}]), "{method} {route}");
        assert!(described["responses"]["401"].is_object() && described["responses"]["403"].is_object(), "{described}");
    }
    assert_eq!(document["components"]["securitySchemes"]["token"], json!({"type": "http", "scheme": "bearer"}));
}

#[tokio::test]
async fn a_refusal_changes_nothing_and_says_how_to_ask() {
    let guarded = Guarded::start().await;
    let url = format!("{}/v1/batches?pool=gpu", guarded.system.dispatcher.url);
    // Longer than what a connection holds: the answer must reach who still sends.
    let refused = reqwest_client().post(&url).body(manifest(100_000)).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer realm=\"dotmask\"");
    let token = guarded.token(Scope::Submit);
    for header in [
        format!("Basic {token}"),
        format!("Bearer{token}"),
        "Bearer ".into(),
        format!("Bearer {token}, Bearer {token}"),
        format!("Bearer {token} "),
        token.to_owned(),
    ] {
        let refused = reqwest_client().post(&url).header("authorization", &header).body(manifest(1)).send().await.unwrap();
        // The space at the end is HTTP's, and no part of the header.
        let expected = if header.ends_with(' ') && header.len() > 10 { 201 } else { 401 };
        assert_eq!(refused.status(), expected, "{header}");
    }
    let twice = reqwest_client().post(&url).bearer_auth(token).header("authorization", format!("Bearer {token}"));
    assert_eq!(twice.body(manifest(1)).send().await.unwrap().status(), 401);
    let lower = reqwest_client().post(&url).header("authorization", format!("bearer {token}")).body(manifest(1));
    assert_eq!(lower.send().await.unwrap().status(), 201, "a scheme has no case");
    assert_eq!(guarded.system.queued().await, 2);
}

#[tokio::test]
async fn a_projects_admin_makes_lists_and_revokes_its_tokens() {
    let guarded = Guarded::start().await;
    let admin = Some(guarded.token(Scope::Admin));
    let post = async |body: Value| {
        let request = reqwest_client().post(format!("{}/v1/tokens", guarded.system.dispatcher.url)).json(&body);
        Answer::read(request.bearer_auth(guarded.token(Scope::Admin)).send().await.unwrap()).await
    };
    let made = post(json!({"name": "the reading room's", "scope": "submit", "expires_in_days": 30})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let (id, token) = (made.json["id"].as_str().unwrap(), made.json["token"].as_str().unwrap());
    guarded.submit(token, 1).await;

    let listed = guarded.ask(Method::GET, "/v1/tokens", admin, "").await.json;
    let tokens = listed["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 4, "the new one first, and the three of the beginning: {listed}");
    let new = &tokens[0];
    assert_eq!((&new["id"], &new["name"], &new["scope"]), (&id.into(), &"the reading room's".into(), &"submit".into()));
    assert!(new["expires_at"].is_string() && new["last_used_at"].is_string() && new["revoked_at"].is_null(), "{new}");
    assert!(!listed.to_string().contains(&token[8..]), "its text is in the list");

    let revoked = guarded.ask(Method::DELETE, &format!("/v1/tokens/{id}"), admin, "").await;
    assert_eq!(revoked.status, 204, "{revoked:?}");
    let refused = guarded.ask(Method::POST, "/v1/batches?pool=gpu", Some(token), manifest(1)).await;
    assert_eq!(refused.status, 401, "at once: {refused:?}");

    for (body, part) in [
        (json!({"name": "", "scope": "read"}), "name"),
        (json!({"name": "a\nb", "scope": "read"}), "name"),
        (json!({"name": "x", "scope": "root"}), "root"),
        (json!({"name": "x"}), "scope"),
        (json!({"name": "x", "scope": "read", "project": "theirs"}), "unknown field"),
        (json!({"name": "x", "scope": "read", "expires_in_days": 0}), "1 to 36500"),
        (json!({"name": "x", "scope": "read", "expires_in_days": -1}), "expires_in_days"),
    ] {
        let answer = post(body.clone()).await;
        assert!(matches!(answer.status.as_u16(), 400 | 422) && answer.error().contains(part), "{body}: {answer:?}");
    }
    let log = guarded.system.dispatcher.log();
    assert!(log.contains("token made") && log.contains("token revoked") && !log.contains(&token[8..]), "{log}");
}

#[tokio::test]
async fn a_request_names_only_what_its_project_may_read() {
    let guarded = Guarded::start().await;
    let ledger = &guarded.system.ledger;
    let reads = Some(list(&["s3://scans/study-1", "s3://truths"]));
    ledger.change_project("ours", &ProjectChange { reads, max_waiting_jobs: None }).await.unwrap();
    let good = r#"{"image":"s3://scans/study-1/a.png","truth":"s3://truths/t.png","setting":"3/3"}"#;
    let bad = [
        ("s3://scans/study-2/a.png", "s3://truths/t.png"),
        ("s3://scans/study-1/a.png", "s3://others/t.png"),
        ("s3://scans/study-10/a.png", "s3://truths/t.png"),
        ("s3://scans/study-1", "s3://truths/t.png"),
    ];
    let lines = bad.iter().map(|(image, truth)| format!(r#"{{"image":"{image}","truth":"{truth}","setting":"3/3"}}"#));
    let body: Vec<String> = [good.to_owned()].into_iter().chain(lines).collect();
    let token = Some(guarded.token(Scope::Submit));
    let refused = guarded.ask(Method::POST, "/v1/batches?pool=gpu", token, body.join("\n")).await;
    assert_eq!((refused.status.as_u16(), &refused.json["bad_lines"]), (400, &4.into()), "{refused:?}");
    let said = "your project may read what is in s3://scans/study-1/, s3://truths/, and not s3://scans/study-2/a.png";
    assert_eq!(refused.json["lines"][0], json!({"line": 2, "error": said}));
    let named = refused.json["lines"][1]["error"].as_str().unwrap();
    assert!(named.ends_with("and not s3://others/t.png"), "{named}");

    guarded.ask(Method::POST, "/v1/batches?pool=gpu", token, good).await.id();
    for url in [
        "https://scans/a.png",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "/etc/passwd",
        "S3://scans/study-1/a",
    ] {
        let body = format!(r#"{{"image":"{url}","points":[[1,2,1]]}}"#);
        let refused = guarded.ask(Method::POST, "/v1/batches?pool=gpu", token, body).await;
        let said = refused.json["lines"][0]["error"].as_str().unwrap();
        assert!(refused.status == 400 && said.contains("expected s3://bucket/key"), "{refused:?}");
    }
}

#[tokio::test]
async fn each_limit_is_kept_before_anything_is_stored() {
    let limits = ["--max-manifest-lines", "5", "--max-objects", "2", "--max-points", "3", "--max-manifest-bytes", "2000"];
    let guarded = Guarded::start_with(&limits).await;
    let limit = ProjectChange { reads: None, max_waiting_jobs: Some(8) };
    guarded.system.ledger.change_project("ours", &limit).await.unwrap();
    let submit =
        async |body: String| guarded.ask(Method::POST, "/v1/batches?pool=gpu", Some(guarded.token(Scope::Submit)), body).await;
    let objects = |count: usize| {
        let objects = vec![r#"{"points":[[1,2,1]]}"#; count].join(",");
        format!(r#"{{"image":"s3://scans/a.png","objects":[{objects}]}}"#)
    };
    let points = |count: usize| {
        let points = vec!["[1,2,1]"; count].join(",");
        format!(r#"{{"image":"s3://scans/a.png","points":[{points}]}}"#)
    };
    let given = format!(r#"{{"image":"s3://scans/a.png","truth":"s3://scans/t.png","points":[{}]}}"#, ["[1,2,1]"; 4].join(","));
    for (body, status, part) in [
        (manifest(6), 413, "the manifest has more than 5 lines"),
        (format!("{}{}", line(1), " ".repeat(2_000)), 413, "more than 2000 bytes"),
        (objects(3), 400, "3 objects, but here a request may have at most 2"),
        (points(4), 400, "4 points, but here an object may have at most 3"),
        (given, 400, "4 points, but here an object may have at most 3"),
    ] {
        let answer = submit(body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.json.to_string().contains(part), "{answer:?}");
    }
    assert_eq!(guarded.system.queued().await, 0);
    for body in [manifest(5), objects(2), points(3)] {
        submit(body).await.id();
    }
    let full = submit(manifest(2)).await;
    assert_eq!(full.status, 429, "{full:?}");
    assert!(full.error().contains("only 1 more jobs of the project may wait, 8 in all"), "{full:?}");
    assert_eq!(guarded.system.queued().await, 7);
}

#[tokio::test]
async fn nobody_is_let_in_without_a_token_but_on_loopback_where_it_is_said() {
    let serve = Command::new(PROGRAM)
        .args(["serve", "--pools", "gpu", "--without-tokens", "--listen", "0.0.0.0:0", "--metrics-listen", "127.0.0.1:0"])
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .env("AMQP_URL", NO_BROKER)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_mins(1), serve).await.expect("ends").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("would let everybody in who reaches 0.0.0.0:0: listen on 127.0.0.1"), "{said}");

    let system = System::start().await;
    let warned =
        system.dispatcher.logged("no token is asked for: every program of this machine may submit, see, cancel and retry");
    assert_eq!(warned.await["level"], "WARN");
    assert_eq!(system.dispatcher.get("/v1/pools").await.status, 200);
    // A token that is shown is looked at all the same.
    let url = format!("{}/v1/pools", system.dispatcher.url);
    let wrong = reqwest_client().get(&url).bearer_auth("dotmask_wrong").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    // What a browser sends for a page of somebody else's.
    for (header, value) in
        [("origin", "https://evil.example"), ("origin", "null"), ("host", "evil.example"), ("host", "evil.example:8080")]
    {
        let page = reqwest_client().post(format!("{}/v1/batches?pool=gpu", system.dispatcher.url)).header(header, value);
        let refused = page.body(manifest(1)).send().await.unwrap();
        assert_eq!(refused.status(), 401, "{header}: {value}");
    }
    for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080"] {
        assert_eq!(reqwest_client().get(&url).header("host", host).send().await.unwrap().status(), 200, "{host}");
    }
    assert_eq!(system.queued().await, 0);
}

#[tokio::test]
async fn the_commands_make_list_and_revoke_and_the_client_shows_its_token() {
    let guarded = Guarded::start().await;
    let dir = TempDir::new().unwrap();
    let run = async |arguments: &[&str]| {
        let command = Command::new(PROGRAM).args(arguments).env("DATABASE_URL", guarded.system.postgres.url()).output();
        let output = command.await.unwrap();
        let (said, printed) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
        (output.status.code().unwrap(), printed, said)
    };
    let (code, _, said) =
        run(&["project", "create", "study-7", "--read", "s3://scans/study-7", "--max-waiting-jobs", "50"]).await;
    assert!(code == 0 && said.contains("project study-7 made"), "{said}");
    let (code, _, said) = run(&["project", "create", "study-7", "--read", "s3://*"]).await;
    assert!(code == 2 && said.contains("there is a project study-7"), "{said}");
    let (_, printed, _) = run(&["project", "list"]).await;
    assert!(printed.lines().any(|line| line.starts_with("study-7 ") && line.contains("s3://scans/study-7/  50")), "{printed}");
    let (code, _, said) = run(&["project", "change", "study-7", "--read", "s3://scans"]).await;
    assert!(code == 0, "{said}");
    for arguments in [
        &["project", "create", "Study", "--read", "s3://scans"][..],
        &["project", "create", "study-8", "--read", "https://scans"],
        &["project", "create", "study-8"],
        &["project", "change", "none", "--max-waiting-jobs", "5"],
        &["token", "create", "--project", "none", "--scope", "read", "--name", "x"],
        &["token", "create", "--project", "study-7", "--scope", "root", "--name", "x"],
        &["token", "create", "--project", "study-7", "--scope", "read", "--name", "a\u{1b}[2Jb"],
        &["token", "revoke", "0199b1f0-0000-7000-8000-000000000000"],
    ] {
        let (code, printed, said) = run(arguments).await;
        assert!(code == 2 && printed.is_empty() && said.contains("error"), "{arguments:?}: {code} {said}");
    }

    let create = ["token", "create", "--project", "study-7", "--scope", "submit", "--name", "a laptop's", "--days", "7"];
    let (_, token, said) = run(&create).await;
    assert!(said.contains("it is shown this once"), "{said}");
    let token = token.trim();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    std::fs::write(dir.path().join("manifest.jsonl"), manifest(2)).unwrap();
    let (server, file) = (&guarded.system.dispatcher.url, file.to_str().unwrap());
    let submit = ["submit", "manifest.jsonl", "--pool", "gpu"];
    let submitted = client(server, &[&submit[..], &["--token-file", file]].concat(), dir.path()).await;
    assert_eq!(submitted.status.code(), Some(0), "{submitted:?}");
    let refused = client(server, &submit, dir.path()).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("this needs a token") && said.contains("hint: the token is read from DOTMASK_TOKEN"), "{said}");

    let (_, printed, _) = run(&["token", "list", "--project", "study-7"]).await;
    let row = printed.lines().nth(1).unwrap();
    assert!(row.contains(" submit ") && row.contains(" until ") && row.ends_with("a laptop's"), "{printed}");
    assert!(!printed.contains(&token[8..]), "{printed}");
    let (code, _, _) = run(&["token", "revoke", row.split(' ').next().unwrap()]).await;
    assert_eq!(code, 0);
    let refused = client(server, &[&submit[..], &["--token-file", file]].concat(), dir.path()).await;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let (_, printed, _) = run(&["token", "list"]).await;
    assert!(printed.contains(" revoked "), "{printed}");
}
