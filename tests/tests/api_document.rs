//! The dispatcher does what its OpenAPI document says, whatever it is asked: requests made out of the document, valid and invalid ones, to
//! a real dispatcher with real servers. Schemathesis makes them and holds every answer against the document.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{env, process::Stdio};

use tests::{System, repository};
use tokio::process::Command;

/// Requests for each operation; `SCHEMATHESIS_EXAMPLES=500` for the long form.
const EXAMPLES: &str = "15";

#[tokio::test(flavor = "multi_thread")]
async fn the_dispatcher_answers_as_its_document_says() {
    let system = System::start().await.unwrap();
    let dispatcher = system.start_dispatcher().await.unwrap();
    let outcome = schemathesis(&system, &[]).await;
    let logs = system.logs();
    assert!(!logs.contains("panicked"), "{logs}");
    dispatcher.stop().await.unwrap();
    outcome.unwrap_or_else(|said| panic!("{said}"));
}

/// What it says where an answer was not as it should be.
async fn schemathesis(system: &System, arguments: &[&str]) -> Result<(), String> {
    let program = repository().join(".venv/bin/schemathesis");
    assert!(program.exists(), "{} is missing; run scripts/setup --checks", program.display());
    let examples = env::var("SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| EXAMPLES.into());
    let output = Command::new(program)
        .current_dir(repository().join("tests/schemathesis"))
        .args(["run", &format!("http://{}/openapi.json", system.dispatcher_address()), "--checks", "all"])
        .args(["--max-examples", &examples, "--seed", "1", "--continue-on-failure", "--suppress-health-check", "all"])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    if output.status.success() { Ok(()) } else { Err(said) }
}
