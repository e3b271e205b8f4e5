-- 0010 counters and memory: how often gateways started, were refused, ended and were restarted, since
-- this store was made, and what each had in memory at its last heartbeat. History and starts are
-- pruned; a count is not, so a rate can be drawn from it. After a kill for want of memory the last
-- sample is the only witness.
--
-- Start with
--     SELECT profile, reason, exit_code, count FROM counters WHERE name = 'ends' ORDER BY count DESC;
--     SELECT i.profile, i.pid, i.end_reason, r.memory_bytes / 1048576 AS mib
--     FROM instances AS i JOIN runtime_status AS r ON r.instance_id = i.id ORDER BY i.id DESC;
--
-- The counters are written by triggers, so that programs of before this migration are counted, too.
-- They begin with what the history still knows (0010_history_counted.sql, a part of this migration).
--
-- No start fails by them: a count that no program writes goes on as one that some program could have
-- written, and a row without names, or without a reason, is not counted.
--
-- What older programs still see: everything of 0001 to 0009, and one more column of the view
-- incarnations; they may go on writing. A restart within an older `run` is not counted. A heartbeat of
-- an older program leaves the memory as it is; what else it says of its status sets the memory to
-- NULL, until the next heartbeat.

CREATE TABLE counters (
    profile   TEXT NOT NULL,
    kind      TEXT NOT NULL,
    name      TEXT NOT NULL,      -- starts, refusals, ends, restarts
    -- Of ends: why, and the exit code as a shell says it (128 + n for signal n; '' where it is not
    -- known). Empty for all others.
    reason    TEXT NOT NULL DEFAULT '',
    exit_code TEXT NOT NULL DEFAULT '',
    count     INTEGER NOT NULL CHECK (count > 0),
    PRIMARY KEY (profile, kind, name, reason, exit_code)
) STRICT, WITHOUT ROWID;

-- How often a `run` has started its command again within this tenure. NULL: it has no command, or an
-- older program wrote the row; of a `run` that went on in a new store also until the next restart,
-- which is counted as the first.
ALTER TABLE instances ADD COLUMN restarts INTEGER CHECK (restarts >= 0);
-- Since when the command of a `run` has been running: Unix milliseconds, and the boot clock.
ALTER TABLE instances ADD COLUMN command_since_at_ms INTEGER;
ALTER TABLE instances ADD COLUMN command_since_boot_ms INTEGER;

-- The resident memory of the process, of the command where it is a `run`, in bytes. NULL: it gave no
-- heartbeat, an older program wrote it, or it could not be seen.
ALTER TABLE runtime_status ADD COLUMN memory_bytes INTEGER CHECK (memory_bytes >= 0);

CREATE TRIGGER count_start AFTER INSERT ON starts
BEGIN
    INSERT INTO counters (profile, kind, name, count)
    VALUES (NEW.profile, NEW.kind, iif(NEW.outcome = 'granted', 'starts', 'refusals'), 1)
    ON CONFLICT (profile, kind, name, reason, exit_code)
    DO UPDATE SET count = min(max(ifnull(count, 0), 0), 9007199254740991) + 1;
END;

CREATE TRIGGER count_end AFTER UPDATE OF ended_at_ms ON instances
WHEN OLD.ended_at_ms IS NULL AND NEW.ended_at_ms IS NOT NULL
 AND NEW.profile IS NOT NULL AND NEW.kind IS NOT NULL AND NEW.end_reason IS NOT NULL
BEGIN
    INSERT INTO counters (profile, kind, name, reason, exit_code, count)
    VALUES (NEW.profile, NEW.kind, 'ends', NEW.end_reason,
            coalesce(CAST(coalesce(NEW.exit_code, 128 + NEW.signal) AS TEXT), ''), 1)
    ON CONFLICT (profile, kind, name, reason, exit_code)
    DO UPDATE SET count = min(max(ifnull(count, 0), 0), 9007199254740991) + 1;
END;

CREATE TRIGGER count_restart AFTER UPDATE OF restarts ON instances
WHEN NEW.restarts > coalesce(OLD.restarts, 0)
 AND NEW.profile IS NOT NULL AND NEW.kind IS NOT NULL
BEGIN
    INSERT INTO counters (profile, kind, name, count)
    VALUES (NEW.profile, NEW.kind, 'restarts', 1)
    ON CONFLICT (profile, kind, name, reason, exit_code)
    DO UPDATE SET count = min(max(ifnull(count, 0), 0), 9007199254740991) + 1;
END;

-- Which lock a start was refused for, by whoever held it: asked for every office that is down.
CREATE INDEX lock_conflicts_of_holder ON lock_conflicts (holder_id, profile, last_at_ms);

-- How it ended, in a few words, as `history` and `status` say it: a crash is told from a success, which
-- end_reason alone does not do. Signals have the numbers of Linux.
DROP VIEW incarnations;
CREATE VIEW incarnations AS
WITH signals (number, name) AS (
    VALUES (1, 'SIGHUP'), (2, 'SIGINT'), (3, 'SIGQUIT'), (4, 'SIGILL'), (5, 'SIGTRAP'),
           (6, 'SIGABRT'), (7, 'SIGBUS'), (8, 'SIGFPE'), (9, 'SIGKILL'), (10, 'SIGUSR1'),
           (11, 'SIGSEGV'), (12, 'SIGUSR2'), (13, 'SIGPIPE'), (14, 'SIGALRM'), (15, 'SIGTERM'),
           (17, 'SIGCHLD'), (18, 'SIGCONT'), (19, 'SIGSTOP'), (20, 'SIGTSTP'), (21, 'SIGTTIN'),
           (22, 'SIGTTOU'), (23, 'SIGURG'), (24, 'SIGXCPU'), (25, 'SIGXFSZ'), (26, 'SIGVTALRM'),
           (27, 'SIGPROF'), (28, 'SIGWINCH'), (29, 'SIGIO'), (31, 'SIGSYS')
),
ends AS (
    SELECT *,
           coalesce((SELECT name FROM signals WHERE number = signal), 'signal#' || signal) AS by_signal,
           'exit code ' || exit_code || CASE
               WHEN exit_code = 126 THEN ' (the command cannot be executed)'
               WHEN exit_code = 127 THEN ' (command not found)'
               WHEN exit_code BETWEEN 129 AND 159 THEN ' (as after ' || coalesce(
                   (SELECT name FROM signals WHERE number = exit_code - 128),
                   'signal#' || (exit_code - 128)) || ')'
               ELSE '' END AS with_code
    FROM instances WHERE kind IS NOT NULL
),
told AS (
    SELECT *,
           CASE WHEN exit_code <> 0 THEN ', ' || with_code ELSE '' END AS and_code,
           CASE WHEN signal = 9 THEN ', with SIGKILL'
                WHEN exit_code <> 0 THEN ', ' || with_code
                ELSE '' END AS and_how,
           -- What the kernel said of it, if anybody heard.
           CASE WHEN exit_code = 0 THEN 'ended: exit code 0'
                WHEN exit_code IS NOT NULL THEN 'crashed: ' || with_code
                WHEN signal = 9 THEN 'killed: SIGKILL'
                WHEN signal IN (4, 5, 6, 7, 8, 11, 24, 25, 31) THEN 'crashed: ' || by_signal
                ELSE 'ended by ' || by_signal END AS seen
    FROM ends
)
SELECT id AS instance, profile, kind, pid,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at_ms / 1000.0, 'unixepoch') AS started,
       strftime('%Y-%m-%dT%H:%M:%fZ', ended_at_ms / 1000.0, 'unixepoch') AS ended,
       round((ended_at_ms - started_at_ms) / 1000.0, 3) AS lasted_s,
       end_reason, ended_by, exit_code, signal, detail,
       CASE end_reason
           WHEN 'oom_suspected' THEN 'killed: ' || coalesce(by_signal, 'SIGKILL') || ', out of memory'
           WHEN 'panicked' THEN 'crashed: panic' || and_code
           WHEN 'crashed' THEN 'crashed' || coalesce(': ' || by_signal, ': ' || with_code, '')
           WHEN 'planned_stop' THEN 'stopped on purpose' || and_how
           WHEN 'taken_over' THEN 'taken over' || and_how
           WHEN 'released' THEN CASE
                WHEN exit_code <> 0 THEN 'crashed: ' || with_code ELSE 'released' END
           WHEN 'evicted' THEN 'its record was ended by hand'
           WHEN 're_executed' THEN 'became another program'
           WHEN 'handed_over' THEN 'handed over to its successor'
           WHEN 'store_replaced' THEN 'its store was deleted or replaced'
           WHEN 'rebooted' THEN 'the machine was restarted'
           WHEN 'signalled' THEN CASE
               WHEN signal IS NULL THEN 'ended by a signal' || and_code
               WHEN signal = 9 AND exit_code IS NULL THEN 'killed: SIGKILL'
               ELSE 'ended by ' || by_signal || coalesce(', ' || with_code, '') END
           WHEN 'exited' THEN coalesce(seen, 'ended')
           WHEN 'anchor_released' THEN coalesce(seen, 'killed or crashed')
           WHEN 'no_such_process' THEN coalesce(seen, 'killed or crashed')
           WHEN 'zombie' THEN coalesce(seen, 'killed or crashed')
           WHEN 'pid_reused' THEN coalesce(seen, 'killed or crashed')
           WHEN 'identity_mismatch' THEN coalesce(seen, 'killed or crashed')
           ELSE replace(end_reason, '_', ' ') END AS summary
FROM told
ORDER BY id DESC;
