//! `worker segment`.

use std::{fs, path::Path};

use image::GrayImage;

use crate::{
    checkpoint::{checkpoint, safetensors},
    common::{Ended, draw_cells, png_of_size, worker},
};

/// Runs `worker segment` on `image`, with a small checkpoint and few steps where the arguments say nothing else.
fn segment(folder: &Path, image: &Path, arguments: &[&str]) -> Ended {
    let (checkpoint, out) = (checkpoint(), folder.join("out"));
    let mut command = worker();
    command.arg("segment").arg("--image").arg(image).args(arguments);
    for (flag, value) in [
        ("--checkpoint", checkpoint.as_os_str()),
        ("--out", out.as_os_str()),
        ("--points", "20,20,1;60,40,0".as_ref()),
        ("--steps", "3".as_ref()),
        ("--learning-rate", "1e-4".as_ref()),
    ] {
        if !arguments.contains(&flag) {
            command.arg(flag).arg(value);
        }
    }
    let ended = Ended::of(&mut command);
    if ended.code != 0 {
        let left: Vec<_> = fs::read_dir(&out).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "a run that failed left {left:?}");
    }
    ended
}

/// The message of a run that must be refused, after checking what holds for every refusal.
fn refusal(ended: Ended) -> String {
    let Ended { code, stdout, stderr } = ended;
    assert_eq!(code, 2, "{stderr}");
    assert_eq!(stdout, "", "data on stdout though nothing was made");
    let message = stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default().to_owned();
    assert!(!message.is_empty(), "no line with an error in: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    message
}

/// The message for these bytes in place of an image.
fn refusal_of_image(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
    let image = folder.path().join("scan.png");
    fs::write(&image, bytes).expect("a new folder takes files");
    let message = refusal(segment(folder.path(), &image, &[]));
    assert!(message.contains("scan.png"), "does not name the image: {message}");
    message
}

/// The message for these arguments with a good image.
fn refusal_of(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
    let image = draw_cells(folder.path());
    refusal(segment(folder.path(), &image, arguments))
}

#[test]
fn writes_the_four_files_and_prints_one_json_object() {
    let folder = tempfile::tempdir().unwrap();
    let image = draw_cells(folder.path());
    let ended = segment(folder.path(), &image, &["--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);

    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).expect("stdout is one JSON object");
    let mut keys: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["objects", "overlay", "receipt", "seconds"]);
    let object = &answer["objects"][0];
    let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = ["agreement", "best_step", "confidence", "initial_mask", "iou", "ious", "losses", "mask", "warnings"];
    assert_eq!(keys, expected);
    let losses = object["losses"].as_array().unwrap();
    assert_eq!(losses.len(), object["ious"].as_array().unwrap().len());
    assert!(ended.stderr.contains("step "), "no progress on stderr: {}", ended.stderr);

    let out = folder.path().join("out");
    let mask = read_mask(object["mask"].as_str().unwrap());
    assert_eq!(mask.dimensions(), (96, 64), "the mask has the image's size");
    let initial_mask = read_mask(object["initial_mask"].as_str().unwrap());
    assert_eq!(initial_mask.width(), initial_mask.height());
    assert_eq!(image::open(out.join("overlay.png")).unwrap().to_rgb8().dimensions(), (96, 64));

    let receipt: serde_json::Value = serde_json::from_slice(&fs::read(out.join("receipt.json")).unwrap()).unwrap();
    assert_eq!(receipt["image"]["width"], 96);
    assert_eq!(receipt["image"]["format"], "png");
    assert_eq!(receipt["objects"][0]["points"], serde_json::json!([[20.0, 20.0, 1.0], [60.0, 40.0, 0.0]]));
    assert_eq!(receipt["parameters"]["steps"], 3);
    assert_eq!(receipt["objects"][0]["losses"], object["losses"]);
    assert_eq!(receipt["objects"][0]["confidence"], object["confidence"]);
    assert_eq!(receipt["device"], "cpu");
    assert_eq!(receipt["checkpoint_sha256"].as_str().unwrap().len(), 64);
    assert!(receipt.get("job").is_none(), "no job was done here");
    let files = fs::read_dir(&out).unwrap().count();
    assert_eq!(files, 4, "temporary files were left behind");
}

#[test]
fn makes_a_mask_for_each_object_as_if_it_were_alone() {
    let folder = tempfile::tempdir().unwrap();
    let image = draw_cells(folder.path());
    let (first, second) = ("20,20,1;60,40,0", "60,40,1;20,20,0");
    let alone = |points: &str| {
        assert_eq!(segment(folder.path(), &image, &["--points", points]).code, 0);
        fs::read(folder.path().join("out/mask.png")).unwrap()
    };
    let expected = [alone(first), alone(second)];

    let ended = segment(folder.path(), &image, &["--points", first, "--points", second, "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("object 2, step 3/3"), "{}", ended.stderr);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let masks = [0, 1].map(|index| fs::read(answer["objects"][index]["mask"].as_str().unwrap()).unwrap());
    assert_eq!(masks, expected);
    let out = folder.path().join("out");
    let receipt: serde_json::Value = serde_json::from_slice(&fs::read(out.join("receipt.json")).unwrap()).unwrap();
    assert_eq!(receipt["objects"].as_array().unwrap().len(), 2);
    for name in ["mask-1.png", "mask-2.png", "initial_mask-1.png", "initial_mask-2.png", "overlay.png"] {
        assert!(out.join(name).is_file(), "{name}");
    }

    let ended = segment(folder.path(), &image, &["--points", first, "--points", second]);
    assert_eq!(ended.stdout.matches("confidence").count(), 2, "{}", ended.stdout);
}

#[test]
fn refuses_more_objects_than_a_request_may_have() {
    let arguments: Vec<&str> = (0..65).flat_map(|_| ["--points", "20,20,1"]).collect();
    assert!(refusal_of(&arguments).contains("65 objects, expected at most 64"));
}

/// A mask's file: grey, and every pixel 0 or 255.
fn read_mask(path: &str) -> GrayImage {
    let mask = image::open(path).expect("a PNG");
    assert_eq!(mask.color(), image::ColorType::L8);
    let mask = mask.into_luma8();
    assert!(mask.pixels().all(|pixel| matches!(pixel.0[0], 0 | 255)));
    mask
}

#[test]
fn gives_the_same_mask_each_time_and_replaces_the_last_ones_files() {
    let folder = tempfile::tempdir().unwrap();
    let image = draw_cells(folder.path());
    let mask = folder.path().join("out/mask.png");
    assert_eq!(segment(folder.path(), &image, &[]).code, 0);
    let first = fs::read(&mask).unwrap();
    fs::write(&mask, "stale").unwrap();
    let ended = segment(folder.path(), &image, &[]);
    assert_eq!(ended.code, 0);
    assert!(ended.stdout.contains("best step"), "a summary for people: {}", ended.stdout);
    assert_eq!(fs::read(&mask).unwrap(), first);
}

#[test]
fn refuses_an_image_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let message = refusal(segment(folder.path(), &folder.path().join("nowhere.png"), &[]));
    assert!(message.contains("nowhere.png") && message.contains("does not exist"), "{message}");
}

#[test]
fn refuses_a_folder_in_place_of_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let message = refusal(segment(folder.path(), folder.path(), &[]));
    assert!(message.contains("is not a file"), "{message}");
}

#[test]
fn refuses_an_empty_image() {
    assert!(refusal_of_image(b"").contains("empty"));
}

#[test]
fn refuses_a_truncated_image() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(draw_cells(folder.path())).unwrap();
    refusal_of_image(&whole[..whole.len() / 2]);
}

#[test]
fn refuses_what_is_not_an_image() {
    let message = refusal_of_image(b"Dear colleague, please find attached");
    assert!(message.contains("PNG"), "does not say what is expected: {message}");
}

#[test]
fn refuses_a_header_of_a_hundred_thousand_by_a_hundred_thousand_pixels() {
    let message = refusal_of_image(&png_of_size(100_000, 100_000));
    assert!(message.contains("100000"), "{message}");
}

#[test]
fn refuses_a_point_outside_the_image() {
    let message = refusal_of(&["--points", "20,20,1;96,10,1"]);
    assert!(message.contains("point 2 at (96, 10) is outside the image, which is 96 wide and 64 high"), "{message}");
    assert!(refusal_of(&["--points", "-1,20,1"]).contains("point 1 at (-1, 20) is outside"));
}

#[test]
fn refuses_points_without_a_positive_one() {
    assert!(refusal_of(&["--points", "20,20,0"]).contains("no positive point"));
    assert!(refusal_of(&["--points", ""]).contains("no positive point"));
}

#[test]
fn refuses_a_point_that_is_not_a_number() {
    assert!(refusal_of(&["--points", "20,20,1;NaN,5,1"]).contains("point 2 is at (NaN, 5)"));
}

#[test]
fn refuses_ten_thousand_points_in_a_short_message() {
    let message = refusal_of(&["--points", &"1,1,1;".repeat(10_000)]);
    assert!(message.contains("10000 points") && message.len() < 200, "{message}");
}

#[test]
fn refuses_parameters_no_run_can_use() {
    assert!(refusal_of(&["--steps", "0"]).contains("steps is 0"));
    assert!(refusal_of(&["--learning-rate", "0"]).contains("learning_rate is 0"));
    assert!(refusal_of(&["--learning-rate", "NaN"]).contains("learning_rate is NaN"));
    assert!(refusal_of(&["--recipe", "papre"]).contains("papre"));
}

#[test]
fn refuses_a_checkpoint_that_is_not_there_or_is_no_checkpoint() {
    assert!(refusal_of(&["--checkpoint", "/nowhere/sam.pth"]).contains("/nowhere/sam.pth"));
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.safetensors");
    fs::write(&text, "not a checkpoint, and long enough for a header").unwrap();
    assert!(refusal_of(&["--checkpoint", text.to_str().unwrap()]).contains("notes.safetensors"));
}

#[test]
fn refuses_a_truncated_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(checkpoint()).unwrap();
    let half = folder.path().join("half.safetensors");
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    assert!(refusal_of(&["--checkpoint", half.to_str().unwrap()]).contains("half.safetensors"));
}

#[test]
fn refuses_a_checkpoint_of_another_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("resnet.safetensors");
    fs::write(&other, safetensors(&[("layer1.0.conv1.weight".into(), vec![64, 3, 7, 7])])).unwrap();
    let message = refusal_of(&["--checkpoint", other.to_str().unwrap()]);
    assert!(message.contains("resnet.safetensors"), "{message}");
}

#[test]
fn refuses_cuda_where_there_is_none() {
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    assert!(refusal_of(&["--device", "cuda"]).contains("CUDA"));
    assert!(refusal_of(&["--device", "tpu"]).contains("tpu"));
}

#[test]
fn refuses_an_output_folder_it_cannot_write_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("taken");
    fs::write(&file, "").unwrap();
    for out in [file.to_str().unwrap(), "/proc/nowhere"] {
        let message = refusal_of(&["--out", out]);
        assert!(message.contains(out) && message.contains("--out"), "{message}");
    }
}
