use std::{cmp::Reverse, collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// A Grafana board of the chart.
pub struct Board {
    /// Its fixed name in addresses.
    pub uid: String,
    /// In the order in which one depends on another.
    pub variables: Vec<Variable>,
    /// All but the rows' heads.
    pub panels: Vec<Panel>,
    /// The file's content.
    pub json: Value,
}

/// What a person chooses at the top of a board.
pub struct Variable {
    /// Without the dollar.
    pub name: String,
    /// How it gets its values.
    pub source: Source,
}

/// Where a variable's values come from.
pub enum Source {
    /// The data sources of this kind.
    DataSource(String),
    /// Prometheus: `label_values(selector, label)`; and what All stands for, where it may be chosen.
    LabelValues {
        /// Whose series.
        selector: String,
        /// Which label of theirs.
        label: String,
        /// What All stands for.
        all: Option<String>,
    },
    /// Postgres.
    Sql(String),
    /// What was typed, or the first of a list.
    Fixed(String),
}

/// One picture of a board.
pub struct Panel {
    /// With the board's name, for messages.
    pub name: String,
    /// For Prometheus or Postgres, with variables in it.
    pub queries: Vec<String>,
    /// The panel's part of the file.
    pub json: Value,
}

/// All boards of the chart.
pub fn boards(repository: &Path) -> anyhow::Result<Vec<Board>> {
    let mut boards = Vec::new();
    for entry in fs::read_dir(repository.join("helm/dotmask/dashboards"))? {
        let path = entry?.path();
        let json: Value = serde_json::from_slice(&fs::read(&path)?).with_context(|| path.display().to_string())?;
        boards.push(Board::new(json).with_context(|| path.display().to_string())?);
    }
    ensure!(!boards.is_empty(), "the chart has no boards");
    Ok(boards)
}

impl Board {
    fn new(json: Value) -> anyhow::Result<Self> {
        let uid = text(&json, "uid")?;
        let variables = list(&json["templating"]["list"]).map(Variable::new).collect::<anyhow::Result<_>>()?;
        // A row that is folded holds its panels.
        let folded = list(&json["panels"]).flat_map(|panel| list(&panel["panels"]));
        let panels = list(&json["panels"]).chain(folded).filter(|panel| panel["type"] != "row");
        let panels = panels.map(|panel| Panel::new(&uid, panel)).collect::<anyhow::Result<_>>()?;
        Ok(Self { uid, variables, panels, json })
    }
}

/// A query as Grafana sends it: with these values of the board's variables, and with its own, whose windows are so short that a minute of
/// scraping fills them.
pub fn filled(query: &str, values: &BTreeMap<String, String>) -> String {
    let mut query = query.replace("$__rate_interval", "5m").replace("$__range", "5m");
    if let Some((before, rest)) = query.split_once("$__timeFilter(") {
        let (column, after) = rest.split_once(')').expect("a macro ends");
        query = format!("{before}{column} BETWEEN now() - interval '1 hour' AND now(){after}");
    }
    // The longest first: no name is taken for the beginning of another.
    let mut names: Vec<&String> = values.keys().collect();
    names.sort_by_key(|name| Reverse(name.len()));
    for name in names {
        query = query.replace(&format!("${{{name}:sqlstring}}"), &format!("'{}'", values[name].replace('\'', "''")));
        query = query.replace(&format!("${name}"), &values[name]);
    }
    query
}

impl Variable {
    fn new(json: &Value) -> anyhow::Result<Self> {
        let name = text(json, "name")?;
        let source = match json["type"].as_str() {
            Some("datasource") => Source::DataSource(text(json, "query")?),
            Some("textbox" | "custom") => Source::Fixed(text(&json["current"], "value")?),
            Some("query") if json["query"].is_string() => Source::Sql(text(json, "query")?),
            Some("query") => {
                let query = text(&json["query"], "query")?;
                let arguments = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
                let (selector, label) = arguments.and_then(|arguments| arguments.rsplit_once(", ")).context("no label_values")?;
                let all = json["allValue"].as_str().map(str::to_owned);
                Source::LabelValues { selector: selector.into(), label: label.into(), all }
            }
            other => anyhow::bail!("the variable {name} is of the kind {other:?}"),
        };
        Ok(Self { name, source })
    }
}

impl Panel {
    fn new(board: &str, json: &Value) -> anyhow::Result<Self> {
        let name = format!("{board}: {}", text(json, "title")?);
        let query = |target: &Value| target["expr"].as_str().or(target["rawSql"].as_str()).map(str::to_owned);
        let queries = list(&json["targets"]).map(|target| query(target).context(name.clone())).collect::<anyhow::Result<_>>()?;
        Ok(Self { name, queries, json: json.clone() })
    }
}

fn text(json: &Value, field: &str) -> anyhow::Result<String> {
    Ok(json[field].as_str().with_context(|| format!("no {field} in {json}"))?.to_owned())
}

fn list(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}
