//! The pod's deletion cost: where Kubernetes takes workers away, idle ones go first.
//!
//! A replica set that shrinks takes the pods of the lowest `controller.kubernetes.io/pod-deletion-cost` first. It is written when the worker
//! becomes busy, and when it has been idle for a while: jobs that follow each other are one busy time, and a thousand workers ask the API
//! server of Kubernetes for little. Nothing of the work waits for it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use reqwest::{Certificate, Client, StatusCode, Url, header, redirect};
use serde::Deserialize;
use serde_json::json;
use telemetry::{Backoff, Outage};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How long a worker has no job before it is said to be idle; shortened by up to a half at random.
const IDLE_AFTER: Duration = Duration::from_secs(20);
/// How long the API server has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Waits while it refuses or is away: many workers refused alike must not keep it from its work.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));

/// The jobs that this worker has, counted.
#[derive(Default)]
pub struct HeldJobs(watch::Sender<usize>);

/// One of them, until it is dropped.
pub struct HeldJob<'a>(&'a HeldJobs);

impl HeldJobs {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    pub fn hold(&self) -> HeldJob<'_> {
        self.0.send_modify(|count| *count += 1);
        HeldJob(self)
    }

    /// How many there are, at each change.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}

impl Drop for HeldJob<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// What the pod's deletion costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    Idle,
    Busy,
}

impl Cost {
    /// The annotation's value. A pod without one counts as 0.
    fn value(self) -> &'static str {
        match self {
            Self::Idle => "0",
            Self::Busy => "1000",
        }
    }
}

/// The worker's own pod, as the API server of Kubernetes knows it.
#[derive(Debug)]
pub struct Pod {
    url: Url,
    namespace: String,
    service_account: PathBuf,
}

/// What the API server says when it refuses.
#[derive(Deserialize, Default)]
struct Refusal {
    message: String,
}

impl Pod {
    /// The pod of that name. `service_account` is the folder with its token and the API server's certificates.
    pub fn new(host: &str, port: u16, namespace: String, name: &str, service_account: PathBuf) -> anyhow::Result<Self> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let url = format!("https://{host}:{port}/api/v1/namespaces/{namespace}/pods/{name}");
        let url = Url::parse(&url).with_context(|| format!("{url} is no address of a pod; check POD_NAME and POD_NAMESPACE"))?;
        Ok(Self { url, namespace, service_account })
    }

    /// Keeps the pod's deletion cost, as long as jobs are counted.
    pub async fn keep_deletion_cost(self, mut jobs: watch::Receiver<usize>) {
        let mut outage = Outage::new("pod deletion cost");
        let mut backoff = BACKOFF;
        let mut known = None;
        while let Some(cost) = next(&mut jobs, known, IDLE_AFTER).await {
            match self.annotate(cost).await {
                Ok(()) => {
                    outage.works();
                    backoff.reset();
                    known = Some(cost);
                }
                Err(error) => {
                    outage.failed(error);
                    // What a request that failed has changed is not known.
                    known = None;
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Token and certificates are read each time: Kubernetes renews them, and this is rare.
    async fn annotate(&self, cost: Cost) -> anyhow::Result<()> {
        let read = async |name: &str| {
            let path = self.service_account.join(name);
            let advice = || {
                format!("cannot read {}; mount the pod's service account token, or turn --pod-deletion-cost off", path.display())
            };
            tokio::fs::read(&path).await.with_context(advice)
        };
        let token = String::from_utf8(read("token").await?).context("the service account's token is no text")?;
        let certificates =
            Certificate::from_pem_bundle(&read("ca.crt").await?).context("the service account's ca.crt holds no certificates")?;
        // The API server is the pod's neighbour, whatever proxy leads out of the cluster.
        let client =
            Client::builder().tls_certs_only(certificates).no_proxy().redirect(redirect::Policy::none()).timeout(PATIENCE);
        let client = client.build().context("cannot make a client for the Kubernetes API")?;
        let patch = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost.value()}}});
        let request =
            client.patch(self.url.clone()).bearer_auth(token.trim()).header(header::CONTENT_TYPE, "application/merge-patch+json");
        let answer = request.body(patch.to_string()).send().await.context("cannot reach the Kubernetes API")?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said: String = answer.json::<Refusal>().await.unwrap_or_default().message.chars().take(300).collect();
        let advice = if status == StatusCode::FORBIDDEN {
            let namespace = &self.namespace;
            format!(
                "; bind a Role with the verb \"patch\" on \"pods\" in the namespace {namespace} to the worker's service account, or turn --pod-deletion-cost off"
            )
        } else {
            String::new()
        };
        bail!("the Kubernetes API answers {status}: {said}{advice}");
    }
}

/// Waits until the cost is another than the known one; none when jobs are no longer counted.
async fn next(jobs: &mut watch::Receiver<usize>, known: Option<Cost>, idle_after: Duration) -> Option<Cost> {
    loop {
        let is_busy = *jobs.borrow_and_update() > 0;
        let changed = match (is_busy, known) {
            (true, Some(Cost::Busy)) | (false, Some(Cost::Idle)) => jobs.changed().await,
            (true, _) => return Some(Cost::Busy),
            (false, _) => match timeout(Backoff::new(idle_after, idle_after).next_wait(), jobs.changed()).await {
                Ok(changed) => changed,
                Err(_) => return Some(Cost::Idle),
            },
        };
        changed.ok()?;
    }
}
