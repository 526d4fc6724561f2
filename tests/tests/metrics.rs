//! docs/METRICS.md lists what the binaries count, by their own word.

use std::{env, fs, path::Path, process::Command};

use tests::Release;

fn table(program: &'static str) -> String {
    let program = Release::this().program(program).expect("built");
    let output = Command::new(&program).arg("metrics").output().expect("starts");
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_documentation_lists_every_metric() {
    let document = format!(
        "# Metrics

<!-- Made from the code: DOTMASK_WRITE_DOCS=1 cargo nextest run -p tests --test metrics -->

Both binaries answer `/metrics` in Prometheus's text format on their `DOTMASK_LISTEN`. Every name begins with `dotmask_` but those of the process
itself; units are seconds and bytes; no label bears the id of a job, a batch or a worker, nor an object's name.

## Dispatcher

What bears the label `pool` and is no counter is read from Postgres (`dotmask_ready_tokens` from RabbitMQ) by every dispatcher alike, every 5 s, or seldomer where
counting takes long: take `max by (pool)`, never the sum. The counters are each dispatcher's own.

{}
## Worker

Every series bears the constant label `pool`. Values of labels that are listed exist from the start, at zero.

{}",
        table("dispatcher"),
        table("worker"),
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
    if env::var_os("DOTMASK_WRITE_DOCS").is_some() {
        fs::write(&path, &document).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == document, "docs/METRICS.md is not what the binaries say; its second line says how to renew it");
}
