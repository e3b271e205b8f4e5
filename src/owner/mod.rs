//! The rules about one recorded owner: is it alive, how did it end, who stands in the way.

mod advice;
pub(crate) mod autopsy;
pub(crate) mod command_lock;
pub(crate) mod ending;
pub(crate) mod evidence;
pub(crate) mod family;
pub(crate) mod frozen;
pub(crate) mod held_lock;
pub(crate) mod holder;
pub(crate) mod judge;
pub(crate) mod older;
pub(crate) mod orphan;
pub(crate) mod our_run;
pub(crate) mod request;
pub(crate) mod running;
pub(crate) mod waiter;

pub(crate) use crate::owner::evidence::{LiveCommandLine, needs_command_line};
pub(crate) use crate::owner::judge::{is_held, judge_record, judgement, look};
pub(crate) use crate::owner::our_run::OurRun;
pub(crate) use crate::owner::request::InProgress;

pub(crate) use self::older::live;
