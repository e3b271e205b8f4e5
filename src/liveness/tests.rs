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
const BOOTS: [Boot; 3] = [Boot::Same, Boot::Rebooted, Boot::Unknown];
/// Whether the recorded pids can be looked up, and how their namespace relates to ours.
const TABLES: [(Table, Relation); 4] = [
    (Table::Visible, Relation::Same),
    (Table::NotVisible, Relation::Different),
    (Table::NotVisible, Relation::Same),
    (Table::NotVisible, Relation::Unknown),
];
const PRESENCES: [Presence; 3] = [Presence::Present, Presence::Gone, Presence::Unknown];
const MATCHES: [StartTimeMatch; 3] =
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
const KEEPERS: [Keeper; 3] = [Keeper::None, Keeper::Recorded, Keeper::EndedAlone];
const LEASES: [Lease; 3] = [Lease::None, Lease::Current, Lease::Expired];
const WRITERS: [Writer; 2] = [Writer::Older, Writer::Current];

/// Everything that the verdict depends on; the host counts as the namespace does.
fn for_each_evidence(mut visit: impl FnMut(Evidence)) {
    for anchor in ANCHORS {
        for boot in BOOTS {
            for (table, namespace) in TABLES {
                for child in CHILDREN {
                    for keeper in KEEPERS {
                        for lease in LEASES {
                            for writer in WRITERS {
                                let owner = Evidence {
                                    anchor,
                                    boot,
                                    namespace,
                                    table,
                                    child,
                                    keeper,
                                    lease,
                                    writer,
                                    ..Evidence::nothing_seen()
                                };
                                for_each_process(owner, &mut visit);
                            }
                        }
                    }
                }
            }
        }
    }
}

fn for_each_process(owner: Evidence, visit: &mut impl FnMut(Evidence)) {
    for process in PRESENCES {
        for start_time in MATCHES {
            for process_id in MATCHES {
                for process_state in RUN_STATES {
                    for uid in RELATIONS {
                        for command_line in COMMAND_LINES {
                            visit(Evidence {
                                process,
                                start_time,
                                process_id,
                                process_state,
                                uid,
                                command_line,
                                ..owner
                            });
                        }
                    }
                }
            }
        }
    }
}

type Condition = fn(&Evidence) -> bool;
type Outcome = fn(&Evidence) -> Ruling;

/// Whether the process that is there is the recorded one: by the kernel's number where it is known.
fn is_it(seen: &Evidence) -> StartTimeMatch {
    if seen.process_id == StartTimeMatch::Unknown { seen.start_time } else { seen.process_id }
}

fn gone(seen: &Evidence) -> bool {
    let is_another = seen.process == Presence::Present && is_it(seen) == StartTimeMatch::Different;
    seen.boot == Boot::Rebooted
        || seen.table == Table::Visible && (seen.process == Presence::Gone || is_another)
}

fn lives(seen: &Evidence) -> bool {
    seen.is_here() && seen.process == Presence::Present && is_it(seen) == StartTimeMatch::Equal
}

fn gone_because(seen: &Evidence) -> Ruling {
    Ruling::Dead(if seen.boot == Boot::Rebooted {
        DeadReason::Rebooted
    } else if seen.process != Presence::Gone {
        DeadReason::PidReused
    } else if seen.process_state == RunState::Zombie {
        DeadReason::Zombie
    } else {
        DeadReason::NoSuchProcess
    })
}

fn released(seen: &Evidence) -> Ruling {
    Ruling::Dead(if seen.boot == Boot::Rebooted {
        DeadReason::Rebooted
    } else {
        DeadReason::AnchorReleased
    })
}

fn is_held(seen: &Evidence) -> bool {
    seen.anchor == AnchorState::Held
}

fn is_free(seen: &Evidence) -> bool {
    seen.anchor == AnchorState::Free
}

fn is_elsewhere(seen: &Evidence) -> bool {
    seen.table == Table::NotVisible && seen.namespace == Relation::Different
}

fn unknown_start(seen: &Evidence) -> bool {
    seen.start_time == StartTimeMatch::Unknown
}

fn no_anchor(seen: &Evidence) -> bool {
    matches!(seen.anchor, AnchorState::Missing | AnchorState::None)
}

fn unless_expired(seen: &Evidence, verdict: Ruling) -> Ruling {
    if seen.lease == Lease::Expired { Ruling::Dead(DeadReason::LeaseExpired) } else { verdict }
}

const NOT_VERIFIABLE: Ruling = Ruling::Unknown(UnknownReason::NotVerifiable);
const FOREIGN: Ruling = Ruling::Unknown(UnknownReason::ForeignNamespace);
const STARTED_THEN: Ruling = Ruling::Alive(AliveReason::StartTimeMatches);

/// The rules of the design, one line each, first match wins.
const RULES: [(u8, Condition, Outcome); 17] = [
    (
        1,
        |e| !is_held(e) && e.child == ChildState::Alive,
        |_| Ruling::Alive(AliveReason::ChildLives),
    ),
    (
        2,
        |e| is_held(e) && gone(e) && matches!(e.child, ChildState::None | ChildState::Gone),
        gone_because,
    ),
    (3, is_held, |_| Ruling::Alive(AliveReason::AnchorHeld)),
    (
        4,
        |e| {
            let of_older = e.writer == Writer::Older && is_free(e) && is_elsewhere(e);
            e.child == ChildState::Unknown && of_older
        },
        released,
    ),
    (
        4,
        |e| e.child == ChildState::Unknown,
        |e| unless_expired(e, if e.table == Table::Visible { NOT_VERIFIABLE } else { FOREIGN }),
    ),
    (5, |e| is_free(e) && e.keeper == Keeper::None, released),
    (6, |e| is_free(e) && lives(e), |_| STARTED_THEN),
    (7, |e| is_free(e) && gone(e), released),
    (8, |e| is_free(e) && is_elsewhere(e) && e.keeper != Keeper::EndedAlone, released),
    (9, is_free, |e| unless_expired(e, NOT_VERIFIABLE)),
    (10, lives, |e| unless_expired(e, STARTED_THEN)),
    (11, gone, gone_because),
    (
        12,
        |e| e.table == Table::NotVisible,
        |e| if e.boot == Boot::Same { unless_expired(e, FOREIGN) } else { FOREIGN },
    ),
    (
        13,
        |e| no_anchor(e) && unknown_start(e) && e.uid == Relation::Different,
        |_| Ruling::Dead(DeadReason::PidReused),
    ),
    (
        14,
        |e| unknown_start(e) && e.command_line == CommandLineMatch::Match,
        |e| unless_expired(e, Ruling::Alive(AliveReason::CommandLineMatches)),
    ),
    (
        15,
        |e| no_anchor(e) && unknown_start(e) && e.command_line == CommandLineMatch::Mismatch,
        |_| Ruling::Dead(DeadReason::IdentityMismatch),
    ),
    (16, |_| true, |e| unless_expired(e, NOT_VERIFIABLE)),
];

#[test]
fn judge_follows_the_table_over_the_whole_product() {
    let mut matched = [0_u64; 17];
    for_each_evidence(|seen| {
        let (number, _, outcome) = RULES.iter().find(|(_, condition, _)| condition(&seen)).unwrap();
        matched[usize::from(*number)] += 1;
        assert_eq!(judge(seen).ruling, outcome(&seen), "rule {number}: {seen:?}");
    });
    for (number, count) in matched.iter().enumerate().skip(1) {
        assert!(*count > 0, "rule {number} never matched");
    }
}

/// Invariants 1 and 3, whatever the rules say (FIELD-BUGS rows 91 to 94).
#[test]
fn unknown_is_never_dead_and_a_held_anchor_needs_proof() {
    for_each_evidence(|seen| {
        let judged = judge(seen);
        let dead = matches!(judged.ruling, Ruling::Dead(_));
        if is_held(&seen) && dead {
            assert!(gone(&seen), "{seen:?}");
            assert_eq!(judged.flags.anchor_leaked, seen.keeper == Keeper::None, "{seen:?}");
        }
        // A lease that ran out takes the lock alone; a row of version 0.1 cannot say more.
        let excused = seen.lease == Lease::Expired || seen.writer == Writer::Older;
        let child_may_live = matches!(seen.child, ChildState::Alive | ChildState::Unknown);
        if child_may_live && !excused {
            assert!(!dead, "the command may live: {seen:?}");
        }
        let may_live_unseen = seen.keeper != Keeper::None || child_may_live;
        let hidden = seen.table == Table::NotVisible && !is_elsewhere(&seen) && !gone(&seen);
        if hidden && may_live_unseen && seen.lease != Lease::Expired {
            assert!(!dead, "our own namespace cannot be seen, which proves nothing: {seen:?}");
        }
        let blind = seen.anchor == AnchorState::Unreadable && !gone(&seen);
        if blind && seen.lease != Lease::Expired {
            assert!(!dead, "nobody is evicted because we could not look: {seen:?}");
        }
        let means_nothing = seen.table == Table::NotVisible && no_anchor(&seen) && !gone(&seen);
        if means_nothing && seen.lease != Lease::Expired {
            assert!(!dead, "a pid of another namespace was judged: {seen:?}");
        }
        if seen.boot == Boot::Unknown {
            assert_ne!(
                judged.ruling,
                Ruling::Dead(DeadReason::Rebooted),
                "doubt about the boot proves nothing"
            );
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
        boot: Boot::Same,
        namespace: Relation::Same,
        table: Table::Visible,
        process: Presence::Present,
        start_time: StartTimeMatch::Equal,
        process_state: RunState::Running,
        uid: Relation::Same,
        ..Evidence::nothing_seen()
    };
    let check = |story: &str, seen: Evidence, verdict: Ruling, flags: &[&str]| {
        let judged = judge(seen);
        assert_eq!(judged.ruling, verdict, "{story}");
        assert_eq!(judged.flags.names(), flags, "{story}");
    };
    let held = Evidence { anchor: AnchorState::Held, ..here };
    let alive = Ruling::Alive(AliveReason::AnchorHeld);
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
            table: Table::NotVisible,
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
        Ruling::Dead(DeadReason::NoSuchProcess),
        &["anchor_leaked"],
    );
    check(
        "1, 24: killed, and its pid is ours now",
        Evidence { anchor: AnchorState::Free, ..here },
        Ruling::Dead(DeadReason::AnchorReleased),
        &[],
    );
    check(
        "10: the same pid and ticks after a reboot",
        Evidence { boot: Boot::Rebooted, ..here },
        Ruling::Dead(DeadReason::Rebooted),
        &[],
    );
    check(
        "91: a service sees another boot id than its neighbours",
        Evidence { boot: Boot::Unknown, ..here },
        Ruling::Alive(AliveReason::StartTimeMatches),
        &[],
    );
    check(
        "91: the command of a killed run lives, and the boot id is hidden",
        Evidence {
            anchor: AnchorState::Free,
            boot: Boot::Unknown,
            process: Presence::Gone,
            child: ChildState::Alive,
            ..here
        },
        Ruling::Alive(AliveReason::ChildLives),
        &[],
    );
    check(
        "92: whether the command of a killed run lives cannot be seen",
        Evidence {
            anchor: AnchorState::Free,
            process: Presence::Gone,
            child: ChildState::Unknown,
            ..here
        },
        Ruling::Unknown(UnknownReason::NotVerifiable),
        &[],
    );
    check(
        "93: the anchor's file is gone, its run is dead, and the command lives",
        Evidence {
            anchor: AnchorState::Missing,
            process: Presence::Gone,
            child: ChildState::Alive,
            ..here
        },
        Ruling::Alive(AliveReason::ChildLives),
        &[],
    );
    check(
        "the kernel's number decides before the start time",
        Evidence { process_id: StartTimeMatch::Different, ..here },
        Ruling::Dead(DeadReason::PidReused),
        &[],
    );
    check(
        "6: a record copied from another machine",
        Evidence {
            host: Relation::Different,
            boot: Boot::Unknown,
            table: Table::NotVisible,
            ..here
        },
        Ruling::Unknown(UnknownReason::ForeignNamespace),
        &[],
    );
    let no_start =
        Evidence { anchor: AnchorState::Missing, start_time: StartTimeMatch::Unknown, ..here };
    check(
        "7, 8: no start time, and the pid belongs to an unrelated process",
        Evidence { command_line: CommandLineMatch::Mismatch, ..no_start },
        Ruling::Dead(DeadReason::IdentityMismatch),
        &[],
    );
    check(
        "8: no start time and no command line to compare",
        Evidence { command_line: CommandLineMatch::Unreadable, ..no_start },
        Ruling::Unknown(UnknownReason::NotVerifiable),
        &[],
    );
    check(
        "11: the pid is another user's now",
        Evidence { uid: Relation::Different, ..no_start },
        Ruling::Dead(DeadReason::PidReused),
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
        Ruling::Unknown(UnknownReason::NotVerifiable),
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
        Ruling::Dead(DeadReason::Zombie),
        &[],
    );
    check(
        "a process whose main thread has ended shows Z and lives",
        Evidence { anchor: AnchorState::None, process_state: RunState::Zombie, ..here },
        Ruling::Alive(AliveReason::StartTimeMatches),
        &[],
    );
    check(
        "22: an expired lease evicts nobody whose anchor is held",
        Evidence { lease: Lease::Expired, ..held },
        alive,
        &["lease_overdue"],
    );
}
