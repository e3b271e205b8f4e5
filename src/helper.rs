//! What this program does when the library has started it as a helper process.
//!
//! [`keeper`](crate::keeper), [`run`](crate::run) and the
//! [`Diagnostic`](crate::forensics::Diagnostic) need processes of their own. Those execute a
//! program that begins with [`serve`]: the command line `incumbent` is one, and so is each gateway
//! that calls it. A binding for an interpreter names the interpreter, with the arguments that lead
//! to this call, by [`HelperProgram`].
//!
//! ```
//! let arguments: Vec<_> = std::env::args_os().collect();
//! if let Some(exit_code) = incumbent::helper::serve(&arguments) {
//!     std::process::exit(exit_code);
//! }
//! // From here on, helpers of this process are this very program.
//! assert!(incumbent::helper::HelperProgram::find().is_ok());
//! ```

use std::ffi::OsString;

use crate::forensics::diagnostic;
use crate::keeper::{life, words};
use crate::process::helper;
use crate::sys::{signals, supervise, witness};

pub use crate::process::helper::HelperProgram;

/// Does the work of a helper process, if this process was started as one, and returns what it
/// should exit with; `None` in every other process. `arguments` are those of the command line, the
/// program's name first.
///
/// Call it first thing in `main`, while there is one thread and nothing is open: a helper closes
/// what it has inherited.
#[must_use = "a helper process exits with this"]
pub fn serve(arguments: &[OsString]) -> Option<i32> {
    helper::serves();
    let verb = arguments.get(1)?.to_str()?;
    let work: fn(&[OsString]) -> i32 = match verb {
        supervise::TRAMPOLINE_VERB => supervise::trampoline,
        words::VERB => life::first,
        words::VERB_OF_SECOND => life::second,
        diagnostic::VERB => diagnostic::life,
        witness::VERB => witness::life,
        _ => return None,
    };
    signals::survive_file_size_limit();
    Some(work(&arguments[2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_known_by_its_verb() {
        let served = [
            supervise::TRAMPOLINE_VERB,
            words::VERB,
            words::VERB_OF_SECOND,
            diagnostic::VERB,
            witness::VERB,
        ];
        assert_eq!(served, helper::VERBS);
    }
}
