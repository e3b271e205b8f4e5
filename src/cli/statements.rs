//! Cuts SQL into its statements, as it is pasted or kept in a file. SQLite itself reads one after
//! the other as well, but it would compile what follows before anybody has asked about it.

/// The statements of `sql`, each with the comments before it and without its semicolon. What is
/// nothing but comments is none.
pub(super) fn statements(sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut at, mut says_something) = (0, 0, false);
    while let Some(first) = sql[at..].chars().next() {
        let rest = &sql[at..];
        if let Some(length) = comment(rest) {
            at += length;
        } else if first == ';' {
            if says_something {
                found.push(sql[start..at].trim());
            }
            at += 1;
            (start, says_something) = (at, false);
        } else {
            says_something |= !first.is_whitespace();
            at += quoted(rest).unwrap_or(first.len_utf8());
        }
    }
    if says_something {
        found.push(sql[start..].trim());
    }
    found
}

/// The length of the comment that `text` begins with. One that is not closed is all of it.
fn comment(text: &str) -> Option<usize> {
    let end = match text.get(..2)? {
        "--" => text.find('\n').map(|at| at + 1),
        "/*" => text[2..].find("*/").map(|at| at + 4),
        _ => return None,
    };
    Some(end.unwrap_or(text.len()))
}

/// The length of the text or the name in quotes that `text` begins with. Of one with doubled quotes
/// in it the next part is as good as another one.
fn quoted(text: &str) -> Option<usize> {
    let close = match text.chars().next()? {
        '[' => ']',
        quote @ ('\'' | '"' | '`') => quote,
        _ => return None,
    };
    Some(text[1..].find(close).map_or(text.len(), |at| at + 2))
}

#[cfg(test)]
mod tests {
    use super::statements;

    #[test]
    fn a_semicolon_ends_a_statement_where_it_stands_alone() {
        for (sql, expected) in [
            ("SELECT 1", &["SELECT 1"][..]),
            ("SELECT 1;", &["SELECT 1"]),
            (" SELECT 1 ; ; SELECT 2 ", &["SELECT 1", "SELECT 2"]),
            ("SELECT ';' ; SELECT 2", &["SELECT ';'", "SELECT 2"]),
            (
                "SELECT 'it''s;' AS \"a;b\", [c;d], `e;`",
                &["SELECT 'it''s;' AS \"a;b\", [c;d], `e;`"],
            ),
            (
                "-- who; when?\nSELECT 1;\n-- and\nSELECT 2; -- done;",
                &["-- who; when?\nSELECT 1", "-- and\nSELECT 2"],
            ),
            ("/* a; b */ SELECT 1 /* c; */", &["/* a; b */ SELECT 1 /* c; */"]),
            ("SELECT 1 - -1, 4 / 2", &["SELECT 1 - -1, 4 / 2"]),
            ("SELECT '\u{e4};\u{4e2d}'; SELECT '", &["SELECT '\u{e4};\u{4e2d}'", "SELECT '"]),
            ("SELECT 1 /* not closed; ", &["SELECT 1 /* not closed;"]),
            ("\u{e4}", &["\u{e4}"]),
            ("-- nothing", &[]),
            (" ; /**/ ", &[]),
            ("", &[]),
        ] {
            assert_eq!(statements(sql), expected, "{sql:?}");
        }
    }
}
