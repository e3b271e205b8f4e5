//! The PID record: one row for each incarnation of a process, and how it ended.

pub(crate) mod end;
pub(crate) mod find;
pub(crate) mod insert;
pub(crate) mod last_line;
pub(crate) mod later;
pub(crate) mod prune;
pub(crate) mod row;

pub(crate) use self::end::{
    End, EndReason, add_stderr, end, is_abnormal, last_word, last_words_in,
};
pub(crate) use self::end::{found_dead, name_sender, note_exit, noted_exit};
pub(crate) use self::find::{
    PastSelection, all_live, by_id, history, last_ended, last_of_process, live, live_of_nonce,
    live_of_process, live_on, live_without_office, office_of, offices,
};
pub(crate) use self::find::{acting_process, imported, live_of_pid, of_older, without_purpose};
pub(crate) use self::find::{names_anchor_since, next_generation};
pub(crate) use self::insert::{Came, NewInstance, rewrite_argv, set_anchor, set_child};
pub(crate) use self::insert::{EndedInstance, lean_on};
pub(crate) use self::last_line::{exception, last_line};
pub(crate) use self::prune::{prune_history, prune_without_office};
pub(crate) use self::row::{
    Command, CommandLock, LockNow, Origin, Record, RowState, date_back, forget_notes_of_earlier,
    standing,
};
pub(crate) use self::row::{
    Keepers, go_on_in_place, keepers_end, leave_to_keepers, lose_command_lock, set_keepers,
};
