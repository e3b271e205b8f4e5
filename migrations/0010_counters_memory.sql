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
--
-- What older programs still see: everything of 0001 to 0009, unchanged, and they may go on writing. A
-- restart within an older `run` is not counted, and a heartbeat of an older program leaves the memory
-- as it is.

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

-- How often a `run` has started its command again within this tenure. NULL: it has none, an older
-- program wrote the row, or the store was replaced meanwhile.
ALTER TABLE instances ADD COLUMN restarts INTEGER CHECK (restarts >= 0);
-- Since when the command of a `run` has been running: Unix milliseconds, and the boot clock.
ALTER TABLE instances ADD COLUMN command_since_at_ms INTEGER;
ALTER TABLE instances ADD COLUMN command_since_boot_ms INTEGER;

-- The resident memory of the process, of the command where it is a `run`, in bytes. NULL: it gave no
-- heartbeat, an older program wrote it, or it could not be seen.
ALTER TABLE runtime_status ADD COLUMN memory_bytes INTEGER CHECK (memory_bytes >= 0);

-- What the history still knows.
INSERT INTO counters (profile, kind, name, count)
SELECT profile, kind, iif(outcome = 'granted', 'starts', 'refusals'), count(*)
FROM starts GROUP BY 1, 2, 3;
INSERT INTO counters (profile, kind, name, reason, exit_code, count)
SELECT profile, kind, 'ends', end_reason,
       coalesce(CAST(coalesce(exit_code, 128 + signal) AS TEXT), ''), count(*)
FROM instances WHERE ended_at_ms IS NOT NULL AND kind IS NOT NULL GROUP BY 1, 2, 3, 4, 5;

CREATE TRIGGER count_start AFTER INSERT ON starts
BEGIN
    INSERT INTO counters (profile, kind, name, count)
    VALUES (NEW.profile, NEW.kind, iif(NEW.outcome = 'granted', 'starts', 'refusals'), 1)
    ON CONFLICT (profile, kind, name, reason, exit_code) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER count_end AFTER UPDATE OF ended_at_ms ON instances
WHEN OLD.ended_at_ms IS NULL AND NEW.ended_at_ms IS NOT NULL AND NEW.kind IS NOT NULL
BEGIN
    INSERT INTO counters (profile, kind, name, reason, exit_code, count)
    VALUES (NEW.profile, NEW.kind, 'ends', NEW.end_reason,
            coalesce(CAST(coalesce(NEW.exit_code, 128 + NEW.signal) AS TEXT), ''), 1)
    ON CONFLICT (profile, kind, name, reason, exit_code) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER count_restart AFTER UPDATE OF restarts ON instances
WHEN NEW.restarts > coalesce(OLD.restarts, 0) AND NEW.kind IS NOT NULL
BEGIN
    INSERT INTO counters (profile, kind, name, count)
    VALUES (NEW.profile, NEW.kind, 'restarts', 1)
    ON CONFLICT (profile, kind, name, reason, exit_code) DO UPDATE SET count = count + 1;
END;

-- Which lock a start was refused for, by whoever held it: asked for every office that is down.
CREATE INDEX lock_conflicts_of_holder ON lock_conflicts (holder_id, profile, last_at_ms);
