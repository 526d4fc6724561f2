//! The dispatcher does what its OpenAPI document says, whatever it is asked: requests made out of the document, valid and invalid ones, to
//! a real dispatcher with real servers. Schemathesis makes them and holds every answer against the document.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{env, process::Stdio};

use ledger::{DEFAULT_PROJECT, NewToken, Scope};
use tests::{System, line, repository};
use tokio::process::Command;

/// Requests for each operation and kind of test; `SCHEMATHESIS_EXAMPLES=500` for the long form.
const EXAMPLES: &str = "20";

#[tokio::test(flavor = "multi_thread")]
async fn the_dispatcher_answers_as_its_document_says() {
    let mut system = System::start().await.unwrap();
    let dispatcher = system.start_dispatcher_that_asks_for_tokens().await.unwrap();
    let name = "schemathesis".into();
    let new = NewToken { project: DEFAULT_PROJECT.into(), name, scope: Scope::Admin, lifetime: None };
    let (_, token) = system.ledger.create_token(&new).await.unwrap();
    let admitted = ["--header", &format!("Authorization: Bearer {token}")];
    system.set("DOTMASK_TOKEN", &token);
    let batch = system.submit(&[line("a.png", 1)]).await.unwrap();
    let job = system.jobs(batch).await.unwrap().remove(0).id;

    // Whoever may revoke tokens revokes his own in the end, and sees little afterwards.
    let stays = [&admitted[..], &["--exclude-operation-id", "revoke_token"]].concat();
    let known = [("KNOWN_BATCH", batch.to_string()), ("KNOWN_JOB", job.to_string())];
    for said in
        [schemathesis(&system, "known.toml", &stays, &known).await, schemathesis(&system, "schemathesis.toml", &stays, &[]).await]
    {
        assert!(!said.contains("Authentication failed"), "the token is not good enough");
    }
    let revokes = [&admitted[..], &["--include-path-regex", "^/v1/tokens"]].concat();
    schemathesis(&system, "schemathesis.toml", &revokes, &[]).await;
    // Whatever is asked, the answer is 401: nothing is good enough.
    let outside = ["--exclude-checks", "positive_data_acceptance,missing_required_header"];
    schemathesis(&system, "schemathesis.toml", &outside, &[]).await;
    schemathesis(&system, "schemathesis.toml", &[&outside[..], &["--header", "Authorization: Bearer dotmask_0"]].concat(), &[])
        .await;
    let logs = system.logs();
    assert!(!logs.contains("panicked") && !logs.contains(" ERROR "), "{logs}");
    dispatcher.stop().await.unwrap();
}

/// What it says; fails where an answer is not as it should be.
async fn schemathesis(system: &System, config: &str, arguments: &[&str], environment: &[(&str, String)]) -> String {
    let program = repository().join(".venv/bin/schemathesis");
    assert!(program.exists(), "{} is missing; run scripts/setup --checks", program.display());
    let examples = env::var("SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| EXAMPLES.into());
    let output = Command::new(program)
        .current_dir(repository().join("tests/schemathesis"))
        .args(["--config-file", config, "run", &format!("http://{}/openapi.json", system.dispatcher_address())])
        .args(["--max-examples", &examples, "--seed", "1", "--continue-on-failure", "--suppress-health-check", "all"])
        .args(arguments)
        .envs(environment.iter().cloned())
        // Its examples are not kept.
        .env("HYPOTHESIS_STORAGE_DIRECTORY", env::temp_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "schemathesis with {config}: {}", output.status);
    said
}
