//! How long it takes from the end of a holder to the ownership of whoever waits for it.
//!
//! Holder and waiter are processes of their own. The waiter stamps the system's monotonic clock
//! when it is granted; the end is stamped just before the kill, or by the holder just before it
//! releases.
//!
//! `cargo bench --bench handover -- [ROUNDS]` (default: 300).

#![allow(clippy::expect_used, reason = "a benchmark may die of a surprise")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and its role")]

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("handover: measured on Linux only");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{BufRead, BufReader, Write};
    use std::path::Path;
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
    use std::time::{Duration, Instant};

    use incumbent::lock::AcquireOptions;
    use incumbent::stop::Replace;
    use incumbent::{Acquire, Claim, ClaimOptions, LockRequest, Store, Wait};

    const ROLE: &str = "HANDOVER_ROLE";

    const SCOPE: &str = "bot-token";

    const IDENTITY: &str = "123456:secret";

    /// Longer than any round: a waiter that hits it has missed its wake-up.
    const LIMIT: Duration = Duration::from_secs(9);

    /// How the holder lets go.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum End {
        Killed,
        Released,
    }

    /// What is handed over.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum What {
        Lock,
        Office,
        /// A lock, waited for by `lock acquire --wait`: to the end of that process.
        Verb,
        /// An office, taken over from a holder that ends by SIGTERM: the whole call.
        Takeover,
    }

    pub fn main() {
        if let Ok(role) = std::env::var(ROLE) {
            return play(&role);
        }
        let rounds = std::env::args()
            .skip(1)
            .find_map(|argument| argument.parse::<usize>().ok())
            .unwrap_or(300);
        println!("{:<52} {:>9} {:>9} {:>9}", "hand-over", "p50", "p99", "worst");
        for (name, what, end) in [
            ("a lock, the holder killed", What::Lock, End::Killed),
            ("a lock, released", What::Lock, End::Released),
            ("an office, the holder killed", What::Office, End::Killed),
            ("an office, released", What::Office, End::Released),
            ("`lock acquire --wait` to its end, the holder killed", What::Verb, End::Killed),
            ("a whole takeover, the holder ends when it is asked", What::Takeover, End::Released),
        ] {
            let mut took: Vec<u64> = (0..rounds).map(|round| hand_over(what, end, round)).collect();
            took.sort_unstable();
            let at = |per_mille: usize| {
                let at_ns = took[(took.len() - 1) * per_mille / 1_000];
                format!("{}.{:02} ms", at_ns / 1_000_000, at_ns / 10_000 % 100)
            };
            println!("{name:<52} {:>9} {:>9} {:>9}", at(500), at(990), at(1_000));
        }
    }

    /// One hand-over in a store that is used for all rounds of its kind; nanoseconds.
    fn hand_over(what: What, end: End, round: usize) -> u64 {
        thread_local! {
            static STORE: tempfile::TempDir = tempfile::tempdir().expect("a scratch directory");
        }
        STORE.with(|directory| {
            let path = directory.path().join("state.db");
            let is_office = matches!(what, What::Office | What::Takeover);
            let wanted = if is_office { "office" } else { "lock" };
            let mut holder = Role::start(&path, &format!("hold {wanted}"));
            assert_eq!(holder.line(), "held", "round {round}");
            if what == What::Verb {
                return hand_over_to_verb(&path, holder);
            }
            if what == What::Takeover {
                let mut taker = Role::start(&path, "take office");
                return taker.line().parse().expect("a time");
            }
            let mut waiter = Role::start(&path, &format!("wait {wanted}"));
            assert_eq!(waiter.line(), "waits", "round {round}");
            wait_for_waiter(&path);
            let ended_ns = match end {
                End::Killed => {
                    let at_ns = now_ns();
                    holder.child.kill().expect("a kill");
                    at_ns
                }
                End::Released => {
                    holder.say("release");
                    holder.line().parse().expect("a time")
                }
            };
            let granted_ns: u64 = waiter.line().parse().expect("a time");
            granted_ns - ended_ns
        })
    }

    fn hand_over_to_verb(path: &Path, mut holder: Role) -> u64 {
        // Whom the lock is for: a process that knows nothing of all this.
        let mut owner = Command::new("sleep").arg("60").spawn().expect("sleep");
        let mut verb = Command::new(env!("CARGO_BIN_EXE_incumbent"))
            .args(["lock", "acquire", SCOPE, IDENTITY, "--wait=9s", "--pid"])
            .arg(owner.id().to_string())
            .arg("--db")
            .arg(path)
            .stdout(Stdio::null())
            .spawn()
            .expect("a verb");
        wait_for_waiter(path);
        let killed_ns = now_ns();
        holder.child.kill().expect("a kill");
        assert!(verb.wait().expect("an end").success(), "it was not granted");
        let took_ns = now_ns() - killed_ns;
        owner.kill().expect("a kill");
        owner.wait().expect("an end");
        took_ns
    }

    /// Until somebody waits on record, and had the time to begin with it.
    fn wait_for_waiter(path: &Path) {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(path, flags).expect("a reader");
        let started = Instant::now();
        // Rows of killed holders and waiters before it are still there.
        let waits = "SELECT count(*) FROM waiters JOIN instances ON id = instance_id
                     WHERE ended_at_ms IS NULL";
        while connection.query_row(waits, [], |row| row.get::<_, i64>(0)).expect("a count") == 0 {
            assert!(started.elapsed() < LIMIT, "nobody waits");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(10));
    }

    /// Nanoseconds of the clock that all processes share.
    fn now_ns() -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        u64::try_from(now.tv_sec).expect("a time") * 1_000_000_000
            + u64::try_from(now.tv_nsec).expect("a time")
    }

    /// This program, started again to play a part; killed when dropped.
    struct Role {
        child: Child,
        stdin: ChildStdin,
        out: BufReader<ChildStdout>,
    }

    impl Role {
        fn start(path: &Path, role: &str) -> Self {
            let mut child = Command::new(std::env::current_exe().expect("this program"))
                .env(ROLE, format!("{role} {}", path.display()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a role");
            let stdin = child.stdin.take().expect("a pipe");
            let out = BufReader::new(child.stdout.take().expect("a pipe"));
            Self { child, stdin, out }
        }

        fn line(&mut self) -> String {
            let mut line = String::new();
            self.out.read_line(&mut line).expect("a line");
            line.trim().to_owned()
        }

        fn say(&mut self, word: &str) {
            writeln!(self.stdin, "{word}").expect("an order");
        }
    }

    impl Drop for Role {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn play(role: &str) {
        let mut words = role.splitn(3, ' ');
        let (part, what, path) = (words.next(), words.next(), words.next());
        let store = Store::open(Path::new(path.expect("a path"))).expect("a store");
        if part == Some("take") {
            let profile = store.profile("default").expect("a profile");
            let options = ClaimOptions::new().replace(Replace::new());
            let began_ns = now_ns();
            let Ok(Claim::Granted(_tenure)) = profile.claim_with(&options) else {
                panic!("it was not granted")
            };
            println!("{}", now_ns() - began_ns);
            let _ = std::io::stdin().read_line(&mut String::new());
            return;
        }
        let waits = part == Some("wait");
        if waits {
            println!("waits");
        }
        let wait = if waits { Wait::UpTo(LIMIT) } else { Wait::No };
        let guard = Guard::take(&store, what == Some("office"), wait);
        let granted_ns = now_ns();
        if waits {
            println!("{granted_ns}");
        } else {
            println!("held");
        }
        let mut order = String::new();
        std::io::stdin().read_line(&mut order).expect("an order");
        if order.trim() == "release" {
            let at_ns = now_ns();
            guard.release();
            println!("{at_ns}");
            let _ = std::io::stdin().read_line(&mut order);
        }
    }

    enum Guard {
        Lock(incumbent::ScopedLock),
        Office(incumbent::Tenure),
    }

    impl Guard {
        fn take(store: &Store, office: bool, wait: Wait) -> Self {
            if office {
                let profile = store.profile("default").expect("a profile");
                match profile.claim_with(&ClaimOptions::new().wait(wait)).expect("an answer") {
                    Claim::Granted(tenure) => Self::Office(tenure),
                    Claim::Held(holder) => panic!("{holder}"),
                }
            } else {
                let request = LockRequest::new(SCOPE, IDENTITY).expect("a request");
                let options = AcquireOptions::new().wait(wait);
                match store.acquire(&request, &options).expect("an answer") {
                    Acquire::Granted(lock) => Self::Lock(lock),
                    Acquire::Held(holder) => panic!("{holder}"),
                }
            }
        }

        fn release(self) {
            match self {
                Self::Lock(lock) => drop(lock.release().expect("a release")),
                Self::Office(tenure) => drop(tenure.release().expect("a release")),
            }
        }
    }
}
