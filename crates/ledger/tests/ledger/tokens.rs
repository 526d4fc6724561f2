//! Who is let in.

use std::time::Duration;

use ledger::{Ledger, LedgerError, NewToken, Scope};
use request::{AllowList, Allowed};

use crate::fixture::Fixture;

fn token(project: &str, scope: Scope, lifetime: Option<Duration>) -> NewToken {
    NewToken { project: project.into(), name: "the reading room's".into(), scope, lifetime }
}

async fn scope(ledger: &Ledger, text: &str) -> Option<Scope> {
    ledger.authenticate(text).await.unwrap().map(|caller| caller.scope)
}

#[tokio::test]
async fn a_token_is_good_until_it_is_revoked_and_is_kept_nowhere() {
    let fixture = Fixture::start().await;
    let ledger = &fixture.ledger;
    let reads = AllowList::new(vec!["s3://scans/a".parse::<Allowed>().unwrap()]);
    ledger.create_project("one", &reads, 5).await.unwrap();
    let (id, text) = ledger.create_token(&token("one", Scope::Submit, None)).await.unwrap();
    let (_, other) = ledger.create_token(&token("one", Scope::Read, None)).await.unwrap();
    assert_ne!(text, other);
    assert!(text.starts_with("dotmask_") && text.len() == 8 + 64, "{text}");

    let caller = ledger.authenticate(&text).await.unwrap().expect("let in");
    assert_eq!((caller.project.as_str(), caller.scope, caller.token), ("one", Scope::Submit, Some(id)));
    assert_eq!(caller.reads, reads);
    for wrong in ["", "dotmask_", &text[..text.len() - 1], &text.to_uppercase(), &format!("{text} "), &id.to_string()] {
        assert_eq!(scope(ledger, wrong).await, None, "{wrong:?}");
    }

    let listed = ledger.tokens(Some("one")).await.unwrap();
    let used = listed.iter().find(|listed| listed.id == id).expect("listed");
    assert!(used.last_used_at.is_some() && used.revoked_at.is_none() && used.expires_at.is_none(), "{used:?}");
    let rows: String =
        sqlx::query_scalar("SELECT string_agg(tokens::text, '; ') FROM tokens").fetch_one(&fixture.sql).await.unwrap();
    assert!(rows.contains("the reading room's") && rows.contains("\\x"), "{rows}");
    assert!(!rows.contains(&text[8..]), "the token is in the database");

    assert!(!ledger.revoke_token(Some("default"), id).await.unwrap(), "it is another project's");
    assert_eq!(scope(ledger, &text).await, Some(Scope::Submit));
    assert!(ledger.revoke_token(Some("one"), id).await.unwrap());
    assert!(ledger.revoke_token(None, id).await.unwrap(), "may be said again");
    assert_eq!(scope(ledger, &text).await, None);
    assert_eq!(scope(ledger, &other).await, Some(Scope::Read), "the others are as they were");
}

#[tokio::test]
async fn a_token_whose_time_is_over_is_refused() {
    let fixture = Fixture::start().await;
    let (_, text) = fixture.ledger.create_token(&token("default", Scope::Admin, Some(Duration::from_hours(1)))).await.unwrap();
    assert_eq!(scope(&fixture.ledger, &text).await, Some(Scope::Admin));
    fixture.execute("UPDATE tokens SET expires_at = expires_at - interval '1 hour'").await;
    assert_eq!(scope(&fixture.ledger, &text).await, None);
}

#[tokio::test]
async fn a_token_belongs_to_a_project_that_is_there() {
    let fixture = Fixture::start().await;
    let error = fixture.ledger.create_token(&token("nobody", Scope::Read, None)).await.expect_err("no such project");
    assert!(matches!(error, LedgerError::UnknownProject { .. }), "{error}");
}
