//! What is another one each time: times, pids, generations, names of anchors.

/// A text in which a word stands for each of them.
pub fn masked(text: &str) -> String {
    // What begins so ends with a bracket, or with the line.
    const BRACKETS: [(&str, &str); 2] =
        [("(pid PID, uid UID, ", "BY WHOM"), ("pid PID (", "COMMAND")];
    // Words of others, which hang on what they met first: from where on, and up to where.
    const OTHERS: [(&str, &str); 5] = [
        (" is damaged: ***", ""),
        ("cannot ", ": Too many open files"),
        ("(it has ", " open, which"),
        (" free at DIR/store, ", " of 1000 inodes"),
        ("cannot see: other machines that use the same tokens", ""),
    ];
    // What starts a gateway is another one on another machine.
    let lines = text.lines().filter(|line| !line.starts_with("  supervisor "));
    let lines = lines.map(|line| {
        let mut line = with_words(line);
        for (begin, mask) in BRACKETS {
            line = without_brackets(&line, begin, mask);
        }
        for (begin, end) in OTHERS {
            line = without(&line, begin, end);
        }
        without_lengths(&line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Without what stands between `begin` and `end`, where both are there; no `end` is that of the
/// line.
fn without(line: &str, begin: &str, end: &str) -> String {
    let Some((before, after)) = line.split_once(begin) else { return line.to_owned() };
    match (end, after.split_once(end)) {
        ("", _) => format!("{before}{begin} ..."),
        (_, Some((_, after))) => format!("{before}{begin}...{end}{after}"),
        (_, None) => line.to_owned(),
    }
}

/// Words, one by one: `pid 12`, `kill -CONT 12`, `uid 0`, a time, a generation, an anchor.
fn with_words(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:._+".contains(c);
    let mut masked = String::new();
    // The words before, without what stands between them.
    let mut before: Vec<&str> = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let end = after.find(is_part).unwrap_or(after.len());
        let (between, next) = after.split_at(end);
        let bare = word.trim_end_matches([':', '.']);
        masked += &mask(bare, &before).unwrap_or_else(|| bare.to_owned());
        masked += &word[bare.len()..];
        masked += between;
        before.push(word);
        rest = next;
    }
    masked
}

fn mask(word: &str, before: &[&str]) -> Option<String> {
    let last = before.last().copied().unwrap_or_default();
    let last_but_one = before.len().checked_sub(2).map_or("", |at| before[at]);
    let is_number = !word.is_empty() && word.bytes().all(|it| it.is_ascii_digit());
    let is_kill = last == "kill" || last_but_one == "kill" && last.starts_with('-');
    let is_pid = last.ends_with("pid") || last == "-t";
    let masked = if is_number && (is_pid || is_kill) {
        "PID"
    } else if is_number && last == "uid" {
        "UID"
    } else if is_number && word.len() >= 13 {
        "N"
    } else if (last_but_one, last) == ("is", "under") {
        "SUPERVISOR"
    } else if word.ends_with('Z') && word.contains('T') && word.starts_with("20") {
        "TIME"
    } else if word.matches('-').count() == 2
        && word.rsplit_once('.').is_some_and(|(_, end)| end == "lock")
    {
        "ANCHOR.lock"
    } else {
        return None;
    };
    Some(masked.to_owned())
}

/// The command line of a process, say, which hangs on who runs the test: `pid PID (COMMAND)`.
fn without_brackets(line: &str, begin: &str, mask: &str) -> String {
    let Some((before, after)) = line.split_once(begin) else { return line.to_owned() };
    let mut depth = 1;
    let end = after.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    let rest = end.map_or("", |at| &after[at..]);
    format!("{before}{begin}{mask}{}", without_brackets(rest, begin, mask))
}

/// `3 s ago`, `for 3 s`, `since 12 ms ago`: how long it took.
fn without_lengths(line: &str) -> String {
    const UNITS: [&str; 5] = ["ms", "s", "min", "h", "days"];
    let mut words: Vec<&str> = line.split(' ').collect();
    for at in 1..words.len() {
        let bare = |word: &str| word.trim_matches(|c| "(),;:".contains(c)).to_owned();
        let is_length =
            bare(words[at - 1]).parse::<f64>().is_ok() && UNITS.contains(&bare(words[at]).as_str());
        let is_ago = words.get(at + 1).is_some_and(|word| word.starts_with("ago"));
        let is_for = at >= 2 && ["for", "since", "than"].contains(&words[at - 2]);
        if is_length && is_ago {
            (words[at - 1], words[at]) = ("N", "units");
        } else if is_length && is_for {
            words[at - 1] = "N";
        }
    }
    words.join(" ")
}

#[test]
fn what_changes_is_masked_and_the_rest_stays() {
    for (text, expected) in [
        (
            "is held by pid 12 (a (b) c) since 2026-11-30T14:24:21.763Z, which",
            "is held by pid PID (COMMAND) since TIME, which",
        ),
        ("try `kill -CONT 12`, `kill 12`", "try `kill -CONT PID`, `kill PID`"),
        ("uid 0 ended it, exit code 127", "uid UID ended it, exit code 127"),
        ("held for 12 s, until 3 min ago", "held for N s, until N units ago"),
        ("fence 1796048661763781, 64 characters, 250 ms", "fence N, 64 characters, 250 ms"),
        ("(x (pid 1, uid 0, from pid 2: a (b))) at", "(x (pid PID, uid UID, BY WHOM)) at"),
        ("the anchor ab12-77-9f.lock is", "the anchor ANCHOR.lock is"),
        ("`incumbent release --pid 77`", "`incumbent release --pid PID`"),
    ] {
        assert_eq!(masked(text), expected);
    }
}
