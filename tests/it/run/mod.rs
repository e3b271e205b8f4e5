//! Is `run` invisible between a supervisor and its command: signals, exit codes, environment,
//! terminal, the duties of PID 1? And what becomes of what the command leaves behind?

mod command;
mod exec;
mod exec_signalled;
mod exec_traced;
mod extended;
mod family;
mod follow;
mod idle;
mod inherited;
mod inside;
mod library;
mod manager;
mod notify;
mod npm;
mod once;
mod options;
mod reaped;
mod requests;
mod shortage;
mod signals;
mod stderr;
mod supervisors;
mod terminals;
mod tmux;
mod unnoticed;
mod upgraded;
