//! The kept inputs, and a bounded number of damaged ones: what `make test` runs of the fuzzing.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{env, fs, panic, path::Path};

use fuzz::{Target, damage::Damage};

/// Inputs that were found once: by libFuzzer's coverage, or because they broke a promise.
fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Names the input that broke a promise, and leaves it where it can be looked at.
fn check(target: &Target, bytes: &[u8]) {
    let outcome = panic::catch_unwind(|| target.check(bytes));
    if let Err(cause) = outcome {
        let place = env::temp_dir().join(format!("fuzz-{}-{}", target.name, segmenter::sha256(bytes)));
        fs::write(&place, bytes).unwrap();
        eprintln!("{} does not survive {}; once mended, keep it in fuzz/corpus/{}", target.name, place.display(), target.name);
        panic::resume_unwind(cause);
    }
}

fn survives(name: &str, damaged: usize) {
    // Some decoders' panics are caught where they are called, and a backtrace of them would count as the reader's memory.
    panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let target = Target::named(name).unwrap();
    let mut inputs = (target.seeds)();
    inputs.extend(kept(target));
    for bytes in &inputs {
        check(target, bytes);
    }
    // FUZZ_SEED=2 tries others.
    let seed = env::var("FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut damage = Damage::new(seed, inputs);
    for _ in 0..damaged {
        check(target, &damage.next_input());
    }
}

macro_rules! targets {
    ($($test:ident $name:literal $damaged:literal,)+) => {
        $(#[test] fn $test() { survives($name, $damaged); })+

        #[test]
        fn every_target_is_here() {
            assert_eq!([$($name),+], fuzz::TARGETS.map(|target| target.name));
        }
    };
}

targets! {
    manifests_survive_damage "manifest" 20_000,
    points_survive_damage "points" 50_000,
    png_survives_damage "png" 10_000,
    jpeg_survives_damage "jpeg" 10_000,
    tiff_survives_damage "tiff" 10_000,
    bmp_survives_damage "bmp" 10_000,
    nifti_survives_damage "nifti" 10_000,
    dicom_survives_damage "dicom" 10_000,
    outlines_survive_damage "outlines" 10_000,
    pth_survives_damage "pth" 5_000,
    safetensors_survive_damage "safetensors" 5_000,
    messages_survive_damage "messages" 20_000,
    results_survive_damage "results" 20_000,
}
