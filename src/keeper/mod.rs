//! Records and locks for processes that do not link the library.
//!
//! Such a process cannot hold an anchor. A keeper holds one for it, and releases it when the
//! process ends. `claim --pid` starts a keeper, which makes the record itself and so creates the
//! anchor that it holds. A second record for the same process leans on the first keeper. Whether
//! the keeper still keeps is decided inside the transaction, and the keeper drops its anchor only
//! inside one.

pub(crate) mod arrival;
pub(crate) mod keep;
pub(crate) mod kept;
pub(crate) mod locks;
pub(crate) mod pair;
pub(crate) mod record;
pub(crate) mod release;
pub(crate) mod target;

/// What a store answers.
pub(crate) enum Known<T> {
    /// It knows whom it was asked about.
    Well(T),
    /// That is no more than the lack of a record.
    ByLack(T),
}

impl<T> Known<T> {
    pub(crate) fn answer(self) -> T {
        match self {
            Self::Well(answer) | Self::ByLack(answer) => answer,
        }
    }
}
