//! A line that is drawn again and again: a console begins a new one for its prompt by itself.

/// A line is drawn on standard error.
pub(crate) fn was_drawn() {}

/// It was taken away.
pub(crate) fn is_gone() {}
