use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use reqwest::Client;
use serde_json::Value;
use servers::{Prometheus, ScrapeTarget};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

/// A private Prometheus and what is asked of it.
pub struct Monitor {
    prometheus: Prometheus,
    targets: Vec<ScrapeTarget>,
    http: Client,
    // Dropped after the server that writes in it.
    _dir: TempDir,
}

impl Monitor {
    /// Starts it with these files of rules.
    pub async fn start(rules: &[PathBuf]) -> anyhow::Result<Self> {
        // Fails only where a provider is installed already, and that one will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = TempDir::with_prefix("dotmask-prometheus-")?;
        let prometheus = Prometheus::start(&dir.path().join("prometheus"), rules).await?;
        Ok(Self { prometheus, targets: Vec::new(), http: Client::builder().no_proxy().build()?, _dir: dir })
    }

    /// Scrapes one more.
    pub fn scrape(&mut self, address: &str, labels: &[(&'static str, &'static str)]) -> anyhow::Result<()> {
        self.targets.push(ScrapeTarget { address: address.into(), labels: labels.into() });
        Ok(self.prometheus.scrape(&self.targets)?)
    }

    /// Series and values of an expression, now. NaN is no value: it is what a share of nothing comes to.
    pub async fn values(&self, expression: &str) -> anyhow::Result<Vec<f64>> {
        let data = self.get("/api/v1/query", &[("query", expression)]).await?;
        let result = data["result"].as_array().with_context(|| format!("{expression} is no vector: {data}"))?;
        let values = result.iter().filter_map(|series| series["value"][1].as_str()?.parse().ok());
        Ok(values.filter(|value: &f64| !value.is_nan()).collect())
    }

    /// The values of a label among these series, or of all.
    pub async fn label_values(&self, label: &str, selector: Option<&str>) -> anyhow::Result<Vec<String>> {
        let matching: Vec<_> = selector.into_iter().map(|selector| ("match[]", selector)).collect();
        Ok(serde_json::from_value(self.get(&format!("/api/v1/label/{label}/values"), &matching).await?)?)
    }

    /// Every rule with its state.
    pub async fn rules(&self) -> anyhow::Result<Vec<Value>> {
        let data = self.get("/api/v1/rules", &[]).await?;
        let groups = data["groups"].as_array().context("no groups")?;
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let url = format!("http://{}{path}", self.prometheus.address());
        let mut answer: Value = self.http.get(url).query(query).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{query:?}: {answer}");
        Ok(answer["data"].take())
    }
}

/// Serves this text at every path until the task is dropped, and says where.
pub async fn serve_text(text: &'static str) -> anyhow::Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let task = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            // A scraper that gave up comes again.
            if connection.read(&mut request).await.is_ok() {
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        }
    });
    Ok((address, task))
}
