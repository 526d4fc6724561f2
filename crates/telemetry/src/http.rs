use std::{io, time::Duration};

use axum::{
    Json, Router,
    extract::RawQuery,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use prometheus::{Registry, TextEncoder};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::Health;

/// GET /metrics (Prometheus text), /healthz (200 while the process lives) and /readyz (200, or 503; each check as JSON).
///
/// `/readyz?exclude=CHECK`, once or several times, answers by the other checks alone, as Kubernetes' own servers do: for a part without which
/// the process has still something to give.
pub fn routes(registry: Registry, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(async move || metrics(&registry)))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move |RawQuery(query): RawQuery| readiness(&health, query.as_deref())))
}

fn metrics(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn readiness(health: &Health, query: Option<&str>) -> Response {
    let parts = query.unwrap_or_default().split('&');
    let excluded: Vec<&str> = parts.filter_map(|part| part.strip_prefix("exclude=")).collect();
    let status = if health.is_ready_without(&excluded) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health.report())).into_response()
}

/// Answers requests until `shutdown`, then takes no new one and gives those under way at most `drain` to finish.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, drain: Duration) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        // Costs latency only, and a connection that is gone by now fails at its first read.
        let _ = connection.set_nodelay(true);
    });
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        result = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned()) => result,
        () = drained => {
            tracing::warn!(drain_seconds = drain.as_secs_f64(), "requests were still under way when the time to finish them ended");
            Ok(())
        }
    }
}

/// A token that is cancelled by the first SIGTERM or SIGINT. The handlers are in place when this returns.
pub fn termination() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let cancelled = shutdown.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        cancelled.cancel();
    });
    Ok(shutdown)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut connection = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("answers");
        answer
    }

    #[tokio::test]
    async fn is_ready_only_when_every_check_passes_and_names_the_one_that_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let mut catalogue = crate::Catalogue::new("1.2.3", &[("pool", "gpu")]).expect("new");
        let health = Health::new(&["postgres", "rabbitmq"], &mut catalogue).expect("new");
        let shutdown = CancellationToken::new();
        let router = routes(catalogue.registry(), health.clone());
        let server = tokio::spawn(serve(listener, router, shutdown.clone(), Duration::from_secs(5)));

        health.set("postgres", Ok(()));
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with(r#"{"postgres":"ok","rabbitmq":"starting"}"#), "{answer}");
        health.set("rabbitmq", Ok(()));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        health.set("postgres", Err("connection refused".into()));
        assert!(get(address, "/readyz").await.contains(r#""postgres":"connection refused""#));
        assert!(get(address, "/readyz?exclude=postgres").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz?exclude=rabbitmq&exclude=s3").await.starts_with("HTTP/1.1 503"));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"), "alive though not ready");
        health.set("postgres", Ok(()));
        let metrics = get(address, "/metrics").await;
        for series in [
            r#"dotmask_build_info{version="1.2.3",pool="gpu"} 1"#,
            r#"dotmask_ready{pool="gpu"} 1"#,
            r#"dotmask_check_up{check="postgres",pool="gpu"} 1"#,
            r#"dotmask_reconnects_total{check="postgres",pool="gpu"} 1"#,
            r#"dotmask_reconnects_total{check="rabbitmq",pool="gpu"} 0"#,
        ] {
            assert!(metrics.contains(series), "{series} is not in {metrics}");
        }
        let row =
            "| `dotmask_reconnects_total` | counter | `check`: postgres, rabbitmq | Times a part worked again after it had not |";
        assert!(catalogue.markdown().contains(row), "{}", catalogue.markdown());

        shutdown.cancel();
        server.await.expect("no panic").expect("stops");
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "takes no new connection");
    }
}
