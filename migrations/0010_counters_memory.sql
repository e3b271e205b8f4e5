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
-- What older programs still see: everything of 0001 to 0009, unchanged, and they may go on writing. A
-- restart within an older `run` is not counted. A heartbeat of an older program leaves the memory as
-- it is; what else it says of its status sets the memory to NULL, until the next heartbeat.

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
