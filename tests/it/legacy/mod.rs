//! Beside an older gateway program: whose is its lock, and what do its files say?

mod beside;
mod export;
mod files;
mod gateways;
mod import;
mod library;
mod lock;
mod mirror;
