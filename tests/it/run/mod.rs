//! Is `run` invisible between a supervisor and its command: signals, exit codes, environment,
//! terminal, the duties of PID 1? And what becomes of what the command leaves behind?

mod command;
mod exec;
mod family;
mod follow;
mod inherited;
mod inside;
mod library;
mod manager;
mod notify;
mod once;
mod options;
mod reaped;
mod signals;
mod supervisors;
mod terminals;
