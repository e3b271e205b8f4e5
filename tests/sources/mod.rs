//! The sources of the library and the program, as the tests of the house read them: as texts.

#![allow(dead_code, reason = "not every test needs every part")]

use std::path::{Path, PathBuf};

/// A file below `src/`.
#[derive(Debug)]
pub struct Source {
    /// Below `src/`.
    pub path: String,
    pub text: String,
}

impl Source {
    /// Without its unit tests.
    pub fn code(&self) -> &str {
        &self.text[..self.text.find("\nmod tests {").unwrap_or(self.text.len())]
    }
}

pub fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect()
}

/// The directory that everything is in.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All of them, by their paths.
pub fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    files_below(&src, &mut files);
    files.sort();
    let read = |file: &PathBuf| Source {
        path: file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(),
        text: std::fs::read_to_string(file).unwrap(),
    };
    files.iter().map(read).collect()
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}
