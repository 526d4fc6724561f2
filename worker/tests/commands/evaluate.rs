//! `worker evaluate`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use image::{GrayImage, Luma};

use crate::{
    checkpoint::checkpoint,
    common::{Ended, draw_cells, worker},
};

/// Two sub-folders of a data set: `a` with two images, `b` with one. The truth is the discs that [`draw_cells`] draws.
fn data_set(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    for (group, name) in [("a", "first"), ("a", "second"), ("b", "third")] {
        let group = data.join(group);
        fs::create_dir_all(&group).expect("a new folder takes files");
        fs::rename(draw_cells(&group), group.join(format!("{name}.png"))).expect("a new folder takes files");
        truth(96, 64).save(group.join(format!("{name}_mask.png"))).expect("a new folder takes files");
    }
    data
}

fn truth(width: u32, height: u32) -> GrayImage {
    let is_cell = |x: u32, y: u32| {
        [(20, 20), (76, 14), (40, 52)].iter().any(|&(cx, cy)| x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < 100)
    };
    GrayImage::from_fn(width, height, |x, y| Luma([if is_cell(x, y) { 255 } else { 0 }]))
}

/// `worker evaluate` on that data, with a small checkpoint, two settings, two repeats and few steps.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let (checkpoint, out) = (checkpoint(), folder.join("out"));
    let data = format!("folder:{}", folder.join("data").display());
    let mut command = worker();
    command.arg("evaluate").args(arguments);
    for (flag, value) in [
        ("--data", data.as_str()),
        ("--checkpoint", checkpoint.to_str().expect("a path of text")),
        ("--out", out.to_str().expect("a path of text")),
        ("--points", "1/0,3/0,2/2"),
        ("--repeats", "2"),
        ("--steps", "3"),
        ("--learning-rate", "1e-4"),
        ("--threads", "1"),
    ] {
        if !arguments.contains(&flag) {
            command.arg(flag).arg(value);
        }
    }
    command
}

fn evaluate(folder: &Path, arguments: &[&str]) -> Ended {
    Ended::of(&mut command(folder, arguments))
}

/// The rows of results.csv without the header, each as its cells.
fn csv_rows(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("out/results.csv")).expect("the evaluation was done");
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// Every line about an answer in the folder's files of rows, with the file's name.
fn kept_rows(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder.join("out/rows")).into_iter().flatten().flatten();
    let mut rows: Vec<String> = files
        .flat_map(|file| {
            let text = fs::read_to_string(file.path()).expect("a file of lines");
            let of_file = |line: &str| format!("{} {line}", file.file_name().display());
            text.lines().filter(|line| line.starts_with("{\"row\"")).map(of_file).collect::<Vec<_>>()
        })
        .collect();
    rows.sort();
    rows
}

fn refusal(ended: &Ended) -> &str {
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "data on stdout though nothing was made");
    ended.stderr.lines().find(|line| line.starts_with("error: ")).expect("a line with the error")
}

#[test]
fn writes_tables_and_figures_of_every_method_setting_and_repeat() {
    let folder = tempfile::tempdir().unwrap();
    data_set(folder.path());
    let ended = evaluate(folder.path(), &["--json", "--trace"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).expect("stdout is one JSON object");
    // 3 images, 2 repeats, 3 settings, 6 methods.
    assert_eq!((&answer["cases"], &answer["rows"], &answer["problems"]), (&3.into(), &108.into(), &serde_json::json!([])));
    assert_eq!(csv_rows(folder.path()).len(), 108);
    assert!(ended.stderr.contains("image 2/3: a/second: 36 answers"), "no progress on stderr: {}", ended.stderr);

    let out = folder.path().join("out");
    let table = fs::read_to_string(out.join("table.md")).unwrap();
    for part in ["1/0", "3/0", "2/2"] {
        assert!(table.contains(part), "{table}");
    }
    assert!(!table.contains("NaN"), "{table}");
    let trace = fs::read_to_string(out.join("trace.md")).unwrap();
    assert!(trace.contains("| points | images | step 1 | step 3 | chosen | oracle |"), "{trace}");
    // Where the initial mask is empty or full nothing is fine-tuned, and there is nothing to trace.
    assert!(trace.lines().any(|line| line.starts_with("| 2/2 | ")), "{trace}");

    // Columns of 256 pixels with margins of 12 between; a row of pictures is 171 high (96 x 64 scaled to 256) and has 62 of words.
    let size = |name: &str| image::open(out.join(name)).expect(name).into_rgb8().dimensions();
    assert_eq!(size("figures.png"), (12 + 6 * 268, 34 + 3 * (171 + 62)));
    assert_eq!(size("figure3.png"), (12 + 4 * 268, 34 + 2 * (171 + 62)));
    assert_eq!(size("figure4.png"), (12 + 3 * 444, 490));
}

#[test]
fn the_same_seed_gives_the_same_files_and_another_one_other_points() {
    let (one, other, third) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, seed) in [(&one, "5"), (&other, "5"), (&third, "6")] {
        data_set(folder.path());
        assert_eq!(evaluate(folder.path(), &["--seed", seed, "--trace"]).code, 0);
    }
    let read = |folder: &Path, name: &str| fs::read(folder.join("out").join(name)).unwrap();
    for name in ["table.md", "trace.md", "figures.png", "figure3.png", "figure4.png"] {
        assert_eq!(read(one.path(), name), read(other.path(), name), "{name}");
    }
    assert_ne!(read(one.path(), "figures.png"), read(third.path(), "figures.png"));
    let header = fs::read_to_string(one.path().join("out/results.csv")).unwrap().lines().next().unwrap().to_owned();
    let seconds = header.split(',').position(|name| name == "seconds").expect("a column of seconds");
    let but_seconds = |folder: &Path| -> Vec<Vec<String>> {
        let mut rows = csv_rows(folder);
        for row in &mut rows {
            row.remove(seconds);
        }
        rows
    };
    assert_eq!(but_seconds(one.path()), but_seconds(other.path()));
    assert_ne!(but_seconds(one.path()), but_seconds(third.path()));
}

#[test]
fn what_was_done_before_a_kill_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    data_set(folder.path());
    let long = ["--steps", "40"];
    let mut killed = command(folder.path(), &long).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while kept_rows(folder.path()).len() < 8 {
        assert!(killed.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::yield_now();
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = kept_rows(folder.path());
    assert!(before.len() < 108, "it was done before it was killed");
    // A line that the kill tore.
    let first = fs::read_dir(folder.path().join("out/rows")).unwrap().flatten().next().unwrap().path();
    let mut text = fs::read_to_string(&first).unwrap();
    text.push_str("{\"row\":{\"case\":\"a/fi");
    fs::write(&first, text).unwrap();

    let ended = evaluate(folder.path(), &long);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let after = kept_rows(folder.path());
    assert_eq!(after.len(), 108);
    // Rows have the seconds that they took: one computed again would be another line.
    assert!(before.iter().all(|row| after.contains(row)));

    let results = fs::read(folder.path().join("out/results.csv")).unwrap();
    let again = evaluate(folder.path(), &long);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(!again.stderr.contains("image "), "nothing was left to do: {}", again.stderr);
    assert_eq!(fs::read(folder.path().join("out/results.csv")).unwrap(), results);
}

#[test]
fn two_shares_make_one_whole_and_the_last_writes_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    data_set(folder.path());
    let first = evaluate(folder.path(), &["--shard", "1/2"]);
    assert_eq!((first.code, first.stdout.as_str()), (0, ""), "{}", first.stderr);
    assert!(first.stderr.contains("2 of 3 images are not done"), "{}", first.stderr);
    assert!(!folder.path().join("out/table.md").exists());
    let second = evaluate(folder.path(), &["--shard", "0/2"]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert_eq!(csv_rows(folder.path()).len(), 108);

    let whole = tempfile::tempdir().unwrap();
    data_set(whole.path());
    assert_eq!(evaluate(whole.path(), &[]).code, 0);
    let table = |folder: &Path| fs::read_to_string(folder.join("out/table.md")).unwrap();
    assert_eq!(table(folder.path()), table(whole.path()));
}

#[test]
fn an_image_that_cannot_be_used_is_named_and_the_others_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_set(folder.path());
    fs::write(data.join("a/first.png"), "Dear colleague").unwrap();
    truth(95, 64).save(data.join("a/second_mask.png")).unwrap();
    fs::copy(data.join("b/third.png"), data.join("b/zero.png")).unwrap();
    GrayImage::new(96, 64).save(data.join("b/zero_mask.png")).unwrap();
    let ended = evaluate(folder.path(), &["--methods", "initial_mask,super_clustering"]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("error: 3 of 4 images have no scores"), "{}", ended.stderr);
    assert_eq!(csv_rows(folder.path()).len(), 12, "the third image's: 2 repeats, 3 settings, 2 methods");
    let table = fs::read_to_string(folder.path().join("out/table.md")).unwrap();
    for (id, reason) in [("a/first", "first.png"), ("a/second", "95 x 64"), ("b/zero", "no foreground")] {
        assert!(table.lines().any(|line| line.starts_with(&format!("- {id}: ")) && line.contains(reason)), "{id}: {table}");
    }
    assert!(!table.contains("NaN"), "{table}");

    // Put right, they are scored by the same command.
    fs::copy(data.join("b/third.png"), data.join("a/first.png")).unwrap();
    truth(96, 64).save(data.join("a/second_mask.png")).unwrap();
    truth(96, 64).save(data.join("b/zero_mask.png")).unwrap();
    let ended = evaluate(folder.path(), &["--methods", "initial_mask,super_clustering"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(csv_rows(folder.path()).len(), 48);
}

#[test]
fn too_few_pixels_for_the_points_are_rows_that_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_set(folder.path());
    let two_pixels = GrayImage::from_fn(96, 64, |x, y| Luma([if y == 20 && (x == 20 || x == 21) { 255 } else { 0 }]));
    two_pixels.save(data.join("b/third_mask.png")).unwrap();
    let ended = evaluate(folder.path(), &["--json", "--methods", "initial_mask"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&answer["rows"], &answer["skipped"]), (&18.into(), &2.into()), "3/0 on the third image, twice");
}

#[test]
fn refuses_to_mix_two_evaluations_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_set(folder.path());
    let quick = ["--methods", "initial_mask"];
    assert_eq!(evaluate(folder.path(), &quick).code, 0);
    let table = fs::read(folder.path().join("out/table.md")).unwrap();
    for (arguments, part) in [
        (["--methods", "initial_mask", "--seed", "2"], "seed was 1, is 2"),
        (["--methods", "initial_mask", "--points", "1/0"], "points was"),
        (["--methods", "initial_mask", "--steps", "4"], "parameters was"),
        (["--methods", "initial_mask", "--choose", "padding=excluded"], "parameters was"),
        (["--methods", "initial_mask", "--labels", "each"], "cases was"),
    ] {
        let ended = evaluate(folder.path(), &arguments);
        assert!(refusal(&ended).contains(part), "{}", ended.stderr);
    }
    fs::remove_file(data.join("b/third.png")).unwrap();
    fs::remove_file(data.join("b/third_mask.png")).unwrap();
    assert!(refusal(&evaluate(folder.path(), &quick)).contains("cases was"));
    assert_eq!(fs::read(folder.path().join("out/table.md")).unwrap(), table, "what was there stays");
}

#[test]
fn refuses_another_image_under_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_set(folder.path());
    let quick = ["--methods", "initial_mask"];
    assert_eq!(evaluate(folder.path(), &quick).code, 0);
    let rows = folder.path().join("out/rows/00000-a_first.jsonl");
    let mut lines: Vec<String> = fs::read_to_string(&rows).unwrap().lines().map(str::to_owned).collect();
    lines.pop();
    fs::write(&rows, lines.join("\n") + "\n").unwrap();
    image::RgbImage::new(96, 64).save(data.join("a/first.png")).unwrap();
    assert!(refusal(&evaluate(folder.path(), &quick)).contains("is another file than before"));
}

#[test]
fn refuses_what_cannot_be_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    data_set(folder.path());
    for (flag, value, part) in [
        ("--data", "folder:/nowhere", "/nowhere"),
        ("--data", "folder", "KIND:PATH"),
        ("--points", "0/3", "0/3"),
        ("--methods", "ours", "ours"),
        ("--steps", "0", "steps is 0"),
        ("--choose", "padding=none", "included"),
        ("--shard", "2/2", "I/N"),
        ("--labels", "some", "together, each, or numbers"),
        ("--limit", "0", "--limit"),
        ("--checkpoint", "/nowhere/sam.pth", "/nowhere/sam.pth"),
        ("--out", "/proc/nowhere", "/proc/nowhere"),
    ] {
        let ended = evaluate(folder.path(), &[flag, value]);
        assert!(refusal(&ended).contains(part), "{flag} {value}: {}", ended.stderr);
    }
}
