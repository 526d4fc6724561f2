//! The demo, interrupted in the middle of its work. That it ends well by itself is what `make demo` shows.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// A process's children, their children, and so on.
fn descendants(of: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "pid (name) state ppid ...", where the name may hold spaces and brackets.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let processes =
        || fs::read_dir("/proc").expect("Linux").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut family = vec![of];
    let mut seen = 0;
    while seen < family.len() {
        let of = family[seen];
        family.extend(processes().filter(|pid| parent(*pid) == Some(of)));
        seen += 1;
    }
    family.split_off(1)
}

#[test]
fn an_interrupted_demo_says_so_and_leaves_no_process_behind() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;

    let out = tempfile::tempdir()?;
    // A group of its own, to which Ctrl-C is sent as a terminal does.
    let mut demo = Command::new(servers::Program::path("demo")?)
        .arg("--out")
        .arg(out.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let stderr = BufReader::new(demo.stderr.take().expect("piped"));
    let mut said = String::new();
    let mut family = Vec::new();
    for line in stderr.lines() {
        let line = line?;
        if line.contains("a worker run") {
            family = descendants(demo.id());
            killpg(Pid::from_raw(demo.id() as i32), Signal::SIGINT)?;
        }
        said += &(line + "\n");
    }
    let status = demo.wait()?;

    // The dispatcher, the worker, Postgres and RabbitMQ at least.
    assert!(family.len() >= 4, "{said}");
    assert!(!status.success() && said.contains("interrupted"), "{status}: {said}");
    // What RabbitMQ started is reaped by init, a moment after its end.
    let deadline = Instant::now() + Duration::from_secs(20);
    let left = || family.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect::<Vec<_>>();
    while !left().is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", left());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
