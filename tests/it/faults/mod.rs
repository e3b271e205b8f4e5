//! What if the system refuses: a call, a file's growth, a task, a descriptor, room on the disk?

mod calls;
mod full_disk;
mod limits;
