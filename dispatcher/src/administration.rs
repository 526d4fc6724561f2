//! `dispatcher project` and `dispatcher token`: who may use the API, told to Postgres itself.

use jiff::Timestamp;
use ledger::{Ledger, Project, ProjectChange, TokenStatus};
use request::{AllowList, Allowed};

use crate::{
    Exit,
    api::types::NewToken,
    cli::{PostgresArgs, ProjectArgs, ProjectCommand, TokenArgs, TokenCommand},
};

/// Makes, changes and lists projects.
pub async fn projects(args: ProjectArgs) -> anyhow::Result<Exit> {
    let ledger = connect(&args.postgres).await?;
    match args.command {
        ProjectCommand::Create { name, read, max_waiting_jobs } => {
            if !ledger.create_project(&name, &AllowList::new(read), max_waiting_jobs).await? {
                eprintln!("error: there is a project {name}; `dispatcher project change` changes it");
                return Ok(Exit::BadInput);
            }
            eprintln!("project {name} made; `dispatcher token create --project {name}` lets somebody in");
        }
        ProjectCommand::Change { name, read, max_waiting_jobs } => {
            let reads = (!read.is_empty()).then(|| AllowList::new(read));
            ledger.change_project(&name, &ProjectChange { reads, max_waiting_jobs }).await?;
            eprintln!("project {name} changed");
        }
        ProjectCommand::List => {
            let projects = ledger.projects().await?;
            let rows = projects.iter().map(|Project { name, reads, max_waiting_jobs, created_at }| {
                let reads: Vec<String> = reads.entries().iter().map(Allowed::to_string).collect();
                [name.clone(), reads.join(" "), max_waiting_jobs.to_string(), minutes(*created_at)]
            });
            print_table(["project", "reads", "max waiting jobs", "created"], &rows.collect::<Vec<_>>());
        }
    }
    Ok(Exit::Done)
}

/// Makes, revokes and lists tokens.
pub async fn tokens(args: TokenArgs) -> anyhow::Result<Exit> {
    let ledger = connect(&args.postgres).await?;
    match args.command {
        TokenCommand::Create { project, scope, name, days } => {
            let token = NewToken { name, scope, expires_in_days: days }.of(project);
            let (id, text) = ledger.create_token(&token).await?;
            println!("{text}");
            eprintln!("token {id} of the project {}; it is shown this once, keep it in a safe place", token.project);
        }
        TokenCommand::Revoke { id } => {
            if !ledger.revoke_token(None, id).await? {
                eprintln!("error: there is no token {id}; `dispatcher token list` lists what there is");
                return Ok(Exit::BadInput);
            }
            eprintln!("token {id} is refused from now on");
        }
        TokenCommand::List { project } => {
            let tokens = ledger.tokens(project.as_deref()).await?;
            let rows = tokens.iter().map(|token| {
                let TokenStatus { id, project, name, scope, created_at, last_used_at, .. } = token;
                let used = last_used_at.map_or_else(|| "never".into(), minutes);
                [id.to_string(), project.clone(), scope.label().into(), state(token), minutes(*created_at), used, name.clone()]
            });
            print_table(["token", "project", "scope", "state", "created", "last used", "name"], &rows.collect::<Vec<_>>());
        }
    }
    Ok(Exit::Done)
}

async fn connect(postgres: &PostgresArgs) -> anyhow::Result<Ledger> {
    let server = postgres.server()?;
    server.warn_of_plain();
    Ok(Ledger::connect_to(&server, 1).await?)
}

/// By this machine's clock; whether a token is refused is for the database's to say.
fn state(token: &TokenStatus) -> String {
    match (token.revoked_at, token.expires_at) {
        (Some(revoked_at), _) => format!("revoked {}", minutes(revoked_at)),
        (None, Some(expires_at)) if expires_at <= Timestamp::now() => format!("expired {}", minutes(expires_at)),
        (None, Some(expires_at)) => format!("until {}", minutes(expires_at)),
        (None, None) => "good".into(),
    }
}

fn minutes(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%MZ").to_string()
}

fn print_table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) {
    let rows: Vec<[&str; N]> = [heads].into_iter().chain(rows.iter().map(|row| row.each_ref().map(String::as_str))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
