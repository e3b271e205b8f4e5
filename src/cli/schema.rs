//! JSON Schema files of every document that a verb prints: `docs/schema/`, made from the types.
//!
//! Built for tests only. A document that is a type of the library is described field by field, and
//! what is said of a field has to be the type of that field: another one does not compile. One that
//! a verb puts together is described by its names, by hand. Both are held against what every verb
//! really prints, where a field too many is an error as well (`tests/it/cli/schemas.rs`).
//!
//! There is a crate that derives such schemas. Half of our documents are written by hand, because
//! they say more than the fields of one type, and it would know nothing of those.

mod documents;
mod shape;
mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::documents::documents;
use crate::environment;

/// Set to `1`, it has the files written anew.
const UPDATE: &str = "INCUMBENT_UPDATE_GOLDEN";

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema")
}

/// The files that are kept, by their names.
fn kept() -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    for entry in std::fs::read_dir(place()).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "json") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            kept.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    kept
}

#[test]
fn every_schema_is_the_one_that_is_kept() {
    let (kept, made) = (kept(), documents());
    let made: BTreeMap<String, String> =
        made.iter().map(|it| (format!("{}.json", it.name), it.text())).collect();
    if environment::text(UPDATE).as_deref() == Some("1") {
        std::fs::create_dir_all(place()).unwrap();
        for name in kept.keys().filter(|name| !made.contains_key(*name)) {
            std::fs::remove_file(place().join(name)).unwrap();
        }
        for (name, text) in &made {
            std::fs::write(place().join(name), text).unwrap();
        }
        panic!("{} is renewed: look at the difference, and unset {UPDATE}", place().display());
    }
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&made), "set {UPDATE}=1 once to renew docs/schema");
    for (name, text) in &made {
        assert_eq!(kept[name], *text, "{name}: set {UPDATE}=1 once to renew docs/schema");
    }
}
