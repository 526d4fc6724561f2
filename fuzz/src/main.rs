//! Gives one target to libFuzzer: `FUZZ_TARGET=png fuzz FOLDER -max_total_time=600`, built by `scripts/fuzz`.
//! `FUZZ_TARGET=png FUZZ_SEEDS=FOLDER fuzz` writes the target's valid inputs.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod libfuzzer {
    use std::{
        collections::BTreeSet,
        env, fs,
        panic::{self, PanicHookInfo},
        path::PathBuf,
        process,
        sync::{LazyLock, Mutex},
    };

    use fuzz::Target;

    static TARGET: LazyLock<&Target> = LazyLock::new(|| {
        let name = env::var("FUZZ_TARGET").unwrap_or_default();
        Target::named(&name).unwrap_or_else(|| {
            let names: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
            eprintln!("FUZZ_TARGET is {name:?}, expected one of: {}", names.join(" "));
            process::exit(2);
        })
    });

    fn begin() {
        if let Some(folder) = env::var_os("FUZZ_SEEDS").map(PathBuf::from) {
            for (number, seed) in (TARGET.seeds)().into_iter().enumerate() {
                fs::write(folder.join(format!("seed-{number}")), seed).expect("the folder is there");
            }
            process::exit(0);
        }
        // libfuzzer-sys ends the process at any panic. One that the reader itself catches is no finding, but worth a line;
        // one that escapes ends the process where libFuzzer called.
        panic::set_hook(Box::new(tell_once));
    }

    fn tell_once(panic: &PanicHookInfo<'_>) {
        static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if TOLD.lock().is_ok_and(|mut told| told.insert(place)) {
            eprintln!("PANIC: {panic}");
        }
    }

    libfuzzer_sys::fuzz_target!(init: begin(), |bytes: &[u8]| {
        TARGET.check(bytes);
    });
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    eprintln!("error: built without libFuzzer; use scripts/fuzz");
    std::process::ExitCode::from(2)
}
