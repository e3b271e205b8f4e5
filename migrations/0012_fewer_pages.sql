-- 0012 fewer pages: each change of a store writes fewer of its pages, and no question goes through
-- a whole table.
--
-- Start with
--     SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index';
--
-- What older programs still see: everything of 0001 to 0011, unchanged, and they may go on writing.
-- They name no index, and give the events no ids.

-- The ids of the events rise without AUTOINCREMENT as well: no program deletes the newest, and where
-- a person does, one that says so takes the next id. With it each event wrote a page of
-- sqlite_sequence, too.
DROP TRIGGER next_command_starts_fresh;
CREATE TABLE events_0012 (
    id            INTEGER PRIMARY KEY,
    at_ms         INTEGER NOT NULL,
    event         TEXT NOT NULL,
    profile       TEXT,
    kind          TEXT,
    instance_id   INTEGER,
    pid           INTEGER,
    detail        TEXT CHECK (detail IS NULL OR json_valid(detail))
) STRICT;
INSERT INTO events_0012 (id, at_ms, event, profile, kind, instance_id, pid, detail)
    SELECT id, at_ms, event, profile, kind, instance_id, pid, detail FROM events ORDER BY id;
DROP TABLE events;
ALTER TABLE events_0012 RENAME TO events;
CREATE TRIGGER newest_event_stays AFTER DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM events WHERE id > OLD.id)
BEGIN
    INSERT INTO events (id, at_ms, event, detail)
    VALUES (OLD.id + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 'events_lost',
            '{"count":null}');
END;

-- As in 0004.
CREATE TRIGGER next_command_starts_fresh AFTER UPDATE OF child_pid, child_start_time ON instances
WHEN OLD.child_pid IS NOT NULL
 AND (NEW.child_pid IS NOT OLD.child_pid OR NEW.child_start_time IS NOT OLD.child_start_time)
 AND (EXISTS (SELECT 1 FROM runtime_status WHERE instance_id = NEW.id)
   OR EXISTS (SELECT 1 FROM platform_status WHERE instance_id = NEW.id)
   OR EXISTS (SELECT 1 FROM serves WHERE instance_id = NEW.id))
BEGIN
    DELETE FROM runtime_status WHERE instance_id = NEW.id;
    DELETE FROM platform_status WHERE instance_id = NEW.id;
    DELETE FROM serves WHERE instance_id = NEW.id;
    UPDATE instances SET heartbeat_at_ms = NULL, heartbeat_every_ms = NULL WHERE id = NEW.id;
    INSERT INTO events (at_ms, event, profile, kind, instance_id, pid)
    VALUES (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 'status_reset',
            NEW.profile, NEW.kind, NEW.id, NEW.pid);
END;

-- One index of all anchors in place of one for the live rows and one for the ended: a row that ends
-- stays on its page.
CREATE INDEX rows_of_anchor ON instances (anchor, ended_at_ms);
DROP INDEX unended_anchors;
DROP INDEX ended_anchors;
-- Retention goes by instances_without_office.
DROP INDEX ids_without_office;

-- Who claims an office and waits, for that or for a lock: asked by every `status`.
CREATE INDEX waiters_for_office ON waiters (profile, kind);

-- How many rows were deleted that had not ended, or replaced, or given another anchor: hardly a
-- program does that, but a person may. Whoever remembers what was on record looks again then
-- (`rows_lost` in meta). INSERT OR REPLACE deletes without the trigger of a DELETE.
CREATE TRIGGER count_lost_row AFTER DELETE ON instances WHEN OLD.ended_at_ms IS NULL
BEGIN
    INSERT INTO meta (key, value) VALUES ('rows_lost', 1)
    ON CONFLICT (key) DO UPDATE SET value = value + 1;
END;
CREATE TRIGGER count_replaced_row BEFORE INSERT ON instances
WHEN EXISTS (SELECT 1 FROM instances WHERE id = NEW.id AND ended_at_ms IS NULL)
  OR NEW.ended_at_ms IS NULL AND NEW.kind IS NOT NULL AND EXISTS (
     SELECT 1 FROM instances
     WHERE profile = NEW.profile AND kind = NEW.kind AND ended_at_ms IS NULL)
BEGIN
    INSERT INTO meta (key, value) VALUES ('rows_lost', 1)
    ON CONFLICT (key) DO UPDATE SET value = value + 1;
END;
CREATE TRIGGER count_renamed_row AFTER UPDATE OF id, anchor ON instances
WHEN OLD.ended_at_ms IS NULL AND (NEW.id IS NOT OLD.id OR NEW.anchor IS NOT OLD.anchor)
BEGIN
    INSERT INTO meta (key, value) VALUES ('rows_lost', 1)
    ON CONFLICT (key) DO UPDATE SET value = value + 1;
END;
