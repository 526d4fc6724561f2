//! `worker bench`.

use std::path::Path;

use serde_json::Value;

use crate::{
    checkpoint::checkpoint,
    common::{Ended, worker},
};

/// Runs `worker bench` on a small picture, with a small checkpoint where the arguments say nothing else.
fn bench(arguments: &[&str]) -> Ended {
    let mut command = worker();
    command.arg("bench").args(arguments);
    if !arguments.contains(&"--random") {
        command.arg("--checkpoint").arg(checkpoint());
    }
    if !arguments.contains(&"--image") {
        command.args(["--image", "96x64"]);
    }
    Ended::of(&mut command)
}

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("stdout is one JSON object")
}

fn seconds(of: &Value) -> f64 {
    of["seconds"].as_f64().expect("a number of seconds")
}

#[test]
fn the_parts_of_a_step_and_of_an_image_add_up_to_the_whole() {
    let arguments =
        ["--steps", "4", "--objects", "2", "--images", "3", "--points", "3/1", "--warm-up", "2", "--threads", "1", "--json"];
    let figures = json(&bench(&arguments));

    let images = figures["images"].as_array().unwrap();
    assert_eq!(images.len(), 3);
    for image in images {
        let parts = image["parts"].as_array().unwrap();
        let named = |name: &str| parts.iter().filter(|part| part["part"] == name).count();
        // Of two fine-tunings of four steps.
        assert_eq!([named("encode"), named("decode"), named("backward"), named("optimise")], [8, 8, 6, 6]);
        assert_eq!([named("decode_file"), named("preprocess"), named("upsample"), named("encode_files")], [1, 1, 2, 1]);
        let sum: f64 = parts.iter().map(seconds).sum();
        let whole = seconds(image);
        assert!(sum <= whole + 1e-9 && sum > 0.8 * whole, "parts of {sum} s in an image of {whole} s");
        for object in image["objects"].as_array().unwrap() {
            assert_eq!(object["losses"].as_array().unwrap().len(), 4);
            let foreground = object["initial_foreground"].as_f64().unwrap();
            assert!((0.01..0.99).contains(&foreground), "{foreground}");
        }
    }
    assert_eq!(images[0]["objects"], images[2]["objects"], "the same image, the same masks");

    let step = &figures["step"];
    assert_eq!(step["measured"], 3 * 2 * 3 - 2, "the last step of a fine-tuning has no update");
    let sum: f64 = step["parts"].as_array().unwrap().iter().map(seconds).sum();
    assert!((sum - seconds(step)).abs() < 1e-9);
    assert!(step["least_seconds"].as_f64().unwrap() <= seconds(step) && seconds(step) <= step["most_seconds"].as_f64().unwrap());
    assert!(step["cpu_seconds"].as_f64().unwrap() > 0.0);

    assert_eq!(figures["threads"], 1);
    assert_eq!(figures["points"][1].as_array().unwrap().len(), 4);
    let flops = &figures["flops"];
    let rate = flops["step"].as_f64().unwrap() / seconds(step);
    assert!((flops["rate"].as_f64().unwrap() / rate - 1.0).abs() < 1e-9);
    assert!(flops["share"].as_f64().unwrap() > 0.0);
    let memory = &figures["memory"];
    assert!(memory["peak_rss_bytes"].as_u64().unwrap() >= memory["loaded_rss_bytes"].as_u64().unwrap() / 2, "{memory}");
    assert!(memory["cuda"].is_null(), "a CPU has no CUDA memory");
    let image = &figures["image_of_100_steps"];
    assert!((image["images_an_hour"].as_f64().unwrap() * seconds(image) - 3600.0).abs() < 1e-6);
    assert!(seconds(image) > 199.0 * seconds(step), "two objects of a hundred steps, and what is beside them");
}

#[test]
fn prints_tables_for_people() {
    let ended = bench(&["--steps", "3"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for part in
        ["a step ", "encoder forward", "backward", "Adam", "an image of 100 steps", "images an hour", "GFLOP/s", "GiB resident"]
    {
        assert!(ended.stdout.contains(part), "no {part:?} in: {}", ended.stdout);
    }
}

#[test]
fn leaves_what_it_measured_with_for_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let keep = folder.path().join("new/folder");
    let figures = json(&bench(&["--steps", "3", "--image", "120x80", "--keep", keep.to_str().unwrap(), "--json"]));
    assert_eq!(image::open(keep.join("image.png")).unwrap().to_rgb8().dimensions(), (120, 80));
    assert_eq!(figures["image"], serde_json::json!({"width": 120, "height": 80}));
    assert!(!keep.join("checkpoint.safetensors").exists(), "a given checkpoint is where it was");
}

#[test]
fn refuses_arguments_that_leave_nothing_to_measure() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let inside_a_file = Path::new(file.path()).join("folder");
    for (arguments, expected) in [
        (&["--random", "vit_x"][..], "expected vit_b, vit_l or vit_h"),
        (&["--steps", "1"], "--steps 1: that makes 0 steps with an update"),
        (&["--steps", "4", "--warm-up", "3"], "ask for more --steps"),
        (&["--image", "900"], "expected WIDTHxHEIGHT, each from 32 to 16384 pixels"),
        (&["--image", "31x900"], "expected WIDTHxHEIGHT"),
        (&["--objects", "0"], "--objects"),
        (&["--points", "0/2"], "at least one positive point"),
        (&["--learning-rate", "2"], "learning_rate is 2"),
        (&["--keep", inside_a_file.to_str().unwrap()], "choose another --keep"),
        (&["--checkpoint", "/nowhere/sam.pth", "--random", "vit_b"], "cannot be used with"),
    ] {
        let ended = bench(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected) && !ended.stderr.contains("panicked"), "{arguments:?}: {}", ended.stderr);
    }
    let ended = Ended::of(worker().arg("bench"));
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("--checkpoint <FILE>|--random <SIZE>"), "{}", ended.stderr);
    let ended = Ended::of(worker().args(["bench", "--checkpoint", "/nowhere/sam.pth"]));
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("cannot read checkpoint /nowhere/sam.pth"), "{}", ended.stderr);
}
