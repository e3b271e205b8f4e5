//! Another SQLite in this process, as a Python gateway has one: it knows nothing of the locks that
//! the first one holds, and every close of it cancels them (<https://sqlite.org/howtocorrupt.html>,
//! section 2.2.1).

#![allow(unsafe_code, reason = "libraries that are loaded while the program runs")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::transmute;
use std::path::Path;
use std::ptr;

type Row = unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;

/// What a statement came to, where it did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    Busy,
    Otherwise(String),
}

type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, *const c_char) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void) -> c_int;
type BusyTimeout = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
type Exec = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    Option<Row>,
    *mut c_void,
    *mut *mut c_char,
) -> c_int;
type Message = unsafe extern "C" fn(*mut c_void) -> *const c_char;
type Begin = unsafe extern "C" fn(c_int);
type Run = unsafe extern "C" fn(*const c_char) -> c_int;

/// `libsqlite3.so.0`, loaded beside the SQLite that this program was linked with.
#[derive(Clone, Copy)]
pub struct SecondSqlite {
    open: Open,
    close: Close,
    patience: BusyTimeout,
    exec: Exec,
    message: Message,
}

const OK: c_int = 0;
const BUSY: c_int = 5;
const OPEN_READWRITE: c_int = 2;

impl SecondSqlite {
    /// `None` where there is none.
    pub fn load() -> Option<Self> {
        let library = load(c"libsqlite3.so.0", libc::RTLD_LOCAL)?;
        // SAFETY: the functions have these types for as long as the library has its name.
        unsafe {
            Some(Self {
                open: transmute::<*mut c_void, Open>(find(library, c"sqlite3_open_v2")?),
                close: transmute::<*mut c_void, Close>(find(library, c"sqlite3_close")?),
                patience: transmute::<*mut c_void, BusyTimeout>(find(
                    library,
                    c"sqlite3_busy_timeout",
                )?),
                exec: transmute::<*mut c_void, Exec>(find(library, c"sqlite3_exec")?),
                message: transmute::<*mut c_void, Message>(find(library, c"sqlite3_errmsg")?),
            })
        }
    }

    /// Opens the database, runs `statement`, and closes it; the first column of the last row.
    pub fn once(&self, database: &Path, statement: &str) -> Result<Option<String>, Failed> {
        /// As long as the others wait.
        const PATIENCE_MS: c_int = 20_000;
        let path = CString::new(database.as_os_str().as_encoded_bytes()).unwrap();
        let statement = CString::new(statement).unwrap();
        let mut connection = ptr::null_mut();
        let mut answer: Option<String> = None;
        // SAFETY: as the functions are documented; the connection is closed once, `answer` outlives
        // it.
        unsafe {
            let mut code =
                (self.open)(path.as_ptr(), &raw mut connection, OPEN_READWRITE, ptr::null());
            if code == OK {
                (self.patience)(connection, PATIENCE_MS);
                code = (self.exec)(
                    connection,
                    statement.as_ptr(),
                    Some(keep_first_column),
                    (&raw mut answer).cast(),
                    ptr::null_mut(),
                );
            }
            let message = CStr::from_ptr((self.message)(connection)).to_string_lossy().into_owned();
            (self.close)(connection);
            match code {
                OK => Ok(answer),
                BUSY => Err(Failed::Busy),
                code => Err(Failed::Otherwise(format!("{message} ({code})"))),
            }
        }
    }
}

unsafe extern "C" fn keep_first_column(
    kept: *mut c_void,
    columns: c_int,
    values: *mut *mut c_char,
    _names: *mut *mut c_char,
) -> c_int {
    // SAFETY: called by `sqlite3_exec` with the pointer that it was given, and so many columns.
    unsafe {
        if columns > 0 && !(*values).is_null() {
            let value = CStr::from_ptr(*values).to_string_lossy().into_owned();
            *kept.cast::<Option<String>>() = Some(value);
        }
    }
    0
}

/// Python in this process. It belongs to the thread that has loaded it.
pub struct Python {
    run: Run,
}

impl Python {
    /// `None` where there is none that can be loaded, or where it has no SQLite.
    pub fn load() -> Option<Self> {
        const NEWEST: u32 = 19;
        const OLDEST: u32 = 7;
        let library = (OLDEST..=NEWEST).rev().find_map(|minor| {
            let name = CString::new(format!("libpython3.{minor}.so.1.0")).unwrap();
            // Its modules look for its functions everywhere.
            load(&name, libc::RTLD_GLOBAL)
        })?;
        // SAFETY: as above; it is initialised once, without handlers of signals.
        let python = unsafe {
            let begin = transmute::<*mut c_void, Begin>(find(library, c"Py_InitializeEx")?);
            let run = transmute::<*mut c_void, Run>(find(library, c"PyRun_SimpleString")?);
            begin(0);
            Self { run }
        };
        python.run("import sqlite3").then_some(python)
    }

    /// Whether it ended without an exception; one is shown on standard error.
    pub fn run(&self, program: &str) -> bool {
        let program = CString::new(program).unwrap();
        // SAFETY: by the thread that has initialised it, which nobody takes the interpreter from.
        unsafe { (self.run)(program.as_ptr()) == 0 }
    }
}

/// Loads a library for as long as the process lives.
fn load(name: &CStr, scope: c_int) -> Option<*mut c_void> {
    // SAFETY: a NUL-terminated name; what such a library does when it is loaded is harmless.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | scope) };
    (!library.is_null()).then_some(library)
}

fn find(library: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a library that was loaded and is never unloaded.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
