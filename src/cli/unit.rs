//! `unit`: what a supervisor reads of a gateway.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::json;

use crate::cli::args;
use crate::cli::args::values::StartType;
use crate::cli::args::{Cli, Global};
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::exit::Supervisor;
use crate::unit::{Unit, UnitFile};
use crate::{Error, Kind, Office, ProfileName, Result, environment, sys};

pub(super) fn unit(global: &Global, arguments: &args::Unit) -> Outcome {
    check_run_options(&arguments.run_option)?;
    let office = global.office()?;
    let (command, warning) = command(arguments);
    let name = arguments.name.clone().unwrap_or_else(|| name_of(&office));
    let mut unit = Unit::new(arguments.supervisor, name, command)
        .program(program(arguments)?)
        .options(options(global, arguments.supervisor, &office)?)
        .run_options(&arguments.run_option)
        .stop_budget(arguments.stop_budget);
    if arguments.start_type == StartType::Notify {
        unit = unit.says_ready();
    }
    for address in &arguments.listen {
        unit = unit.socket(address);
    }
    let files = unit.files()?;
    let shown = match &arguments.file {
        Some(name) => vec![named(&files, name)?],
        None => files.iter().collect(),
    };
    let document = json!({
        "supervisor": arguments.supervisor,
        "files": shown,
        "warning": warning,
    });
    let complaint = warning.map(|warning| {
        Complaint::new(warning).advising("name the program by its path, where the unit is used")
    });
    Ok(Answer::data(exit::OK, text(&shown)).or_document(document).complaining(complaint))
}

/// They are refused now, and not at the first start.
fn check_run_options(options: &[OsString]) -> Result<()> {
    // What the unit says by itself, it may not say twice.
    let before = ["incumbent", "run", "--supervisor", "none", "--stop-budget", "90s"];
    let before = before.into_iter().chain(["--respect-desired"]).map(OsString::from);
    let words = before.chain(options.iter().cloned()).chain(["--", "true"].map(OsString::from));
    let Err(error) = Cli::try_parse_from(words) else { return Ok(()) };
    let text = error.render().to_string();
    let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    Err(Error::invalid(format!("`run` does not accept this --run-option: {why}"))
        .with_hint("see `incumbent run --help`; each word needs a --run-option of its own"))
}

fn name_of(office: &Office) -> String {
    let Office { profile, kind } = office;
    if *kind == Kind::default() {
        format!("incumbent-{profile}")
    } else {
        format!("incumbent-{profile}-{kind}")
    }
}

fn program(arguments: &args::Unit) -> Result<PathBuf> {
    match &arguments.program {
        Some(program) => Ok(program.clone()),
        None if arguments.supervisor == Supervisor::Docker => Ok(PathBuf::from("incumbent")),
        None => std::env::current_exe().map_err(|error| {
            Error::internal(format!("cannot tell where this program is: {error}"))
                .with_hint("name it with `--program PATH`")
        }),
    }
}

/// As it can be started from anywhere, because a supervisor has another directory and another path;
/// and what is to be said of that. What is in an image is not to be seen from here.
fn command(arguments: &args::Unit) -> (Vec<OsString>, Option<String>) {
    let mut command = arguments.command.clone();
    let program = command.first_mut().filter(|_| arguments.supervisor != Supervisor::Docker);
    let Some(program) = program else { return (command, None) };
    let path = Path::new(&*program);
    let found = if path.components().count() > 1 {
        std::path::absolute(path).ok()
    } else {
        on_path(program)
    };
    if let Some(found) = found {
        *program = found.into();
    }
    let path = Path::new(&*program);
    let warning = (!path.is_file()).then(|| format!("there is no program {} now", path.display()));
    (command, warning)
}

fn on_path(program: &OsStr) -> Option<PathBuf> {
    let path = environment::value("PATH")?;
    let mut places = std::env::split_paths(&path).map(|place| place.join(program));
    let found = places.find(|path| path.is_file())?;
    std::path::absolute(found).ok()
}

/// The global options that the unit has to say, because its environment is another one.
fn options(global: &Global, supervisor: Supervisor, office: &Office) -> Result<Vec<OsString>> {
    let (store, home) = match supervisor {
        // Places in a container are what was typed.
        Supervisor::Docker => (global.db.clone(), global.home.clone()),
        _ => (store(global)?, home(global)?),
    };
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: OsString| words.extend([OsString::from(option), value]);
    if let Some(store) = store {
        add("--db", store.into());
    }
    if office.profile != ProfileName::default() {
        add("--profile", office.profile.as_str().into());
    }
    if office.kind != Kind::default() {
        add("--kind", office.kind.as_str().into());
    }
    if let Some(home) = home {
        add("--home", home.into());
    }
    for kind in &global.allow_filesystem {
        add("--allow-filesystem", kind.into());
    }
    Ok(words)
}

/// `None` for the one that the user's other programs find by themselves.
fn store(global: &Global) -> Result<Option<PathBuf>> {
    let (state_directory, _) = sys::STATE_DIRECTORY;
    let is_elsewhere = global.db.is_some()
        || environment::value(environment::DB).is_some()
        || environment::absolute_path(state_directory).is_some();
    is_elsewhere.then(|| global.options().resolved_path()).transpose()
}

fn home(global: &Global) -> Result<Option<PathBuf>> {
    let absolute = |home: PathBuf| {
        std::path::absolute(&home).map_err(|error| {
            Error::invalid(format!("cannot tell where {} is: {error}", home.display()))
        })
    };
    global.home().map(absolute).transpose()
}

fn named<'a>(files: &'a [UnitFile], name: &str) -> Result<&'a UnitFile> {
    let is_it = |file: &&UnitFile| file.name == name || in_directory(file) == name;
    files.iter().find(is_it).ok_or_else(|| {
        let names: Vec<&str> = files.iter().map(in_directory).collect();
        Error::invalid(format!("there is no file {name:?} in this unit"))
            .with_hint(format!("one of {}", names.join(", ")))
    })
}

/// Its name without the directory.
fn in_directory(file: &UnitFile) -> &str {
    file.name.rsplit('/').next().unwrap_or_default()
}

/// One file as it is; several with a line before each.
fn text(files: &[&UnitFile]) -> Vec<u8> {
    if let [file] = files {
        return file.contents.clone();
    }
    let mut text = Vec::new();
    for file in files {
        let (name, alone) = (&file.name, in_directory(file));
        let mode = file.mode;
        let line = format!("# ----- {name}, mode {mode:04o}: `--file {alone}` prints it -----\n");
        text.extend(line.into_bytes());
        text.extend(&file.contents);
        text.push(b'\n');
    }
    text
}
