//! The command line and the environment, typed and checked whole before anything starts.
#![expect(clippy::doc_markdown, reason = "these comments are the help's text, where a backtick would be shown as one")]

mod bench;
mod evaluate;
mod limits;

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use ledger::Lease;
use request::{MAX_OBJECTS, Object, Parameters, PointsError, Recipe, S3Folder, S3Uri, View, Window};
use secrets::{Secret, names_user};
use segmenter::{Activations, Compute, Device, Precision};
use telemetry::LogFormat;
use tls::Authorities;

pub use self::{
    bench::{BenchArgs, PictureSize, WeightsArgs},
    evaluate::EvaluateArgs,
    limits::LimitArgs,
};
use crate::{
    checkpoint::{CachedObject, CheckpointPlace, CheckpointSource},
    deletion_cost::Pod,
};

/// Segments images from a few dots, by fine-tuning SAM on each.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Segment one local image, with no server.
    Segment(SegmentArgs),
    /// Compare methods on a data set of known truth, with no server.
    Evaluate(EvaluateArgs),
    /// Measure what a step and an image cost, with no server.
    Bench(BenchArgs),
    /// Work on a pool's jobs until told to stop.
    Run(Box<RunArgs>),
    /// List every metric of run as a Markdown table.
    Metrics,
}

/// Which model, and where it runs.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// SAM's weights: .safetensors, or a .pth as published.
    #[arg(long, env = "DOTMASK_CHECKPOINT", value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Where it runs.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Where the model runs.
#[derive(Debug, Clone, Args)]
pub struct ComputeArgs {
    /// cpu, or cuda: an error where there is no CUDA.
    #[arg(long, env = "DOTMASK_DEVICE", default_value_t = Device::Cpu)]
    device: Device,
    /// What the encoder's products are rounded to: fp32, tf32 (cuda alone) or bf16.
    #[arg(long, env = "DOTMASK_PRECISION", default_value_t = Precision::Fp32)]
    precision: Precision,
    /// What of a forward pass is kept for the backward pass: keep, recompute (a third more work, far less memory, the same masks), or auto, by
    /// the memory that is free.
    #[arg(long, env = "DOTMASK_ACTIVATIONS", default_value_t = Activations::Auto)]
    activations: Activations,
    /// Threads of libtorch; as many as cores if not given.
    #[arg(long, env = "DOTMASK_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub threads: Option<u16>,
}

impl ComputeArgs {
    /// Where and how.
    pub fn compute(&self) -> Compute {
        let &Self { device, precision, activations, .. } = self;
        Compute { device, precision, activations }
    }
}

/// The checkpoint of a worker of a pool.
#[derive(Debug, Clone, Args)]
pub struct CheckpointArgs {
    /// SAM's weights: .safetensors, or a .pth as published; a file, or an object of the store as `s3://bucket/key`, which needs the two
    /// below.
    #[arg(long = "checkpoint", env = "DOTMASK_CHECKPOINT", value_name = "FILE OR S3 URI")]
    place: CheckpointPlace,
    /// The checkpoint's SHA-256; another content is refused.
    #[arg(long = "checkpoint-sha256", env = "DOTMASK_CHECKPOINT_SHA256", value_name = "HEX", value_parser = sha256_hex)]
    sha256: Option<String>,
    /// The folder where a checkpoint out of the store is kept, made if it is not there; workers may share it, and a restarted one finds its
    /// checkpoint there.
    #[arg(long = "checkpoint-cache", env = "DOTMASK_CHECKPOINT_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl CheckpointArgs {
    /// The checkpoint, if all is given that it needs.
    pub fn source(&self) -> anyhow::Result<CheckpointSource> {
        let uri = match &self.place {
            CheckpointPlace::File(path) => return Ok(CheckpointSource::File(path.clone(), self.sha256.clone())),
            CheckpointPlace::Object(uri) => uri.clone(),
        };
        let sha256 = self.sha256.clone().context(
            "a checkpoint out of the object store needs --checkpoint-sha256 (DOTMASK_CHECKPOINT_SHA256), as `sha256sum` prints it",
        )?;
        let cache = self.cache.clone().context(
            "a checkpoint out of the object store needs --checkpoint-cache (DOTMASK_CHECKPOINT_CACHE), a folder with room for it",
        )?;
        Ok(CheckpointSource::Object(CachedObject { uri, sha256, cache }))
    }
}

/// How much an idle worker's pod is worth to Kubernetes, and a busy one's.
#[derive(Debug, Clone, Args)]
pub struct PodArgs {
    /// Have Kubernetes take idle workers first when it takes some away: the worker keeps the annotation
    /// `controller.kubernetes.io/pod-deletion-cost` of its pod, for which its service account must be allowed to patch pods.
    #[arg(long, env = "DOTMASK_POD_DELETION_COST", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pod_deletion_cost: bool,
    /// The pod, for the deletion cost.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: Option<String>,
    /// The pod's namespace, for the deletion cost.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pod_namespace: Option<String>,
    /// Where Kubernetes answers, for the deletion cost; Kubernetes sets it in every pod.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", value_name = "HOST")]
    kubernetes_host: Option<String>,
    /// The port for that.
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", default_value_t = 443, value_name = "PORT")]
    kubernetes_port: u16,
    /// The folder of the pod's service account, with `token` and `ca.crt`.
    #[arg(
        long,
        env = "DOTMASK_SERVICE_ACCOUNT",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount",
        value_name = "DIR"
    )]
    service_account: PathBuf,
}

impl PodArgs {
    /// The pod whose deletion cost is to be kept, if it is.
    pub fn pod(&self) -> anyhow::Result<Option<Pod>> {
        if !self.pod_deletion_cost {
            return Ok(None);
        }
        let given = |value: &Option<String>, variable: &str| {
            let value = value.clone().filter(|value| !value.is_empty());
            value.with_context(|| {
                format!(
                    "--pod-deletion-cost needs {variable}: set it from the pod's own fields, or leave it off outside Kubernetes"
                )
            })
        };
        let host = given(&self.kubernetes_host, "KUBERNETES_SERVICE_HOST")?;
        let (namespace, name) = (given(&self.pod_namespace, "POD_NAMESPACE")?, given(&self.pod_name, "POD_NAME")?);
        Pod::new(&host, self.kubernetes_port, namespace, &name, self.service_account.clone()).map(Some)
    }
}

/// How to segment: a recipe, and what of it is otherwise.
#[derive(Debug, Clone, Args)]
pub struct ParameterArgs {
    /// Fine-tuning steps.
    #[arg(long, default_value_t = Parameters::default().steps)]
    steps: u32,
    /// Adam's learning rate.
    #[arg(long, default_value_t = Parameters::default().learning_rate, allow_hyphen_values = true)]
    learning_rate: f64,
    /// The method's other choices, by name.
    #[arg(long, default_value_t = Recipe::Paper)]
    recipe: Recipe,
    /// One choice made otherwise than the recipe has it, such as `region=near_points` for one object among look-alikes; may be given several
    /// times.
    #[arg(long, value_name = "NAME=VALUE")]
    choose: Vec<String>,
}

impl ParameterArgs {
    /// The parameters, if they can be used.
    pub fn checked(&self) -> anyhow::Result<Parameters> {
        Ok(Parameters::chosen(self.steps, self.learning_rate, self.recipe, &self.choose)?)
    }
}

/// `worker segment`.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    /// Which model, and where it runs.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The image: PNG, JPEG, TIFF, BMP, NIfTI or DICOM.
    #[arg(long, value_name = "FILE")]
    pub image: PathBuf,
    /// Which axial slice of a volume, counted from 0.
    #[arg(long, value_name = "N")]
    slice: Option<u32>,
    /// Which values are shown; for CT in Hounsfield units, soft tissue is 40,400.
    #[arg(long, value_name = "CENTRE,WIDTH", allow_hyphen_values = true)]
    window: Option<Window>,
    /// The dots, in pixels of the image from its upper left corner: "x,y,1" for foreground, "x,y,0" for background,
    /// separated by semicolons. Given several times, each is an object of its own with a mask of its own.
    // Parsed by us and not by clap, whose message would repeat a text of any length.
    #[arg(long, value_name = "POINTS", allow_hyphen_values = true, required = true)]
    points: Vec<String>,
    /// How to segment.
    #[command(flatten)]
    pub parameters: ParameterArgs,
    /// What the image may cost.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// The folder for the mask, the initial mask, the overlay and the receipt; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print one JSON object instead of a summary.
    #[arg(long)]
    pub json: bool,
}

impl SegmentArgs {
    /// Each object with its dots.
    pub fn objects(&self) -> anyhow::Result<Vec<Object>> {
        let count = self.points.len();
        ensure!(count <= MAX_OBJECTS, "--points: {count} objects, expected at most {MAX_OBJECTS}");
        let object = |text: &String| match text.parse() {
            Ok(points) => Ok(Object { id: None, points }),
            Err(error) => Err(anyhow::anyhow!("--points: {}", error as PointsError)),
        };
        self.points.iter().map(object).collect()
    }

    /// What of the file becomes the picture.
    pub fn view(&self) -> View {
        View { slice: self.slice, window: self.window }
    }
}

/// Where the files are that hold the URLs of servers, if no variables do.
#[derive(Debug, Clone, Args)]
pub struct UrlArgs {
    /// The file that holds postgres://user:password@host:port/database, in place of the variable that does, [env: DATABASE_URL]. No flag takes
    /// the URL itself: arguments are visible to others.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// The file that holds amqp://user:password@host:port/vhost, in place of the variable that does, [env: AMQP_URL].
    #[arg(long, env = "AMQP_URL_FILE", value_name = "FILE")]
    amqp_url_file: Option<PathBuf>,
}

/// The servers whose URLs hold passwords.
#[derive(Clone)]
pub struct Servers {
    /// Postgres.
    pub postgres: ledger::Server,
    /// RabbitMQ.
    pub rabbitmq: broker::Server,
    /// Whom to trust beside the system's authorities, as the object store's client asks.
    pub authorities: Authorities,
}

impl UrlArgs {
    /// The servers that the variables or the files name; they may show certificates of these authorities.
    pub fn servers(&self, authorities: Authorities) -> anyhow::Result<Servers> {
        let database_url = Secret::required("DATABASE_URL", self.database_url_file.as_deref())?;
        let amqp_url = Secret::required("AMQP_URL", self.amqp_url_file.as_deref())?;
        Ok(Servers {
            postgres: ledger::Server::new(database_url.expose(), &authorities)?,
            rabbitmq: broker::Server::new(amqp_url.expose(), &authorities)?,
            authorities,
        })
    }
}

/// `worker run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Where Postgres and RabbitMQ are.
    #[command(flatten)]
    urls: UrlArgs,
    /// Where the object store is, if it is not AWS.
    #[arg(long, env = "DOTMASK_S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// The file with the certificates, in PEM, of authorities that are trusted beside the system's to say who Postgres, RabbitMQ and the object
    /// store are, where they are reached by TLS.
    #[arg(long, env = "DOTMASK_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The object store's region.
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    pub s3_region: String,
    /// Name buckets in the path and not in the host's name, as most stores other than AWS need.
    #[arg(long, env = "DOTMASK_S3_PATH_STYLE", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub s3_path_style: bool,
    /// The pool whose jobs to work on.
    #[arg(long, env = "DOTMASK_POOL")]
    pub pool: String,
    /// Where results go and nothing else lies: `s3://bucket/prefix`, under which PROJECT/BATCH/JOB/EPOCH/mask.png and the others are written.
    #[arg(long, env = "DOTMASK_MASKS", value_name = "S3 FOLDER")]
    pub masks: MasksRoot,
    /// Which model.
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,
    /// Where it runs.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// What Kubernetes is told.
    #[command(flatten)]
    pub pod: PodArgs,
    /// What an image and a truth may cost.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How long a job may take, without its wait for the model; what takes longer has failed.
    #[arg(long, env = "DOTMASK_MAX_JOB_SECONDS", default_value = "3600", value_parser = seconds)]
    pub max_job_seconds: Duration,
    /// Where /metrics, /healthz and /readyz answer; port 0 takes a free one, which is logged.
    #[arg(long, env = "DOTMASK_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// How long a job stays ours without a heartbeat. Longer outlives longer outages of Postgres; a lost worker's jobs wait as long.
    #[arg(long, env = "DOTMASK_LEASE_SECONDS", default_value = "20", value_parser = seconds)]
    pub lease_seconds: Duration,
    /// The time between heartbeats; at most half a lease.
    #[arg(long, env = "DOTMASK_HEARTBEAT_SECONDS", default_value = "5", value_parser = seconds)]
    pub heartbeat_seconds: Duration,
    /// Jobs held at once: one computes while the others are fetched and uploaded.
    #[arg(long, env = "DOTMASK_PREFETCH", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub prefetch: u16,
    /// How long jobs may go on after SIGTERM before they are given back; the worker has ended at most 5 s after that.
    #[arg(long, env = "DOTMASK_DRAIN_SECONDS", default_value = "5", value_parser = seconds_or_none)]
    pub drain_seconds: Duration,
    /// text or json.
    #[arg(long, env = "DOTMASK_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

impl RunArgs {
    /// Where the servers are, if nothing is wrong that no single value shows.
    pub fn check(&self) -> anyhow::Result<Servers> {
        ensure!(
            self.heartbeat_seconds * 2 <= self.lease_seconds,
            "a heartbeat every {} s cannot keep a lease of {} s: make it at most half of it",
            self.heartbeat_seconds.as_secs_f64(),
            self.lease_seconds.as_secs_f64(),
        );
        // Messages show it.
        ensure!(
            !self.s3_endpoint.as_deref().is_some_and(names_user),
            "--s3-endpoint (DOTMASK_S3_ENDPOINT) names a user before the server, expected http://host:port; credentials have no place there"
        );
        let servers = self.urls.servers(Authorities::read(self.ca_file.as_deref())?)?;
        self.checkpoint.source()?;
        self.pod.pod()?;
        Ok(servers)
    }
}

fn sha256_hex(text: &str) -> Result<String, String> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { Ok(text.to_ascii_lowercase()) } else { Err("expected a SHA-256 in 64 hexadecimal digits".into()) }
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| seconds.as_secs() <= 86_400).ok_or_else(|| "expected a number of seconds, at most 86400".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match seconds_or_none(text)? {
        Duration::ZERO => Err("expected more than 0 seconds".into()),
        seconds => Ok(seconds),
    }
}

/// The folder in the object store under which results are written, each project's in a folder of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasksRoot(S3Folder);

impl MasksRoot {
    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        self.0.bucket()
    }

    /// Where a file of this claim of this job of a project goes: another claim of the same job never writes to the same place.
    pub fn place(&self, project: &str, lease: &Lease, file: &str) -> S3Uri {
        let Lease { job_id, batch_id, epoch, .. } = lease;
        S3Uri::new(self.0.bucket(), &format!("{}{project}/{batch_id}/{job_id}/{epoch}/{file}", self.0.prefix()))
            .expect("the bucket and the prefix's length were checked, and names of projects, ids and files are plain")
    }

    /// Whether an object lies among the results, and not in the project's own folder.
    pub fn is_of_others(&self, project: &str, uri: &S3Uri) -> bool {
        let in_own = |within: &str| within.split_once('/').is_some_and(|(owner, _)| owner == project);
        self.0.within(uri).is_some_and(|within| !in_own(within))
    }
}

impl FromStr for MasksRoot {
    type Err = request::UriError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let folder: S3Folder = text.parse()?;
        // A project's name, two ids, an epoch and a file's name need this much of a key's length.
        S3Uri::new(folder.bucket(), &format!("{}{}", folder.prefix(), "x".repeat(192)))?;
        Ok(Self(folder))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn puts_every_claim_of_a_job_into_a_folder_of_its_own() {
        let lease = Lease { job_id: uuid::Uuid::nil(), batch_id: uuid::Uuid::max(), epoch: 3, worker: "w".into() };
        let tail = format!("lab/{}/{}/3/mask.png", lease.batch_id, lease.job_id);
        for (text, expected) in [
            ("s3://masks", format!("s3://masks/{tail}")),
            ("s3://masks/", format!("s3://masks/{tail}")),
            ("s3://masks/a/xx/", format!("s3://masks/a/xx/{tail}")),
        ] {
            let root: MasksRoot = text.parse().expect("valid");
            assert_eq!(root.place("lab", &lease, "mask.png").to_string(), expected);
        }
    }

    #[test]
    fn knows_the_results_of_other_projects_from_a_projects_own_and_from_images() {
        let root: MasksRoot = "s3://scans/masks".parse().expect("valid");
        for (key, is_of_others) in [
            ("masks/lab/b/j/1/mask.png", false),
            ("masks/lab-2/b/j/1/mask.png", true),
            ("masks/LAB/b/j/1/mask.png", true),
            ("masks/lab", true),
            ("masks/b/j/1/mask.png", true),
            ("masks2/lab-2/b/j/1/mask.png", false),
            ("a.png", false),
        ] {
            assert_eq!(root.is_of_others("lab", &S3Uri::new("scans", key).expect(key)), is_of_others, "{key}");
            assert!(!root.is_of_others("lab", &S3Uri::new("elsewhere", key).expect(key)), "{key}");
        }
    }

    #[test]
    fn refuses_a_place_for_masks_that_is_none() {
        for text in ["", "/tmp/masks", "s3://", "s3://M/x"] {
            assert!(text.parse::<MasksRoot>().is_err(), "{text}");
        }
        assert!(format!("s3://masks/{}", "y".repeat(1_000)).parse::<MasksRoot>().is_err());
    }

    #[test]
    fn refuses_seconds_that_are_no_time() {
        for text in ["", "-1", "NaN", "inf", "1e9", "five"] {
            assert!(seconds_or_none(text).is_err(), "{text}");
        }
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("0").is_err());
        assert_eq!(seconds_or_none("0"), Ok(Duration::ZERO));
    }
}
