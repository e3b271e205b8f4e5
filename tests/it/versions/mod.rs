//! Stores and programs of other versions: what works beside what, and what says why not?

mod future;
mod old_binary;
mod schemas;
