//! Planted faults: each is planted in one place, and a test is named that finds it.
//!
//! `tests/planted.txt` is the table. Here it is only compared with the sources. `.ci/planted`
//! builds with the feature `planted-faults` and runs each of those tests with its fault.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sources;

use sources::{root, sources};

const TABLE: &str = "tests/planted.txt";
const LIST: &str = "src/environment/fault.rs";

/// With fewer the table would be a sample.
const FAULTS_MIN: usize = 25;

/// One line of the table.
#[derive(Debug)]
struct Row {
    fault: String,
    /// The target of cargo that the test is in.
    target: String,
    test: String,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn table() -> Vec<Row> {
    let table = read(TABLE);
    let row = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Ok([fault, target, test]) = <[String; 3]>::try_from(words) else {
            panic!("{TABLE}: not a fault, a target and a test: {line:?}");
        };
        Row { fault, target, test }
    };
    table.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

/// The variants of `Fault`, in their order.
fn faults() -> Vec<String> {
    let text = read(LIST);
    let list = text.split("\nfaults! {\n").nth(1).unwrap().split("\n}\n").next().unwrap();
    let names = list.lines().map(str::trim).filter(|line| !line.starts_with("///"));
    names.map(|name| name.strip_suffix(',').unwrap().to_owned()).collect()
}

/// The faults that a text plants.
fn planted_in(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("planted(Fault::").skip(1);
    after.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap())
}

/// The files that a test of this name may be in.
fn places(target: &str, test: &str) -> Vec<String> {
    let module = test.rsplit_once("::").map_or("", |it| it.0);
    let path = module.replace("::", "/");
    match target {
        "lib" => {
            let of_tests = path.strip_suffix("/tests").unwrap_or(&path);
            vec![
                format!("src/{path}.rs"),
                format!("src/{of_tests}.rs"),
                format!("src/{of_tests}/mod.rs"),
            ]
        }
        "it" => vec![format!("tests/it/{path}.rs"), format!("tests/it/{path}/mod.rs")],
        target => vec![format!("tests/{target}.rs")],
    }
}

/// Whether `text` has a test of this name.
fn has_test(text: &str, name: &str) -> bool {
    let definition = format!("fn {name}() {{");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| *line == definition) else { return false };
    let mut attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    attributes.any(|line| *line == "#[test]")
}

#[test]
fn each_fault_is_planted_once() {
    let faults = faults();
    assert!(faults.len() >= FAULTS_MIN, "{} faults, {FAULTS_MIN} are the least", faults.len());
    let sources = sources();
    let planted: Vec<&str> = sources.iter().flat_map(|it| planted_in(&it.text)).collect();
    let mut wrong = Vec::new();
    for fault in &faults {
        let times = planted.iter().filter(|it| *it == fault).count();
        if times != 1 {
            wrong.push(format!("{fault} is planted {times} times: plant it at one line"));
        }
    }
    for other in planted.iter().filter(|it| !faults.iter().any(|fault| fault == *it)) {
        wrong.push(format!("{other} is not in {LIST}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_fault_has_a_line_of_the_table() {
    let named: Vec<String> = table().into_iter().map(|row| row.fault).collect();
    assert_eq!(named, faults(), "{TABLE} has one line for each fault, in the order of {LIST}");
}

#[test]
fn the_tests_of_the_table_exist() {
    let mut wrong = Vec::new();
    for Row { fault, target, test } in table() {
        let name = test.rsplit("::").next().unwrap();
        let places = places(&target, &test);
        let texts = places.iter().filter_map(|it| std::fs::read_to_string(root().join(it)).ok());
        let mut texts = texts.peekable();
        if texts.peek().is_none() {
            wrong.push(format!("{fault}: there is none of {places:?}"));
        } else if !texts.any(|text| has_test(&text, name)) {
            wrong.push(format!("{fault}: there is no test {name} in {places:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The tests themselves.
#[test]
fn what_is_missing_is_found() {
    let text = "#[test]\n#[allow(unused)]\nfn one() {\n}\nfn two() {\n}\n";
    assert!(has_test(text, "one"));
    assert!(!has_test(text, "two"), "no test");
    assert!(!has_test(text, "on"));
    let text = "if planted(Fault::One) || !planted(Fault::Two) {";
    assert_eq!(planted_in(text).collect::<Vec<_>>(), ["One", "Two"]);
    assert!(places("lib", "a::b::tests::c").contains(&"src/a/b.rs".to_owned()));
}
