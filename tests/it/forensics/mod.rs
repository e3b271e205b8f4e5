//! Who stops a gateway, how did it look then, and will its service manager give it the time it
//! needs?

mod diagnose;
mod snapshot;
mod systemd;
