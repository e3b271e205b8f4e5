//! The text of a reference, and what it is judged by.

use proptest::option;
use proptest::prelude::{Just, Strategy, prop_oneof};

use super::*;
use crate::liveness::{AliveReason, DeadReason, ProcessTable, Ruling, UnknownReason};
use crate::sys::{ProcessNumber, StartTimeUnit};

const EXAMPLE: &str = "p1.48213.t881234.n52731.b0c6d6c1e-1111-4222-8333-444444444444.s4026531836.\
                       hd0a1d0a1d0a1d0a1d0a1d0a1d0a1d0a1.w1790000000000.c8812345";

/// What applications have stored has to be read by every later version: this text never changes.
#[test]
fn the_text_of_version_1_is_read_for_ever() {
    let read: ProcessRef = EXAMPLE.parse().unwrap();
    assert_eq!(read.pid(), 48_213);
    let ticks = StartTime { value: 881_234, unit: StartTimeUnit::Ticks };
    assert_eq!((read.start_time(), read.number()), (Some(ticks), Some(52_731)));
    assert_eq!(read.boot_id(), Some("0c6d6c1e-1111-4222-8333-444444444444"));
    assert_eq!(read.pid_namespace(), Some("4026531836"));
    assert_eq!(read.host(), Some("d0a1d0a1d0a1d0a1d0a1d0a1d0a1d0a1"));
    assert_eq!(read.0.made, Clocks { wall_ms: 1_790_000_000_000, boot_ms: 8_812_345 });
    assert_eq!(read.to_string(), EXAMPLE);
    assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::json!(EXAMPLE));
    let again: ProcessRef = serde_json::from_value(serde_json::json!(EXAMPLE)).unwrap();
    assert_eq!(again, read);
    for (unit, text) in [
        (StartTimeUnit::Microseconds, "p1.1.u5.w0.c0"),
        (StartTimeUnit::Filetime, "p1.2147483647.f9223372036854775807.w1.c2"),
    ] {
        let read: ProcessRef = text.parse().unwrap();
        assert_eq!(read.start_time().unwrap().unit, unit);
        assert_eq!(read.to_string(), text);
    }
}

#[test]
fn what_is_no_reference_is_invalid_input() {
    let part = |from: &str, to: &str| EXAMPLE.replace(from, to);
    let long = part(".hd0a1", &format!(".h{}", "a".repeat(80)));
    let endless = format!("{EXAMPLE}{}", "0".repeat(100_000));
    for bad in [
        "",
        "p1",
        "p1.",
        "48213",
        "p1.48213",
        // Neither a start time nor a number: it could be anybody.
        "p1.48213.w1.c1",
        "p1.48213.t1.w1",
        "p1.48213.t1.c1.w1",
        "p1.48213.n1.t1.w1.c1",
        "p1.48213.t1.u1.w1.c1",
        "p1.48213.t.w1.c1",
        "p1.48213.t1.b.w1.c1",
        "p1.48213.t1.b .w1.c1",
        "p1.48213.t-1.w1.c1",
        "p1.48213.t+1.w1.c1",
        "p1.48213.t01.w1.c1",
        "p1.48213.t99999999999999999999.w1.c1",
        "p1.48213.t1.w1.c1.x1",
        "p1.48213.t1.w1.c1.",
        "p1.0.t1.w1.c1",
        "p1.-1.t1.w1.c1",
        "p1.2147483648.t1.w1.c1",
        "P1.48213.t1.w1.c1",
        "p1.48213.t\u{661}.w1.c1",
        &part("p1.", "p2."),
        &part("p1.", "p01."),
        &format!("{EXAMPLE}\n"),
        &long,
        &endless,
    ] {
        let error = bad.parse::<ProcessRef>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        assert!(error.to_string().contains("process reference"), "{bad:?}: {error}");
        assert!(error.to_string().len() < 200 && error.hint().is_some(), "{error}");
        let json = serde_json::from_value::<ProcessRef>(serde_json::json!(bad));
        assert!(json.is_err(), "{bad:?}");
    }
    let later = part("p1.", "p2.").parse::<ProcessRef>().unwrap_err();
    assert!(later.to_string().contains("later version"), "{later}");
}

fn start_times() -> impl Strategy<Value = StartTime> {
    let unit = prop_oneof![
        Just(StartTimeUnit::Ticks),
        Just(StartTimeUnit::Microseconds),
        Just(StartTimeUnit::Filetime)
    ];
    (0..=i64::MAX, unit).prop_map(|(value, unit)| StartTime { value, unit })
}

fn references() -> impl Strategy<Value = ProcessRef> {
    let id = || option::of("[0-9a-zA-Z-]{1,64}");
    let of_process = prop_oneof![
        (start_times().prop_map(Some), option::of(0..=u64::MAX)),
        (Just(None), (0..=u64::MAX).prop_map(Some)),
    ];
    let made = (0..=i64::MAX, 0..=i64::MAX);
    (1..=i32::MAX.cast_unsigned(), of_process, id(), id(), id(), made).prop_map(
        |(pid, (start_time, number), boot_id, pid_ns, host, (wall_ms, boot_ms))| {
            ProcessRef(Identity {
                pid,
                start_time,
                number: number.map(ProcessNumber),
                boot_id,
                pid_ns,
                host,
                made: Clocks { wall_ms, boot_ms },
            })
        },
    )
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read(process in references()) {
        let text = process.to_string();
        proptest::prop_assert!(text.len() <= 320, "{}", text.len());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        proptest::prop_assert!(text.chars().all(is_plain));
        proptest::prop_assert_eq!(text.parse::<ProcessRef>().unwrap(), process);
    }

    #[test]
    fn no_text_panics_and_none_is_read_in_two_ways(text in ".{0,80}") {
        check(&text)?;
    }

    #[test]
    fn nothing_near_the_form_panics(
        text in "p1\\.[0-9]{1,11}(\\.[tufnbshwc][0-9a-f-]{0,21}){0,9}"
    ) {
        check(&text)?;
    }

    #[test]
    fn no_pid_panics(pid in 0..=u32::MAX, near in 0_u32..100_000) {
        for pid in [pid, near] {
            let looks = [
                crate::process::exists(pid).map(drop),
                crate::process::start_time(pid).map(drop),
                crate::process::command_line(pid).map(drop),
            ];
            for look in looks {
                let is_pid = (1..=i32::MAX.cast_unsigned()).contains(&pid);
                proptest::prop_assert_eq!(look.is_ok(), is_pid, "{}: {:?}", pid, look);
            }
        }
    }

    /// Whatever the text says, whom it names is judged without a panic. None of these ids is this
    /// machine's, and of another one nothing can be proven.
    #[test]
    fn whatever_can_be_read_can_be_judged(process in references()) {
        let judged = process.is_alive().unwrap();
        proptest::prop_assert!(matches!(judged.ruling, Ruling::Unknown(_)), "{:?}", judged);
    }
}

fn check(text: &str) -> Result<(), proptest::test_runner::TestCaseError> {
    match text.parse::<ProcessRef>() {
        Ok(process) => proptest::prop_assert_eq!(process.to_string(), text),
        Err(error) => proptest::prop_assert_eq!(error.kind(), ErrorKind::InvalidInput),
    }
    Ok(())
}

#[test]
fn pids_that_are_none_are_invalid_input() {
    for pid in [0, 1 << 31, u32::MAX] {
        let errors = [
            ProcessRef::of(pid).unwrap_err(),
            crate::process::exists(pid).unwrap_err(),
            crate::process::start_time(pid).unwrap_err(),
            crate::process::command_line(pid).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&pid.to_string()), "{error}");
        }
    }
    let nobody = i32::MAX.cast_unsigned();
    assert_eq!(ProcessRef::of(nobody).unwrap_err().kind(), ErrorKind::NotRunning);
    assert_eq!(crate::process::exists(nobody).unwrap(), Existence::Gone);
}

/// A machine whose ids are all known, a minute after the reference was made.
fn judged(change: impl FnOnce(&mut Identity, &mut Observer, &mut Clocks)) -> Ruling {
    let mut observer = Observer::new();
    observer.process_table = ProcessTable::Ours;
    observer.host = Some("host".to_owned());
    observer.boot_id = Some("boot".to_owned());
    observer.pid_ns = Some("4026531836".to_owned());
    let mut process = Identity {
        pid: observer.pid,
        start_time: observer.start_time,
        number: observer.number,
        boot_id: observer.boot_id.clone(),
        pid_ns: observer.pid_ns.clone(),
        host: observer.host.clone(),
        made: Clocks { wall_ms: 1_000_000, boot_ms: 500_000 },
    };
    let mut now = Clocks { wall_ms: 1_060_000, boot_ms: 560_000 };
    change(&mut process, &mut observer, &mut now);
    judge(ProcessRef(process).evidence(&observer, now)).ruling
}

/// FIELD-BUGS rows 6, 7, 8, 10, 24, 25 and 91, for a process outside of any store.
#[test]
fn what_cannot_be_seen_is_unknown_and_what_is_dead_is_proven() {
    const ALIVE: Ruling = Ruling::Alive(AliveReason::StartTimeMatches);
    const REUSED: Ruling = Ruling::Dead(DeadReason::PidReused);
    const REBOOTED: Ruling = Ruling::Dead(DeadReason::Rebooted);
    const ELSEWHERE: Ruling = Ruling::Unknown(UnknownReason::ForeignNamespace);
    const UNVERIFIABLE: Ruling = Ruling::Unknown(UnknownReason::NotVerifiable);
    let other = || Some("other".to_owned());
    let earlier = |process: &mut Identity| {
        process.number = None;
        process.start_time.as_mut().unwrap().value -= 1;
    };

    assert_eq!(judged(|_, _, _| {}), ALIVE);
    assert_eq!(judged(|process, _, _| process.number = None), ALIVE);
    assert_eq!(judged(|process, _, _| earlier(process)), REUSED);
    let of_another_source = |process: &mut Identity, _: &mut Observer, _: &mut Clocks| {
        process.number = None;
        let time = process.start_time.as_mut().unwrap();
        time.unit = match time.unit {
            StartTimeUnit::Ticks => StartTimeUnit::Filetime,
            StartTimeUnit::Microseconds | StartTimeUnit::Filetime => StartTimeUnit::Ticks,
        };
    };
    assert_eq!(judged(of_another_source), UNVERIFIABLE);

    // The very pid and tick come back after a restart: the boot id and the clocks prove it.
    let restarted = |process: &mut Identity, _: &mut Observer, now: &mut Clocks| {
        process.boot_id = other();
        now.boot_ms = 10_000;
    };
    assert_eq!(judged(restarted), REBOOTED);
    // A boot id that differs or is hidden is doubt, and no proof.
    assert_eq!(judged(|process, _, _| process.boot_id = other()), ALIVE);
    assert_eq!(judged(|process, _, _| process.boot_id = None), ALIVE);
    assert_eq!(judged(|_, observer, _| observer.boot_id = None), ALIVE);
    let set_back = |_: &mut Identity, _: &mut Observer, now: &mut Clocks| now.wall_ms = 0;
    assert_eq!(judged(set_back), ALIVE);
    // Without one the clocks are doubt, too: what looks like it may have come after a restart, and
    // gets no signal. What does not look like it is another one in any case. A start time that is
    // no count since the boot does not come back.
    let after = |hide: fn(&mut Identity, &mut Observer), change: fn(&mut Identity)| {
        judged(|process, observer, now| {
            hide(process, observer);
            change(process);
            now.boot_ms = 10_000;
        })
    };
    let counts_ticks =
        Observer::new().start_time.is_some_and(|time| time.unit == StartTimeUnit::Ticks);
    let doubtful = if counts_ticks { UNVERIFIABLE } else { ALIVE };
    let hidings: [fn(&mut Identity, &mut Observer); 3] = [
        |process, _| process.boot_id = None,
        |_, observer| observer.boot_id = None,
        |process, observer| (process.boot_id, observer.boot_id) = (None, None),
    ];
    for hide in hidings {
        assert_eq!(after(hide, |_| ()), doubtful);
        assert_eq!(after(hide, |process| process.number = None), doubtful);
        assert_eq!(after(hide, earlier), REUSED);
    }

    // Another machine, or one that nobody knows to be the same, whatever its clocks say.
    let of_host = |recorded: Option<String>, here: Option<String>| {
        judged(|process, observer, now| {
            (process.host, observer.host) = (recorded, here);
            process.boot_id = other();
            now.boot_ms = 10_000;
            earlier(process);
        })
    };
    assert_eq!(of_host(other(), Some("host".to_owned())), ELSEWHERE);
    assert_eq!(of_host(None, Some("host".to_owned())), ELSEWHERE);
    assert_eq!(of_host(other(), None), ELSEWHERE);
    assert_eq!(of_host(None, None), ELSEWHERE);
    // But one boot is one machine, also without an id.
    let nameless = |process: &mut Identity, observer: &mut Observer, _: &mut Clocks| {
        (process.host, observer.host) = (None, None);
    };
    assert_eq!(judged(nameless), ALIVE);

    let namespaced = |process: &mut Identity, _: &mut Observer, _: &mut Clocks| {
        process.pid_ns = other();
        earlier(process);
    };
    assert_eq!(judged(namespaced), ELSEWHERE);
    let blind = |process: &mut Identity, observer: &mut Observer, _: &mut Clocks| {
        observer.process_table = ProcessTable::Foreign;
        earlier(process);
    };
    assert_eq!(judged(blind), ELSEWHERE);
}

#[test]
fn two_references_of_one_process_are_the_same() {
    let me = ProcessRef::current().unwrap();
    let mut again = me.clone();
    again.0.made = Clocks { wall_ms: 1, boot_ms: 1 };
    assert_ne!(me.to_string(), again.to_string());
    // Wine tells no boot from another.
    let same = if me.0.boot_id.is_some() { Relation::Same } else { Relation::Unknown };
    assert_eq!(me.is_same(&again), same);
    let with = |change: fn(&mut Identity)| {
        let mut changed = again.clone();
        change(&mut changed.0);
        let is_same = me.is_same(&changed);
        assert_eq!(is_same, changed.is_same(&me), "{changed:?}");
        is_same
    };
    let without_number = |process: &mut Identity| process.number = None;
    if me.0.boot_id.is_some() {
        assert_eq!(with(without_number), Relation::Same);
        let later = |process: &mut Identity| {
            process.number = None;
            process.start_time.as_mut().unwrap().value += 1;
        };
        assert_eq!(with(later), Relation::Different);
    }
    let of_other_boot = |process: &mut Identity| process.boot_id = Some("other".to_owned());
    assert_eq!(with(of_other_boot), Relation::Unknown);
    let of_other_host = |process: &mut Identity| process.host = Some("other".to_owned());
    let differs = if me.0.host.is_some() { Relation::Different } else { Relation::Same };
    assert_eq!(with(of_other_host), differs);
    let of_namespace = |process: &mut Identity| {
        (process.number, process.pid_ns) = (None, Some("1".to_owned()));
    };
    assert_eq!(with(of_namespace), Relation::Unknown);
    // Two that were made where nobody could see the namespace.
    let nowhere = |pid: u32| {
        let mut process = me.clone();
        (process.0.pid, process.0.number, process.0.pid_ns) = (pid, None, None);
        process
    };
    if me.start_time().is_some_and(|time| time.unit == StartTimeUnit::Ticks) {
        assert_eq!(nowhere(7).is_same(&nowhere(8)), Relation::Unknown);
        assert_eq!(nowhere(7).is_same(&nowhere(7)), Relation::Unknown);
    }
    let timeless = |process: &mut Identity| {
        (process.number, process.start_time) = (None, None);
    };
    assert_eq!(with(timeless), Relation::Unknown);
}

/// Asked from many threads and in any order, it is one text.
#[test]
fn the_reference_of_this_process_is_one_text() {
    let ask = || std::thread::spawn(|| ProcessRef::current().unwrap().to_string());
    let texts: Vec<_> = (0..8).map(|_| ask()).collect();
    let texts: Vec<String> = texts.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert_eq!(texts[0].parse::<ProcessRef>().unwrap().pid(), std::process::id());
}
