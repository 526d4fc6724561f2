//! The pod's deletion cost, as the API server of Kubernetes sees it.

use std::{fs, net::Ipv4Addr, path::PathBuf, sync::Arc};

use ledger::JobState;
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    common::draw_cells,
    system::{RunningWorker, System, until},
};

const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 51\r\n\r\n\
    {\"kind\":\"Status\",\"message\":\"pods is forbidden: no\"}";

/// Answers every request over TLS with the same words, and keeps what was asked.
struct ApiServer {
    port: u16,
    requests: watch::Receiver<Vec<String>>,
    /// The folder of a service account that trusts it.
    service_account: PathBuf,
}

impl ApiServer {
    async fn start(system: &System, answer: &'static str) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([Ipv4Addr::LOCALHOST.to_string()])?.signed_by(&key, &authority)?;
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let tls = tls.with_safe_default_protocol_versions()?.with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls.with_single_cert(vec![certificate.der().clone()], key)?));

        let service_account = system.folder().join("service-account");
        fs::create_dir(&service_account)?;
        fs::write(service_account.join("ca.crt"), authority.pem())?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (seen, requests) = watch::channel(Vec::new());
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.expect("the listener lives");
                let request = serve(&acceptor, connection, answer).await.expect("a request over TLS");
                seen.send_modify(|requests: &mut Vec<String>| requests.push(request));
            }
        });
        let server = Self { port, requests, service_account };
        server.renew_token("first");
        Ok(server)
    }

    fn renew_token(&self, token: &str) {
        fs::write(self.service_account.join("token"), format!("{token}\n")).expect("the folder takes files");
    }

    /// A worker in a pod of this cluster.
    fn worker(&self, system: &System) -> RunningWorker {
        let environment = [
            ("DOTMASK_POD_DELETION_COST", "true".into()),
            ("DOTMASK_SERVICE_ACCOUNT", self.service_account.display().to_string()),
            ("KUBERNETES_SERVICE_HOST", Ipv4Addr::LOCALHOST.to_string()),
            ("KUBERNETES_SERVICE_PORT", self.port.to_string()),
            ("POD_NAME", "worker-7".into()),
            ("POD_NAMESPACE", "masks".into()),
        ];
        RunningWorker::start_in(system, &environment)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }
}

/// One request and its answer.
async fn serve(acceptor: &TlsAcceptor, connection: TcpStream, answer: &str) -> std::io::Result<String> {
    let mut connection = acceptor.accept(connection).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap_or("0");
    let mut body = vec![0; length.parse().expect("a number")];
    connection.read_exact(&mut body).await?;
    connection.write_all(answer.as_bytes()).await?;
    connection.shutdown().await?;
    request.extend(body);
    Ok(String::from_utf8_lossy(&request).into_owned())
}

/// Whether the request sets this cost with that token.
fn sets(request: &str, cost: &str, token: &str) -> bool {
    let lines = request.to_lowercase();
    request.starts_with("PATCH /api/v1/namespaces/masks/pods/worker-7 HTTP/1.1\r\n")
        && lines.contains("content-type: application/merge-patch+json\r\n")
        && lines.contains(&format!("authorization: bearer {token}\r\n"))
        && request
            .ends_with(&format!(r#"{{"metadata":{{"annotations":{{"controller.kubernetes.io/pod-deletion-cost":"{cost}"}}}}}}"#))
}

#[tokio::test]
async fn a_pod_costs_more_while_it_is_busy_and_jobs_in_a_row_are_one_busy_time() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let server = ApiServer::start(&system, OK).await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(system.submit(&image, 30).await);
    }
    let _worker = server.worker(&system);
    // A worker whose first job is late says first that it is idle.
    let busy = || server.requests().into_iter().skip_while(|request| sets(request, "0", "first")).collect::<Vec<_>>();
    until("the busy cost was set", async || !busy().is_empty()).await;
    server.renew_token("second");
    for job in jobs {
        assert_eq!(system.ended(job).await.state, JobState::Succeeded);
    }
    until("the idle cost was set", async || busy().len() > 1).await;
    let requests = busy();
    assert!(requests.len() == 2 && sets(&requests[0], "1000", "first") && sets(&requests[1], "0", "second"), "{requests:#?}");

    // Long enough to be seen: a job that has ended before anybody looks costs nothing.
    let next = system.submit(&image, 30).await;
    assert_eq!(system.ended(next).await.state, JobState::Succeeded);
    until("the busy cost was set again", async || busy().len() > 2).await;
    assert!(sets(&busy()[2], "1000", "second"), "{:#?}", server.requests());
}

#[tokio::test]
async fn work_goes_on_where_the_cost_cannot_be_set_and_the_log_says_so_once() {
    let system = System::start().await;
    system.ledger.declare_pool("test").await.unwrap();
    let server = ApiServer::start(&system, FORBIDDEN).await.unwrap();
    let image = system.put_image("cells.png", &fs::read(draw_cells(system.folder())).unwrap());
    let job = system.submit(&image, 3).await;
    let worker = server.worker(&system);
    assert_eq!(system.ended(job).await.state, JobState::Succeeded);
    until("it was tried again", async || server.requests().len() > 1).await;
    worker.ready().await;
    let ended = worker.stop(Signal::SIGTERM).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for words in ["pods is forbidden: no", r#"a Role with the verb \"patch\" on \"pods\" in the namespace masks"#] {
        assert_eq!(ended.stderr.matches(words).count(), 1, "{words}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("first"), "a token was logged: {}", ended.stderr);
}
