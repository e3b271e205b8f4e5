//! The office: at most one live instance of a kind per profile.

pub(crate) mod backoff;
pub(crate) mod claim;
pub(crate) mod evict;
pub(crate) mod handover;
pub(crate) mod options;
pub(crate) mod profile;
pub(crate) mod signal;
pub(crate) mod storm;
pub(crate) mod takeover;
pub(crate) mod tenure;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
