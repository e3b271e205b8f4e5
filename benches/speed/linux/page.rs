//! `docs/benchmarks.md` and its pictures.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::Table;

/// A file beside the page.
#[derive(Clone)]
pub struct Picture {
    pub name: &'static str,
    pub svg: String,
}

/// What is between these lines of the page is written by this program.
const BEGIN: &str = "<!-- what follows is written by `cargo bench -- --write` -->\n";
const END: &str = "<!-- until here -->\n";

pub fn write(table: &Table, pictures: &[Picture]) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = docs.join("benchmarks.md");
    let text = std::fs::read_to_string(&page).expect("docs/benchmarks.md");
    let (head, rest) = text.split_once(BEGIN).expect("the line that begins the table");
    let (_, tail) = rest.split_once(END).expect("the line that ends the table");
    let shown: Vec<String> =
        pictures.iter().map(|picture| format!("\n![{0}]({0})\n", picture.name)).collect();
    let shown = shown.concat();
    let slower = match table.slower() {
        none if none.is_empty() => "Nothing.\n".to_owned(),
        some => some,
    };
    let body = format!(
        "\n{}\n\n{}\n{}\n## What is slower than another program\n\n{slower}{shown}\n",
        machine(),
        table.markdown(),
        table.summary()
    );
    std::fs::write(&page, format!("{head}{BEGIN}{body}{END}{tail}")).expect("the page");
    for picture in pictures {
        std::fs::write(docs.join(picture.name), &picture.svg).expect("a picture");
    }
    eprintln!("written: {} and {} pictures", page.display(), pictures.len());
}

/// Where and when it was measured.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_default()
    };
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let scratch: PathBuf = std::env::temp_dir();
    let filesystem = said("df", &["--output=fstype", scratch.to_str().unwrap_or("/tmp")]);
    let filesystem = filesystem.lines().last().unwrap_or("an unknown filesystem");
    format!(
        "`cargo bench`, incumbent {}, {}: {cores} x {}, Linux {}, stores on {filesystem}, \
         load before it {}. Times are medians; in brackets ours as a multiple of them.",
        env!("CARGO_PKG_VERSION"),
        said("date", &["-u", "+%F %H:%M UTC"]),
        cpu.map_or("unknown processor", |(_, name)| name),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split_whitespace().next().unwrap_or("unknown"),
    )
}
