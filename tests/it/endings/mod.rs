//! How did every incarnation end? `history`, `status` and the events tell it by the way it really
//! came about; the next one that writes settles it, and whoever only asked before was told the same.

mod backoff;
mod cgroup;
mod damage;
mod ends;
mod gateway;
mod last_words;
mod memory;
mod panics;
mod reading;
mod stories;
mod storms;
mod survived;
mod told;

/// And the boot clock stood higher then: a boot id alone is doubt.
const OTHER_BOOT: &str = "UPDATE instances SET boot_id = '11111111-2222-3333-4444-555555555555',
    written_boot_clock_ms = 9000000000000";

/// We, as the sender of a signal.
fn us() -> String {
    format!("pid {} (", std::process::id())
}

/// `text` without who found it, and without how long anything took.
fn story_without_times(text: &str) -> String {
    let is_kept =
        |part: &&str| !part.starts_with("found ") && *part != "the next claim will record it";
    let text = text.split("; ").filter(is_kept).collect::<Vec<_>>().join("; ");
    let words: Vec<&str> = text.split(' ').collect();
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    let is_unit =
        |word: &str| matches!(word.trim_end_matches([';', ',']), "ms" | "s" | "min" | "h" | "days");
    let mut kept = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if is_number(word) && words.get(index + 1).is_some_and(|unit| is_unit(unit)) {
            kept.push("N");
        } else if index > 0 && is_number(words[index - 1]) && is_unit(word) {
            kept.push("units");
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}
