//! Whose files and processes are these, and what may root do where a user can write?

mod ground;
mod groups;
mod hostile_store;
mod users_store;
