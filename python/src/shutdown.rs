//! Signals that ask to end, with who sent them and what to exit with. They are put in a queue by a
//! thread of the library, and fetched by Python.

use std::collections::VecDeque;
use std::io::{PipeReader, Read, Write};
use std::sync::{Arc, Mutex};

use incumbent::exit::ExitCodes;
use incumbent::forensics::{HostSignal, Shutdown, ShutdownFeed, ShutdownWatch};
use incumbent::{Error, Tenure};
use pyo3::prelude::*;

use crate::call::{drop_outside, outside};
use crate::reply;

/// Who catches the signals.
enum Source {
    Us(ShutdownWatch),
    Host(ShutdownFeed),
}

#[pyclass(frozen, module = "incumbent._native")]
pub(crate) struct Shutdowns {
    queue: Arc<Mutex<VecDeque<String>>>,
    bell: PipeReader,
    source: Mutex<Option<Source>>,
}

type Told = Box<dyn FnMut(Shutdown) + Send>;

impl Shutdowns {
    fn new(
        py: Python<'_>,
        source: impl FnOnce(Told) -> Result<Source, Error> + Send,
    ) -> PyResult<Self> {
        let (bell, mut rope) = std::io::pipe()?;
        let queue: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let of_thread = Arc::clone(&queue);
        let told = Box::new(move |shutdown: Shutdown| {
            if let Ok(mut queue) = of_thread.lock() {
                queue.push_back(reply::shutdown(&shutdown));
            }
            // One byte for each: a person sends a few signals, and the pipe takes 64 KiB.
            let _ = rope.write(&[1]);
        });
        let source = outside(py, move || source(told))?;
        Ok(Self { queue, bell, source: Mutex::new(Some(source)) })
    }

    pub(crate) fn catching(py: Python<'_>, tenure: &Tenure, codes: ExitCodes) -> PyResult<Self> {
        Self::new(py, |told| Ok(Source::Us(tenure.on_shutdown(codes, told)?)))
    }

    pub(crate) fn fed(py: Python<'_>, tenure: &Tenure, codes: ExitCodes) -> PyResult<Self> {
        Self::new(py, |told| Ok(Source::Host(tenure.shutdown_feed(codes, told)?)))
    }
}

#[pymethods]
impl Shutdowns {
    /// The next one as JSON, if one has come. Waits for nothing.
    fn take(&self) -> PyResult<Option<String>> {
        let next = self.queue.lock().ok().and_then(|mut it| it.pop_front());
        if next.is_some() {
            // Its byte: written after it was put there, so for a moment there may be none yet.
            (&self.bell).read_exact(&mut [0])?;
        }
        Ok(next)
    }

    /// Readable while there is one.
    #[cfg(unix)]
    fn fileno(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.bell.as_raw_fd()
    }

    /// For a handler of the host: `code`, `pid` and `uid` are those of its siginfo, if it has one.
    fn feed(&self, signal: i32, siginfo: Option<(i32, u32, u32)>) {
        let mut of_host = HostSignal::new(signal);
        if let Some((code, pid, uid)) = siginfo {
            of_host = of_host.siginfo(code, pid, uid);
        }
        if let Ok(source) = self.source.lock()
            && let Some(Source::Host(feed)) = &*source
        {
            feed.feed(of_host);
        }
    }

    /// Whether signals still reach us; where the host catches them that is its own affair.
    fn is_in_place(&self) -> bool {
        self.source.lock().is_ok_and(|source| match &*source {
            Some(Source::Us(watch)) => watch.is_in_place(),
            Some(Source::Host(_)) => true,
            None => false,
        })
    }

    fn close(&self) {
        if let Some(source) = self.source.lock().ok().and_then(|mut it| it.take()) {
            drop_outside(source);
        }
    }
}

impl Drop for Shutdowns {
    fn drop(&mut self) {
        self.close();
    }
}
