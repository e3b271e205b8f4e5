//! The decision table, written a second time as data and compared over the whole product.

use super::*;

const ANCHORS: [AnchorState; 5] = [
    AnchorState::Held,
    AnchorState::Free,
    AnchorState::Missing,
    AnchorState::Unreadable,
    AnchorState::None,
];
const RELATIONS: [Relation; 3] = [Relation::Same, Relation::Different, Relation::Unknown];
const TABLES: [ProcessTable; 2] = [ProcessTable::Ours, ProcessTable::Foreign];
const PRESENCES: [Presence; 3] = [Presence::Present, Presence::Gone, Presence::Unknown];
const START_TIMES: [StartTimeMatch; 3] =
    [StartTimeMatch::Equal, StartTimeMatch::Different, StartTimeMatch::Unknown];
const RUN_STATES: [RunState; 4] =
    [RunState::Running, RunState::Stopped, RunState::Zombie, RunState::Unknown];
const COMMAND_LINES: [CommandLineMatch; 4] = [
    CommandLineMatch::Match,
    CommandLineMatch::Mismatch,
    CommandLineMatch::Unreadable,
    CommandLineMatch::NotRead,
];
const CHILDREN: [ChildState; 4] =
    [ChildState::None, ChildState::Alive, ChildState::Gone, ChildState::Unknown];
const KEEPERS: [Keeper; 2] = [Keeper::None, Keeper::Recorded];
const LEASES: [Lease; 3] = [Lease::None, Lease::Current, Lease::Expired];

fn for_each_evidence(mut visit: impl FnMut(Evidence)) {
    for anchor in ANCHORS {
        for host in RELATIONS {
            for boot in RELATIONS {
                for namespace in RELATIONS {
                    for process_table in TABLES {
                        let machine = Evidence {
                            anchor,
                            host,
                            boot,
                            namespace,
                            process_table,
                            ..Evidence::nothing_seen()
                        };
                        for_each_process(machine, &mut visit);
                    }
                }
            }
        }
    }
}

fn for_each_process(machine: Evidence, visit: &mut impl FnMut(Evidence)) {
    for process in PRESENCES {
        for start_time in START_TIMES {
            for process_state in RUN_STATES {
                for uid in RELATIONS {
                    for command_line in COMMAND_LINES {
                        let seen = Evidence {
                            process,
                            start_time,
                            process_state,
                            uid,
                            command_line,
                            ..machine
                        };
                        for child in CHILDREN {
                            for keeper in KEEPERS {
                                for lease in LEASES {
                                    visit(Evidence { child, keeper, lease, ..seen });
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

type Condition = fn(&Evidence) -> bool;
type Outcome = fn(&Evidence) -> Verdict;

fn gone(seen: &Evidence) -> bool {
    seen.process == Presence::Gone || seen.start_time == StartTimeMatch::Different
}

fn gone_because(seen: &Evidence) -> Verdict {
    Verdict::Dead(if seen.process != Presence::Gone {
        DeadReason::PidReused
    } else if seen.process_state == RunState::Zombie {
        DeadReason::Zombie
    } else {
        DeadReason::NoSuchProcess
    })
}

fn no_anchor(seen: &Evidence) -> bool {
    matches!(seen.anchor, AnchorState::Missing | AnchorState::None)
}

fn unless_expired(seen: &Evidence, verdict: Verdict) -> Verdict {
    if seen.lease == Lease::Expired { Verdict::Dead(DeadReason::LeaseExpired) } else { verdict }
}

/// The rules of the design, one line each, first match wins.
const RULES: [(u8, Condition, Outcome); 14] = [
    (
        1,
        |e| e.anchor == AnchorState::Free && e.is_here() && e.child == ChildState::Alive,
        |_| Verdict::Alive(AliveReason::ChildLives),
    ),
    (
        2,
        |e| {
            e.anchor == AnchorState::Free
                && e.is_here()
                && e.keeper == Keeper::Recorded
                && e.process == Presence::Present
                && e.start_time == StartTimeMatch::Equal
        },
        |_| Verdict::Alive(AliveReason::StartTimeMatches),
    ),
    (
        3,
        |e| e.anchor == AnchorState::Free,
        |e| {
            Verdict::Dead(if e.boot == Relation::Different {
                DeadReason::Rebooted
            } else {
                DeadReason::AnchorReleased
            })
        },
    ),
    (
        4,
        |e| {
            e.anchor == AnchorState::Held
                && e.is_here()
                && gone(e)
                && matches!(e.child, ChildState::None | ChildState::Gone)
        },
        gone_because,
    ),
    (5, |e| e.anchor == AnchorState::Held, |_| Verdict::Alive(AliveReason::AnchorHeld)),
    (
        6,
        |e| e.host == Relation::Same && e.boot == Relation::Different,
        |_| Verdict::Dead(DeadReason::Rebooted),
    ),
    (
        7,
        |e| !e.is_here(),
        |e| {
            if e.lease == Lease::Expired && e.boot == Relation::Same {
                Verdict::Dead(DeadReason::LeaseExpired)
            } else {
                Verdict::Unknown(UnknownReason::ForeignNamespace)
            }
        },
    ),
    (8, |e| e.process == Presence::Gone, gone_because),
    (9, |e| e.start_time == StartTimeMatch::Different, |_| Verdict::Dead(DeadReason::PidReused)),
    (
        10,
        |e| e.start_time == StartTimeMatch::Equal,
        |e| unless_expired(e, Verdict::Alive(AliveReason::StartTimeMatches)),
    ),
    (
        11,
        |e| no_anchor(e) && e.uid == Relation::Different,
        |_| Verdict::Dead(DeadReason::PidReused),
    ),
    (
        12,
        |e| e.command_line == CommandLineMatch::Match,
        |e| unless_expired(e, Verdict::Alive(AliveReason::CommandLineMatches)),
    ),
    (
        13,
        |e| no_anchor(e) && e.command_line == CommandLineMatch::Mismatch,
        |_| Verdict::Dead(DeadReason::IdentityMismatch),
    ),
    (14, |_| true, |e| unless_expired(e, Verdict::Unknown(UnknownReason::NotVerifiable))),
];

#[test]
fn judge_follows_the_table_over_the_whole_product() {
    let mut matched = [0_u64; 15];
    for_each_evidence(|seen| {
        let (number, _, outcome) = RULES.iter().find(|(_, condition, _)| condition(&seen)).unwrap();
        matched[usize::from(*number)] += 1;
        assert_eq!(judge(seen).verdict, outcome(&seen), "rule {number}: {seen:?}");
    });
    for (number, count) in matched.iter().enumerate().skip(1) {
        assert!(*count > 0, "rule {number} never matched");
    }
}

/// Invariants 1 and 3, whatever the rules say.
#[test]
fn unknown_is_never_dead_and_a_held_anchor_needs_proof() {
    for_each_evidence(|seen| {
        let judged = judge(seen);
        let dead = matches!(judged.verdict, Verdict::Dead(_));
        if seen.anchor == AnchorState::Held && dead {
            assert!(judged.flags.anchor_leaked && seen.is_here() && gone(&seen), "{seen:?}");
        }
        let blind = matches!(seen.anchor, AnchorState::Unreadable)
            && seen.boot != Relation::Different
            && seen.process != Presence::Gone
            && seen.start_time != StartTimeMatch::Different
            && seen.lease != Lease::Expired;
        if blind {
            assert!(!dead, "nobody is evicted because we could not look: {seen:?}");
        }
        if !seen.is_here()
            && no_anchor(&seen)
            && seen.boot != Relation::Different
            && seen.lease != Lease::Expired
        {
            assert!(!dead, "a pid of another namespace was judged: {seen:?}");
        }
        if judged.flags.stopped {
            assert!(!dead, "stopped is not dead: {seen:?}");
        }
    });
}

/// FIELD-BUGS rows 7 to 15, 19, 20, 24 to 26, 69: one line of the table for each story.
#[test]
#[allow(clippy::too_many_lines, reason = "a list of stories")]
fn stories_from_the_field() {
    let here = Evidence {
        host: Relation::Same,
        boot: Relation::Same,
        namespace: Relation::Same,
        process_table: ProcessTable::Ours,
        process: Presence::Present,
        start_time: StartTimeMatch::Equal,
        process_state: RunState::Running,
        uid: Relation::Same,
        ..Evidence::nothing_seen()
    };
    let check = |story: &str, seen: Evidence, verdict: Verdict, flags: &[&str]| {
        let judged = judge(seen);
        assert_eq!(judged.verdict, verdict, "{story}");
        assert_eq!(judged.flags.names(), flags, "{story}");
    };
    let held = Evidence { anchor: AnchorState::Held, ..here };
    let alive = Verdict::Alive(AliveReason::AnchorHeld);
    check("a healthy owner", held, alive, &[]);
    check(
        "20: stopped by Ctrl-Z",
        Evidence { process_state: RunState::Stopped, ..held },
        alive,
        &["stopped"],
    );
    check(
        "15: wrapped or renamed",
        Evidence { command_line: CommandLineMatch::Mismatch, ..held },
        alive,
        &["command_line_changed"],
    );
    check(
        "25, 26: seen from another pid namespace, where the pid is nobody",
        Evidence {
            namespace: Relation::Different,
            process: Presence::Gone,
            start_time: StartTimeMatch::Unknown,
            ..held
        },
        alive,
        &["elsewhere"],
    );
    check(
        "69: a forked child keeps the descriptor",
        Evidence { process: Presence::Gone, start_time: StartTimeMatch::Unknown, ..held },
        Verdict::Dead(DeadReason::NoSuchProcess),
        &["anchor_leaked"],
    );
    check(
        "1, 24: killed, and its pid is ours now",
        Evidence { anchor: AnchorState::Free, ..here },
        Verdict::Dead(DeadReason::AnchorReleased),
        &[],
    );
    check(
        "10: the same pid and ticks after a reboot",
        Evidence { boot: Relation::Different, ..here },
        Verdict::Dead(DeadReason::Rebooted),
        &[],
    );
    check(
        "6: a record copied from another machine",
        Evidence { host: Relation::Different, boot: Relation::Different, ..here },
        Verdict::Unknown(UnknownReason::ForeignNamespace),
        &[],
    );
    let no_start =
        Evidence { anchor: AnchorState::Missing, start_time: StartTimeMatch::Unknown, ..here };
    check(
        "7, 8: no start time, and the pid belongs to an unrelated process",
        Evidence { command_line: CommandLineMatch::Mismatch, ..no_start },
        Verdict::Dead(DeadReason::IdentityMismatch),
        &[],
    );
    check(
        "8: no start time and no command line to compare",
        Evidence { command_line: CommandLineMatch::Unreadable, ..no_start },
        Verdict::Unknown(UnknownReason::NotVerifiable),
        &[],
    );
    check(
        "11: the pid is another user's now",
        Evidence { uid: Relation::Different, ..no_start },
        Verdict::Dead(DeadReason::PidReused),
        &[],
    );
    check(
        "34: an anchor that we may not open is not free",
        Evidence {
            anchor: AnchorState::Unreadable,
            uid: Relation::Different,
            command_line: CommandLineMatch::Mismatch,
            ..no_start
        },
        Verdict::Unknown(UnknownReason::NotVerifiable),
        &[],
    );
    check(
        "19: a zombie has dropped its anchor already; without one it is still a zombie",
        Evidence {
            anchor: AnchorState::None,
            process: Presence::Gone,
            process_state: RunState::Zombie,
            ..here
        },
        Verdict::Dead(DeadReason::Zombie),
        &[],
    );
    check(
        "a process whose main thread has ended shows Z and lives",
        Evidence { anchor: AnchorState::None, process_state: RunState::Zombie, ..here },
        Verdict::Alive(AliveReason::StartTimeMatches),
        &[],
    );
    check(
        "22: an expired lease evicts nobody whose anchor is held",
        Evidence { lease: Lease::Expired, ..held },
        alive,
        &["lease_overdue"],
    );
}
