//! The command line of incumbent: everything happens in the library's `cli` module; this is the
//! only place that ends the process.

#[allow(clippy::disallowed_methods, reason = "the only exit")]
fn main() -> ! {
    std::process::exit(incumbent::cli::main(&std::env::args_os().collect::<Vec<_>>()))
}
