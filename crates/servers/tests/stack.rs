//! All servers together, held by another process that is killed.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The processes whose command line or working folder names the folder.
fn processes_in(dir: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let folder = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(dir) || folder.starts_with(dir)
        })
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|pid| pid != std::process::id()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn all_servers_end_when_their_program_is_killed() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut holder = Command::new(env!("CARGO_BIN_EXE_private-servers")).arg(dir.path()).stdout(Stdio::piped()).spawn()?;
    let names: Vec<String> = BufReader::new(holder.stdout.take().ok_or("piped")?)
        .lines()
        .take(7)
        .map(|line| line.map(|line| line.split('=').next().unwrap_or_default().to_owned()))
        .collect::<Result<_, _>>()?;
    assert_eq!(
        names,
        [
            "export DATABASE_URL",
            "export AMQP_URL",
            "export DOTMASK_S3_ENDPOINT",
            "export DOTMASK_S3_PATH_STYLE",
            "export AWS_ACCESS_KEY_ID",
            "export AWS_SECRET_ACCESS_KEY",
            "export AWS_REGION"
        ]
    );
    let dir = dir.path().to_str().ok_or("text")?;
    // This program, Postgres with its helpers, RabbitMQ with its own.
    assert!(processes_in(dir).len() > 5);

    holder.kill()?;
    holder.wait()?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !processes_in(dir).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", processes_in(dir));
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
