//! The directory of an older program that an office stands for.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

use crate::process::older::PID_FILE;
use crate::records::profiles;
use crate::store::Tx;
use crate::sys::Shortage;
use crate::{Error, ErrorKind, Kind, Office, Result, sys};

/// The directory of an older program, as it may stand for an office of `kind`.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for what is no directory, and for a kind that no older
/// gateway is of; [`Permission`](ErrorKind::Permission) for another user's directory.
pub(crate) fn home(directory: &Path, kind: &Kind) -> Result<PathBuf> {
    check_kind(kind)?;
    let home = std::fs::canonicalize(directory).map_err(|error| {
        if Shortage::of(&error).is_some() || error.kind() == Io::PermissionDenied {
            return Error::io("look at", directory, error);
        }
        Error::invalid(format!("cannot use the directory {}: {error}", directory.display()))
            .at(directory)
            .with_hint(format!("name the directory that has the {PID_FILE}"))
    })?;
    let facts = std::fs::metadata(&home).map_err(|error| Error::io("look at", &home, error))?;
    if !facts.is_dir() {
        return Err(Error::invalid(format!("{} is not a directory", home.display()))
            .at(&home)
            .with_hint(format!("name the directory that has the {PID_FILE}")));
    }
    let owner = sys::file_facts(&home).map_err(|error| Error::io("look at", &home, error))?.owner;
    let us = sys::effective_uid();
    // Root acts for whoever owns it.
    if us != Some(0) && owner.is_some_and(|owner| owner != 0 && Some(owner) != us) {
        return Err(Error::new(
            ErrorKind::Permission,
            format!("{} belongs to another user", home.display()),
        )
        .at(&home)
        .with_hint("ask as that user, or as root"));
    }
    Ok(home)
}

/// An older program is a gateway.
pub(crate) fn check_kind(kind: &Kind) -> Result<()> {
    if *kind == Kind::default() {
        return Ok(());
    }
    Err(Error::invalid(format!("an older program is always a gateway, never a {kind}"))
        .with_hints("leave out `ClaimOptions::kind`", "leave out `--kind`"))
}

/// The directory whose lock a claim of `office` has to look at: what the claim names, which the
/// profile must not have another one beside, or what the profile has.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) when the profile stands for another directory that
/// exists.
pub(crate) fn home_of_claim(
    tx: &Tx<'_>,
    office: &Office,
    named: Option<&Path>,
) -> Result<Option<PathBuf>> {
    if office.kind != Kind::default() {
        return Ok(None);
    }
    let bound = profiles::legacy_home(tx, &office.profile)?;
    match (named, bound) {
        (Some(named), Some(bound)) if named != bound && bound.try_exists().unwrap_or(true) => {
            Err(Error::invalid(format!(
                "profile {} stands for the older gateway of {}, not of {}",
                office.profile,
                bound.display(),
                named.display()
            ))
            .at(named)
            .with_flag_hint(
                "use another profile for this directory",
                "--profile NAME",
                "",
            ))
        }
        (Some(named), _) => Ok(Some(named.to_owned())),
        (None, bound) => Ok(bound),
    }
}
