//! `worker run` with a checkpoint out of the object store.

use std::{fs, path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use servers::{Mode, Proxies};

use crate::{
    checkpoint::checkpoint,
    common::sha256,
    system::{RunningWorker, System},
};

/// A name that no log may have.
const KEY: &str = "of-a-study/weights.safetensors";

/// A system with a checkpoint in its store and an empty folder to keep it.
struct Stored {
    system: System,
    proxies: Proxies,
    content: Vec<u8>,
    sha256: String,
    cache: PathBuf,
}

impl Stored {
    async fn start() -> Self {
        let system = System::start().await;
        system.ledger.declare_pool("test").await.expect("Postgres answers");
        let content = fs::read(checkpoint()).expect("it was just written");
        let place = system.stack.objects.dir().join("models").join(KEY);
        fs::create_dir_all(place.parent().expect("a key has a folder")).expect("the store's folder takes files");
        fs::write(&place, &content).expect("the store's folder takes files");
        let proxies = Proxies::start(&system.stack).expect("free ports");
        let cache = system.folder().join("node/cache");
        Self { proxies, sha256: sha256(&content), content, cache, system }
    }

    fn worker(&self) -> RunningWorker {
        self.worker_that_expects(&self.sha256)
    }

    fn worker_that_expects(&self, sha256: &str) -> RunningWorker {
        RunningWorker::start_via(&self.system, &self.proxies, &self.arguments(sha256).each_ref().map(String::as_str))
    }

    fn arguments(&self, sha256: &str) -> [String; 6] {
        let (uri, cache) = (format!("s3://models/{KEY}"), self.cache.display().to_string());
        ["--checkpoint".into(), uri, "--checkpoint-sha256".into(), sha256.into(), "--checkpoint-cache".into(), cache]
    }

    fn place(&self) -> PathBuf {
        self.cache.join(format!("{}.safetensors", self.sha256))
    }

    /// The names in the cache.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.cache).into_iter().flatten();
        entries.map(|entry| entry.expect("the folder can be read").file_name().to_string_lossy().into_owned()).collect()
    }

    /// The cache has the checkpoint and nothing else.
    fn is_kept(&self) {
        assert_eq!(self.kept(), [format!("{}.safetensors", self.sha256)]);
        assert_eq!(fs::read(self.place()).expect("it is there"), self.content);
    }
}

#[tokio::test]
async fn fetches_its_checkpoint_and_later_finds_it_without_the_store() {
    let stored = Stored::start().await;
    let worker = stored.worker();
    worker.ready().await;
    stored.is_kept();
    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("the checkpoint is fetched"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("weights"), "an object's key was logged: {}", ended.stderr);

    fs::remove_dir_all(stored.system.stack.objects.dir().join("models")).unwrap();
    let worker = stored.worker();
    worker.ready().await;
    assert!(!worker.log().contains("fetching the checkpoint"), "{}", worker.log());
}

#[tokio::test]
async fn refuses_another_content_than_expected_and_leaves_nothing_behind() {
    let stored = Stored::start().await;
    let expected = "0".repeat(64);
    let ended = stored.worker_that_expects(&expected).ended().await;
    assert_eq!(ended.code, 2);
    let words = [&format!("has the SHA-256 {}, expected {expected}", stored.sha256), "--checkpoint-sha256"];
    assert!(words.iter().all(|word| ended.stderr.contains(*word)), "{}", ended.stderr);
    assert!(!ended.stderr.contains("weights"), "an object's key was logged: {}", ended.stderr);
    assert!(stored.kept().is_empty(), "{:?}", stored.kept());
}

#[tokio::test]
async fn an_object_that_is_not_there_and_a_folder_that_cannot_be_are_told() {
    let mut stored = Stored::start().await;
    fs::remove_dir_all(stored.system.stack.objects.dir().join("models/of-a-study")).unwrap();
    let ended = stored.worker().ended().await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("cannot fetch the checkpoint: there is no object s3://models/..."), "{}", ended.stderr);
    assert!(stored.kept().is_empty(), "{:?}", stored.kept());

    let file = stored.system.folder().join("file");
    fs::write(&file, "").unwrap();
    stored.cache = file.join("cache");
    let ended = stored.worker().ended().await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("file/cache"), "{}", ended.stderr);
}

#[tokio::test]
async fn fetches_a_damaged_one_again() {
    let stored = Stored::start().await;
    fs::create_dir_all(&stored.cache).unwrap();
    let mut other_weights = stored.content.clone();
    // The last byte of the last number: still a checkpoint, but another.
    *other_weights.last_mut().unwrap() ^= 1;
    for damaged in [&stored.content[..stored.content.len() / 2], &other_weights, b""] {
        fs::write(stored.place(), damaged).unwrap();
        let worker = stored.worker();
        worker.says(r#""model":"ok""#).await;
        stored.is_kept();
        let ended = worker.stop(Signal::SIGTERM).await;
        assert!(ended.stderr.contains("the cached checkpoint is damaged, fetching it again"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn workers_that_start_together_fetch_it_once() {
    let stored = Stored::start().await;
    stored.proxies.objects.set(Mode::Stall);
    let first = stored.worker();
    first.says("fetching the checkpoint").await;
    let others = [stored.worker(), stored.worker()];
    for worker in &others {
        worker.says("waiting for another worker of this node that fetches the checkpoint").await;
    }
    stored.proxies.objects.set(Mode::Pass);
    first.ready().await;
    assert!(first.log().contains("the checkpoint is fetched"), "{}", first.log());
    for worker in &others {
        worker.ready().await;
        assert!(!worker.log().contains("the checkpoint is fetched"), "{}", worker.log());
    }
    stored.is_kept();
}

#[tokio::test]
async fn takes_over_what_a_killed_worker_left() {
    let stored = Stored::start().await;
    stored.proxies.objects.set(Mode::Delay(Duration::from_millis(500)));
    let worker = stored.worker();
    worker.says(" MiB").await;
    let waiting = stored.worker();
    waiting.says("waiting for another worker").await;
    worker.signal(Signal::SIGKILL);
    stored.proxies.objects.set(Mode::Pass);
    waiting.ready().await;
    stored.is_kept();
}

#[tokio::test]
async fn waits_for_a_store_that_is_away() {
    let stored = Stored::start().await;
    stored.proxies.objects.set(Mode::Reset);
    let worker = stored.worker();
    worker.says("fetching the checkpoint: the store failed to serve s3://models/...").await;
    worker.logged("failed, trying again until it works").await;
    stored.proxies.objects.set(Mode::Pass);
    worker.ready().await;
    stored.is_kept();
    let log = worker.log();
    assert_eq!(log.matches("failed, trying again until it works part=\"checkpoint\"").count(), 1, "{log}");
    assert!(!log.contains("weights"), "an object's key was logged: {log}");
}

#[tokio::test]
async fn ends_at_once_while_it_waits_for_its_checkpoint_or_reads_it() {
    let stored = Stored::start().await;
    let arguments = stored.arguments(&stored.sha256);
    let away = RunningWorker::without_servers(&arguments.each_ref().map(String::as_str));
    away.says("fetching the checkpoint: the store failed").await;

    let waiting = stored.worker();
    waiting.says("waiting for another worker").await;
    ended_at_once(waiting).await;
    ended_at_once(away).await;
    assert!(stored.kept().is_empty(), "{:?}", stored.kept());

    for (mode, words) in [(Mode::Stall, "fetching the checkpoint"), (Mode::Delay(Duration::from_secs(1)), " MiB")] {
        stored.proxies.objects.set(mode);
        let worker = stored.worker();
        worker.says(words).await;
        assert_eq!(stored.kept().len(), 1, "the part");
        ended_at_once(worker).await;
        assert!(stored.kept().is_empty(), "{:?}", stored.kept());
    }
}

async fn ended_at_once(worker: RunningWorker) {
    worker.signal(Signal::SIGTERM);
    // Well under the seconds for which jobs would go on.
    let ended = tokio::time::timeout(Duration::from_secs(5), worker.ended()).await.expect("no job has to be drained");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}
