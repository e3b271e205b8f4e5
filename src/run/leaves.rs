//! Which processes the command of a run may leave behind.

use std::path::Path;

use crate::sys;

/// Whom the command of a run may leave behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves {
    /// Everybody.
    pub(super) all: bool,
    programs: Vec<String>,
}

impl Leaves {
    /// Whether anybody may be.
    pub(super) fn is_any(&self) -> bool {
        self.all || !self.programs.is_empty()
    }

    /// Also those that run this program.
    pub(super) fn and(&mut self, program: String) {
        self.programs.push(program);
    }

    /// Whether a process runs one of these programs, or an interpreter does with its file.
    pub(super) fn names(&self, pid: sys::Pid) -> bool {
        /// As much as Linux keeps of a name.
        const KEPT: usize = 15;
        if self.programs.is_empty() {
            return false;
        }
        let kept = sys::program_name(pid);
        let words = sys::command_line(pid).unwrap_or_default();
        let file_name = |word: &String| Some(Path::new(word).file_name()?.to_str()?.to_owned());
        let named: Vec<String> = words.iter().take(2).filter_map(file_name).collect();
        self.programs.iter().any(|program| {
            let cut = &program[..program.floor_char_boundary(KEPT)];
            kept.as_deref() == Some(cut) || named.contains(program)
        })
    }
}
