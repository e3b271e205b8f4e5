//! The command line: exit codes, help, words, and data that somebody else wrote.

mod conditions;
mod deadlines;
mod printed;
mod sql;
mod terminal;
mod usage;
