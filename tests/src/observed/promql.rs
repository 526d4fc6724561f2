/// What is followed by a list of labels.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const WORDS: [&str; 6] = ["and", "or", "unless", "offset", "bool", "atan2"];

/// The series that an expression reads: each metric's name with its matchers, without ranges and offsets. The expression is one that
/// Prometheus takes; whether it does is for Prometheus to say.
pub fn selectors(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric() || c == '_' || c == '"' || c == '[') {
        rest = &rest[start..];
        if let Some(open) = ["\"", "["].into_iter().find(|open| rest.starts_with(open)) {
            let end = rest[1..].find(if open == "[" { ']' } else { '"' }).map_or(rest.len(), |end| end + 2);
            rest = &rest[end..];
            continue;
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:.".contains(c))).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        let next = rest.trim_start();
        if word.starts_with(|c: char| c.is_ascii_digit()) || WORDS.contains(&word) {
            continue;
        }
        if next.starts_with('(') {
            if GROUPINGS.contains(&word) {
                rest = next.split_once(')').map_or("", |(_, rest)| rest);
            }
        } else if GROUPINGS.contains(&word) || next.starts_with("by") || next.starts_with("without") {
            // "sum by (...) (...)": neither is a metric.
        } else if let Some(matchers) = next.strip_prefix('{') {
            let end = end_of_matchers(matchers);
            found.push(format!("{word}{{{}", &matchers[..end]));
            rest = &matchers[end..];
        } else {
            found.push(word.to_owned());
        }
    }
    found
}

/// Behind the closing bracket; values may hold brackets too.
fn end_of_matchers(text: &str) -> usize {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '}' if !quoted => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::selectors;

    #[test]
    fn every_metric_is_found_with_its_matchers_and_nothing_else_is() {
        let expression = r#"
            histogram_quantile(0.5, sum by (le, stage) (rate(a_bucket{pool="}",x=~"b|c"}[5m] offset 1d))) > bool 1e3
            and on (pool) max without (instance) (level:b:sum) unless on (pool) sum(avg_over_time((c_total{})[30m:1m])) / scalar(d) * 2.50"#;
        assert_eq!(selectors(expression), [r#"a_bucket{pool="}",x=~"b|c"}"#, "level:b:sum", "c_total{}", "d"]);
    }
}
