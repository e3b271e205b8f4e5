//! Reading connections: one, or a small pool made on demand.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use scheduled_thread_pool::ScheduledThreadPool;

use super::{Inner, busy, lock, pragmas};
use crate::error::{Error, ErrorKind, Result};

/// How readers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// An r2d2 pool, for programs that live long and read from many threads.
    Pooled,
    /// One connection behind a mutex.
    Single,
}

/// More readers at once than this wait for each other; a read takes tens of microseconds.
const POOL_SIZE_MAX: u32 = 4;

/// A question answers quickly or says that it cannot.
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(250);

type Pool = r2d2::Pool<SqliteConnectionManager>;

pub(super) enum Readers {
    Single(Mutex<Option<Connection>>),
    Pooled { pool: Mutex<Option<Pool>>, last_error: Arc<LastError> },
}

/// r2d2 turns the cause of a failed connection into text; this keeps it typed.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<rusqlite::Error>>);

impl r2d2::HandleError<rusqlite::Error> for SharedLastError {
    fn handle_error(&self, error: rusqlite::Error) {
        *lock(&self.0.0) = Some(error);
    }
}

#[derive(Debug)]
struct SharedLastError(Arc<LastError>);

impl Readers {
    pub(super) fn new(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Single => Self::Single(Mutex::new(None)),
            Strategy::Pooled => Self::Pooled { pool: Mutex::new(None), last_error: Arc::default() },
        }
    }

    /// Runs `work` on a reading connection, made if need be.
    pub(super) fn with<T>(
        &self,
        store: &Inner,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Single(slot) => {
                let mut slot = lock(slot);
                let connection = match &*slot {
                    Some(connection) => connection,
                    None => slot.insert(store.connect(pragmas::Access::Read)?),
                };
                work(connection)
            }
            Self::Pooled { pool, last_error } => {
                let pool =
                    lock(pool).get_or_insert_with(|| build(store, Arc::clone(last_error))).clone();
                match pool.get_timeout(patience()) {
                    Ok(connection) => work(&connection),
                    Err(timeout) => Err(match lock(&last_error.0).take() {
                        Some(cause) => cause.into(),
                        None => Error::new(
                            ErrorKind::Busy,
                            format!("all {POOL_SIZE_MAX} readers of this process are in use"),
                        )
                        .retry_after(100)
                        .caused_by(timeout),
                    }),
                }
            }
        }
    }

    /// Closes the connections, those in use as soon as they are not.
    pub(super) fn clear(&self) {
        match self {
            Self::Single(slot) => drop(lock(slot).take()),
            Self::Pooled { pool, .. } => drop(lock(pool).take()),
        }
    }

    /// In a forked child: lets go of the connections without closing them.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Single(slot) => std::mem::forget(
                slot.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take(),
            ),
            Self::Pooled { pool, .. } => std::mem::forget(
                pool.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take(),
            ),
        }
    }
}

/// How long a reader may be waited for: not longer than whoever asks has time, but for long enough to
/// make one.
fn patience() -> Duration {
    const MADE_WITHIN: Duration = Duration::from_millis(20);
    let remaining = busy::deadline().map_or(Duration::MAX, |deadline| deadline.remaining());
    remaining.clamp(MADE_WITHIN, CONNECTION_TIMEOUT)
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readers(..)")
    }
}

fn build(store: &Inner, last_error: Arc<LastError>) -> Pool {
    // All pools of the process share one thread: r2d2 would make three for each.
    static SCHEDULER: OnceLock<Arc<ScheduledThreadPool>> = OnceLock::new();
    let scheduler = SCHEDULER.get_or_init(|| {
        let pool = ScheduledThreadPool::builder().num_threads(1);
        Arc::new(pool.thread_name_pattern("incumbent-readers").build())
    });
    let files = Arc::clone(store.files());
    let manager = SqliteConnectionManager::file(&store.location.file)
        .with_flags(pragmas::flags(pragmas::Access::Read))
        .with_init(move |connection| {
            files.look_soon();
            busy::with_budget(CONNECTION_TIMEOUT, || {
                pragmas::apply(connection, pragmas::Access::Read)
            })
            .map_err(|error| match error.into_sqlite() {
                Ok(cause) => cause,
                Err(error) => rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
            })
        });
    r2d2::Pool::builder()
        .min_idle(Some(0))
        .max_size(POOL_SIZE_MAX)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_on_check_out(false)
        .connection_timeout(CONNECTION_TIMEOUT)
        .thread_pool(Arc::clone(scheduler))
        .error_handler(Box::new(SharedLastError(last_error)))
        .build_unchecked(manager)
}
