/// Looks at a URL that may hold a password before a parser does whose errors may repeat it, or who takes a piece of a password for the server's
/// name. The words say what is wrong and repeat nothing.
pub fn check_url(url: &str, schemes: &[&str]) -> Result<(), &'static str> {
    let Some((scheme, rest)) = url.split_once("://") else { return Err("it has no scheme and ://") };
    if !schemes.contains(&scheme) {
        return Err("it has another scheme");
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if rest[end..].contains('@') {
        return Err(
            "it has an @ behind the server's name; in a user's name or a password, / is %2F, ? is %3F, # is %23 and @ is %40",
        );
    }
    Ok(())
}

/// Whether a URL names a user, whose password may stand beside the name: for URLs that are shown.
pub fn names_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_url_of_which_a_piece_of_the_password_could_be_shown() {
        for url in ["postgres://u:p@db/x", "postgres://u:p%2F%40@db:5432/x?sslmode=disable", "postgres://db"] {
            assert_eq!(check_url(url, &["postgres"]), Ok(()), "{url}");
        }
        for url in [
            "postgres:u:hunter2@db/x",
            "u:hunter2@db/x",
            "mysql://u:hunter2@db/x",
            "postgres://u:12/hunter2@db/x",
            "postgres://u:12?hunter2@db/x",
            "postgres://u:12#hunter2@db/x",
        ] {
            let reason = check_url(url, &["postgres"]).expect_err(url);
            assert!(!reason.contains("hunter"), "{reason}");
        }
    }

    #[test]
    fn sees_a_user_in_a_url() {
        assert!(names_user("https://u:p@store/x") && names_user("https://u@store"));
        assert!(!names_user("https://store:9000/a@b") && !names_user("store"));
    }
}
