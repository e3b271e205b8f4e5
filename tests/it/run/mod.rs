//! Is `run` invisible between a supervisor and its command: signals, exit codes, environment,
//! terminal, the duties of PID 1?

mod command;
mod inherited;
mod library;
mod manager;
mod notify;
mod once;
mod options;
mod reaped;
mod signals;
mod supervisors;
mod terminals;
