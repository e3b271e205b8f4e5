//! From the global options to a store, a profile and an office.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::cli::args::Global;
use crate::cli::{missing, output};
use crate::keeper::release::profile_left_behind;
use crate::{
    Error, Existing, Kind, Office, OpenOptions, Profile, ProfileName, Result, Store, environment,
    process, sys,
};

impl Global {
    pub(super) fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new().single_reader().tell(output::tell);
        if let Some(path) = &self.db {
            options = options.path(path);
        }
        for kind in &self.allow_filesystem {
            options = options.allow_filesystem(kind);
        }
        options
    }

    pub(super) fn profile_name(&self) -> Result<ProfileName> {
        if let Some(name) = &self.profile {
            return ProfileName::new(name);
        }
        match environment::text(environment::PROFILE) {
            Some(name) if !self.was_left_behind(&name) => ProfileName::new(name).map_err(|error| {
                let instead = "name another one";
                error.of_variable(environment::PROFILE, instead, Some("--profile NAME"))
            }),
            Some(_) | None => Ok(ProfileName::default()),
        }
    }

    /// Whether this profile is in our environment because a `run` has left it there that is over,
    /// and that we are not in. Only the store knows; inside of a `run` it is not asked.
    fn was_left_behind(&self, profile: &str) -> bool {
        static LEFT: OnceLock<Option<ProfileName>> = OnceLock::new();
        let left = LEFT.get_or_init(|| {
            let is_run = |pid| sys::program_name(pid).as_deref() == Some("incumbent");
            if environment::value(environment::INSTANCE).is_none() || sys::is_below(is_run) {
                return None;
            }
            profile_left_behind(&self.existing().ok()??)
        });
        left.as_ref().is_some_and(|left| left.as_str() == profile)
    }

    pub(super) fn kind(&self) -> Result<Kind> {
        self.kind.as_deref().map_or_else(|| Ok(Kind::default()), Kind::new)
    }

    /// The office these arguments name.
    pub(super) fn office(&self) -> Result<Office> {
        Ok(Office { profile: self.profile_name()?, kind: self.kind()? })
    }

    /// The home that the arguments or the environment name.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.home.clone().or_else(|| environment::value(environment::HOME).map(Into::into))
    }

    /// Says what is wrong with the names in the arguments before a store is made for them.
    /// The home is returned as it is.
    pub(super) fn check(&self) -> Result<Option<PathBuf>> {
        self.office()?;
        let home =
            self.home().map(|home| Profile::real_home(&home).map_err(|error| self.of_home(error)));
        home.transpose()
    }

    /// Where the home comes from, in an error about it.
    fn of_home(&self, error: Error) -> Error {
        if self.home.is_some() {
            return error;
        }
        error.of_variable(environment::HOME, "name another one", Some("--home DIR"))
    }

    /// The profile in `store`, with the home that the arguments or the environment name.
    pub(super) fn profile(&self, store: &Store) -> Result<Profile> {
        let profile = store.profile(self.profile_name()?.as_str())?;
        match self.home() {
            Some(home) => profile.with_home(&home).map_err(|error| self.of_home(error)),
            None => Ok(profile),
        }
    }

    /// The store, for asking. A question never looks at the home: whose record it reads is said by
    /// its arguments alone.
    pub(super) fn existing(&self) -> Result<Option<Store>> {
        self.options().open_existing()
    }

    /// The same for a verb that gives one answer and ends: what a question has open is left to the
    /// end of the process, which is quicker.
    pub(super) fn existing_for_one_answer(&self) -> Result<Option<Store>> {
        let store = self.existing()?;
        std::mem::forget(store.clone());
        Ok(store)
    }

    /// As [`Self::existing_for_one_answer`], with what is known where there is no store.
    pub(super) fn find_for_one_answer(&self) -> Result<Existing> {
        let found = self.options().find()?;
        if let Existing::Store(store) = &found {
            std::mem::forget(store.clone());
        }
        Ok(found)
    }
}

/// Names this invocation in the history: who did it, and who had it done.
pub(crate) fn by_us(verb: &str) -> String {
    let who = process::invoked_by().map_or_else(String::new, |who| format!(", {who}"));
    named(verb, &who)
}

/// The same without who had it done: for what is said again and again.
pub(crate) fn by_this_process(verb: &str) -> String {
    named(verb, "")
}

fn named(verb: &str, who: &str) -> String {
    let uid = sys::effective_uid().map_or_else(String::new, |uid| format!(", uid {uid}"));
    format!("incumbent {verb} (pid {}{uid}{who})", std::process::id())
}

/// Asked of a store that is not there.
pub(super) fn no_store(global: &Global) -> Result<Error> {
    let options = global.options();
    let path = options.resolved_path()?;
    let text = missing::text(global, &path);
    // `of_path` says that one itself.
    let text = text.strip_suffix(missing::FROM_VARIABLE).unwrap_or(&text);
    let error = Error::invalid(text).at(path).with_hint(missing::hint(global));
    Ok(options.of_path(error))
}
