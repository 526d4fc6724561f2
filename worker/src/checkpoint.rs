//! The checkpoint of `worker run`: a file, or an object of the store that is kept in a folder of the node.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, anyhow};
use objects::{Download, DownloadError, Objects, ObjectsError};
use request::{S3Uri, UriError};
use segmenter::{Checkpoint, CheckpointError, sha256};
use telemetry::{Health, Outage};
use tokio::{task::spawn_blocking, time::sleep};

use crate::errors::Failure;

const MIB: u64 = 1 << 20;
/// Whoever writes a part does so much more often.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// Where a checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointPlace {
    /// On this machine.
    File(PathBuf),
    /// In the object store.
    Object(S3Uri),
}

impl FromStr for CheckpointPlace {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.starts_with("s3://") { text.parse().map(Self::Object) } else { Ok(Self::File(text.into())) }
    }
}

/// A checkpoint with all that is needed to have it.
#[derive(Debug)]
pub enum CheckpointSource {
    /// A file, and its SHA-256 where that is to be checked.
    File(PathBuf, Option<String>),
    /// An object of the store.
    Object(CachedObject),
}

impl CheckpointSource {
    /// Reads the checkpoint. For an object it waits until the store answers.
    pub async fn load(self, objects: &Objects, health: &Health) -> Result<Checkpoint, Failure> {
        match self {
            Self::Object(object) => object.load(objects, health).await,
            Self::File(path, expected) => {
                says(health, "reading the checkpoint");
                let checkpoint = blocking(move || Checkpoint::read(&path)).await?.map_err(Failure::bad_input)?;
                match expected {
                    Some(expected) if checkpoint.sha256() != expected => {
                        Err(other_content(&format!("checkpoint {}", checkpoint.path().display()), checkpoint.sha256(), &expected))
                    }
                    _ => Ok(checkpoint),
                }
            }
        }
    }
}

/// A checkpoint in the store, and the folder where workers of this node keep it.
#[derive(Debug)]
pub struct CachedObject {
    /// Where it is.
    pub uri: S3Uri,
    /// Its SHA-256 in lower-case hexadecimal: what the store gives is taken only if it has it.
    pub sha256: String,
    /// The folder, which other workers may use as well.
    pub cache: PathBuf,
}

/// What the cache has.
enum Cached {
    Whole(Checkpoint),
    /// Something else in its place.
    Damaged,
    Nothing,
}

impl CachedObject {
    async fn load(self, objects: &Objects, health: &Health) -> Result<Checkpoint, Failure> {
        says(health, "reading the checkpoint");
        if let Cached::Whole(checkpoint) = self.cached().await? {
            return Ok(checkpoint);
        }
        fs::create_dir_all(&self.cache).with_context(|| self.cannot_keep())?;
        let part = self.claim(health).await.with_context(|| self.cannot_keep())?;
        // Another worker may have fetched it meanwhile.
        match self.cached().await? {
            Cached::Whole(checkpoint) => return Ok(checkpoint),
            Cached::Damaged => {
                tracing::warn!(checkpoint.sha256 = self.sha256, "the cached checkpoint is damaged, fetching it again");
            }
            Cached::Nothing => {}
        }
        self.fetch(objects, health, part).await?;
        says(health, "reading the checkpoint");
        match self.cached().await? {
            Cached::Whole(checkpoint) => Ok(checkpoint),
            Cached::Damaged | Cached::Nothing => {
                Err(anyhow!("{}: it was changed or taken away as soon as it was there", self.cannot_keep()).into())
            }
        }
    }

    /// The content's hash and the key's extension, for people.
    fn file(&self) -> PathBuf {
        let extension = Path::new(self.uri.key()).extension().and_then(|extension| extension.to_str());
        let extension = extension.filter(|text| text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let extension = extension.map(|extension| format!(".{extension}")).unwrap_or_default();
        self.cache.join(format!("{}{extension}", self.sha256))
    }

    async fn cached(&self) -> Result<Cached, Failure> {
        let (path, expected) = (self.file(), self.sha256.clone());
        blocking(move || match Checkpoint::read(&path) {
            Ok(checkpoint) if checkpoint.sha256() == expected => Ok(Cached::Whole(checkpoint)),
            Ok(_) | Err(CheckpointError::NotAFile { .. }) => Ok(Cached::Damaged),
            Err(CheckpointError::Unreadable { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => Ok(Cached::Nothing),
            Err(error) if fs::read(&path).is_ok_and(|bytes| sha256(&bytes) != expected) => {
                tracing::debug!(error = %error, "the cached checkpoint is damaged");
                Ok(Cached::Damaged)
            }
            // What is wanted is no checkpoint: fetching it again would change nothing.
            Err(error) => Err(Failure::bad_input(error)),
        })
        .await?
    }

    /// An empty file beside the checkpoint's place, which no other worker writes to. Workers that start together wait here for the one
    /// that fetches.
    async fn claim(&self, health: &Health) -> io::Result<Part> {
        let path = self.file().with_added_extension("part");
        loop {
            // Truncated only once it is ours.
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            let locked = match file.try_lock() {
                Ok(()) => Ok(file),
                Err(TryLockError::WouldBlock) => {
                    tracing::info!("another worker of this node fetches the checkpoint, waiting for it");
                    says(health, "waiting for another worker of this node that fetches the checkpoint");
                    spawn_blocking(move || file.lock().map(|()| file)).await.map_err(io::Error::other)?
                }
                Err(TryLockError::Error(error)) => Err(error),
            };
            let file = match locked {
                Ok(file) => file,
                Err(error) => {
                    tracing::warn!(error = %error, "the checkpoint's cache has no locks: workers that start together each fetch it");
                    return self.unlocked_part();
                }
            };
            // Whoever had the lock has renamed or removed what was locked, unless it was killed: then what it left is taken over.
            let (ours, there) = (file.metadata()?, fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                file.set_len(0)?;
                return Ok(Part { path, is_kept: false, file });
            }
        }
    }

    /// Of a name of its own. What killed workers left is taken away first: without locks nobody takes it over.
    fn unlocked_part(&self) -> io::Result<Part> {
        self.remove_abandoned_parts()?;
        let readable = Permissions::from_mode(0o644);
        let file =
            tempfile::Builder::new().prefix(&self.sha256).suffix(".part").permissions(readable).tempfile_in(&self.cache)?;
        let (file, path) = file.keep().map_err(|error| error.error)?;
        Ok(Part { path, is_kept: false, file })
    }

    fn remove_abandoned_parts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.cache)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let is_ours = name.to_str().is_some_and(|name| name.starts_with(&self.sha256));
            let is_part = is_ours && path.extension().is_some_and(|extension| extension == "part");
            // Another worker may take it away at the same time.
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let is_old = written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > ABANDONED_AFTER));
            if is_part && is_old && fs::remove_file(path).is_ok() {
                tracing::info!("removed a part of the checkpoint that a killed worker left in its cache");
            }
        }
        Ok(())
    }

    /// Puts the object into its place in the cache, if it has the right content.
    async fn fetch(&self, objects: &Objects, health: &Health, part: Part) -> Result<(), Failure> {
        let bucket = self.uri.bucket();
        tracing::info!(bucket, checkpoint.sha256 = self.sha256, "fetching the checkpoint");
        tracing::debug!(object = %self.uri, "the checkpoint's place");
        says(health, "fetching the checkpoint");
        let started = Instant::now();
        let file = part.file.try_clone().with_context(|| self.cannot_keep())?;
        let mut download = Download::new(tokio::fs::File::from_std(file));
        let mut bytes = 0;
        let mut on_progress = |there: u64, whole: Option<u64>| {
            bytes = there;
            let of = whole.map(|whole| format!(" of {}", whole.div_ceil(MIB))).unwrap_or_default();
            says(health, &format!("fetching the checkpoint: {}{of} MiB", there / MIB));
        };
        let mut outage = Outage::new("checkpoint");
        loop {
            match objects.download(&self.uri, &mut download, Checkpoint::MAX_BYTES, &mut on_progress).await {
                Ok(()) => break outage.works(),
                Err(DownloadError::Store(error)) => {
                    let reason = self.without_key(&error);
                    if !error.is_transient() {
                        return Err(Failure::bad_input(anyhow!("cannot fetch the checkpoint: {reason}")));
                    }
                    says(health, &format!("fetching the checkpoint: {reason}"));
                    // Nothing is written meanwhile, and it is not abandoned.
                    part.file.set_modified(SystemTime::now()).with_context(|| self.cannot_keep())?;
                    sleep(outage.failed(reason)).await;
                }
                Err(DownloadError::File(error)) => return Err(anyhow!("{}: {error}", self.cannot_keep()).into()),
            }
        }
        let found = download.finish().await.with_context(|| self.cannot_keep())?;
        if found != self.sha256 {
            return Err(other_content(&format!("the checkpoint in s3://{bucket}/..."), &found, &self.sha256));
        }
        part.keep_as(&self.file()).with_context(|| self.cannot_keep())?;
        let duration_ms = started.elapsed().as_millis() as u64;
        tracing::info!(bucket, checkpoint.sha256 = self.sha256, bytes, duration_ms, "the checkpoint is fetched");
        Ok(())
    }

    fn cannot_keep(&self) -> String {
        format!(
            "cannot keep the checkpoint in {}; check that --checkpoint-cache is a folder that the worker may write to, with room for it",
            self.cache.display()
        )
    }

    /// Keys are logged at debug level only.
    fn without_key(&self, error: &ObjectsError) -> String {
        let bucket = self.uri.bucket();
        error.to_string().replace(&format!("{bucket}/{}", self.uri.key()), &format!("{bucket}/..."))
    }
}

/// A file that is being written. It goes when this is dropped, unless it was kept.
struct Part {
    path: PathBuf,
    is_kept: bool,
    /// Holds the lock, until after the name is gone or final: whoever waits for it must not take over what is about to be removed.
    file: File,
}

impl Part {
    /// Gives it its final name, for good.
    fn keep_as(mut self, place: &Path) -> io::Result<()> {
        fs::rename(&self.path, place)?;
        self.is_kept = true;
        // The name is on the disk once the folder is.
        File::open(place.parent().unwrap_or(place))?.sync_all()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(error = %error, "a part of the checkpoint is left over in its cache");
        }
    }
}

fn other_content(what: &str, found: &str, expected: &str) -> Failure {
    Failure::bad_input(anyhow!(
        "{what} has the SHA-256 {found}, expected {expected}; give --checkpoint-sha256 the checkpoint's own, or put the right file there"
    ))
}

/// What /readyz says of the model until it is there.
fn says(health: &Health, words: &str) {
    health.set("model", Err(words.into()));
}

/// Gigabytes are read and hashed off the threads that answer.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    spawn_blocking(work).await.context("reading the checkpoint crashed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_locks_a_part_that_was_abandoned_goes_and_others_stay() {
        let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
        let (ours, others) = ("a".repeat(64), "b".repeat(64));
        let cached = CachedObject {
            uri: "s3://models/sam.pth".parse().expect("valid"),
            sha256: ours.clone(),
            cache: folder.path().into(),
        };
        let (now, old) = (SystemTime::now(), SystemTime::now() - Duration::from_mins(61));
        let files = [
            (format!("{ours}kill09.part"), old, false),
            (format!("{ours}active.part"), now, true),
            (format!("{others}kill09.part"), old, true),
            (format!("{ours}.pth"), old, true),
        ];
        for (name, written, _) in &files {
            File::create(folder.path().join(name))
                .and_then(|file| file.set_modified(*written))
                .expect("a new folder takes files");
        }
        let part = cached.unlocked_part().expect("the folder takes files");
        for (name, _, stays) in files {
            assert_eq!(folder.path().join(&name).exists(), stays, "{name}");
        }
        assert!(part.path.exists());
    }
}
