-- 0004 runtime status: what a gateway says about itself. What is true of it is another question:
-- `incumbent status` asks the kernel; a row here says what was said last, and by whom.
--
-- Start with
--     SELECT * FROM reported_platforms;    -- what the live gateways say of their platforms
--     SELECT r.* FROM runtime_status AS r JOIN gateways AS g ON g.instance = r.instance_id;
--     SELECT at_ms, profile, detail FROM events WHERE event = 'platform_changed' ORDER BY id DESC;
--
-- Rows belong to one instance: the next one starts fresh, and what the earlier ones said stays for as
-- long as their rows in `instances` (of `serves` only the last one's). NULL: nothing was said, or it was
-- cleared.
--
-- What older programs still see: everything of 0001 to 0003, unchanged, and they may go on writing.

-- What an instance says of itself.
CREATE TABLE runtime_status (
    instance_id       INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    -- starting, running, draining, degraded, stopped, startup_failed, or the gateway's own word.
    state             TEXT CHECK (length(state) BETWEEN 1 AND 64),
    state_since_at_ms INTEGER,
    exit_reason       TEXT,
    restart_requested INTEGER CHECK (restart_requested IN (0, 1)),
    active_agents     INTEGER CHECK (active_agents >= 0),
    extra             TEXT CHECK (extra IS NULL OR json_valid(extra)),    -- its own, as JSON
    -- The last heartbeat on the clock that decides; instances has it for people, with its cadence.
    heartbeat_boot_ms INTEGER,
    writer            TEXT,
    writer_pid        INTEGER,
    updated_at_ms     INTEGER NOT NULL
) STRICT;

-- What it says of a platform that it talks to, for its own profile or for one that it serves.
CREATE TABLE platform_status (
    instance_id          INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    profile              TEXT NOT NULL CHECK (length(profile) BETWEEN 1 AND 64),
    platform             TEXT NOT NULL CHECK (length(platform) BETWEEN 1 AND 64),
    state                TEXT CHECK (length(state) BETWEEN 1 AND 64),
    state_since_at_ms    INTEGER,
    error_code           TEXT,
    error_message        TEXT,
    needs_attention      INTEGER CHECK (needs_attention IN (0, 1)),
    retrying_since_at_ms INTEGER,
    extra                TEXT CHECK (extra IS NULL OR json_valid(extra)),
    writer               TEXT,
    writer_pid           INTEGER,
    updated_at_ms        INTEGER NOT NULL,
    PRIMARY KEY (instance_id, profile, platform)
) STRICT, WITHOUT ROWID;

-- Which other profiles an instance serves. It holds no office of theirs: whoever claims one gets it,
-- and answers for it from then on.
CREATE TABLE serves (
    instance_id INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    profile     TEXT NOT NULL CHECK (length(profile) BETWEEN 1 AND 64),
    since_at_ms INTEGER NOT NULL,
    PRIMARY KEY (instance_id, profile)
) STRICT, WITHOUT ROWID;
CREATE INDEX servers_of_profile ON serves (profile, instance_id);

-- A `run` that starts its command again goes on with the same instance: the next command starts fresh.
-- Here, and not in a program, because a `run` that was started before this migration has to do it, too.
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

CREATE VIEW reported_platforms AS
SELECT p.profile, i.kind, p.platform, p.state, p.error_code, p.error_message, p.needs_attention,
       strftime('%Y-%m-%dT%H:%M:%fZ', p.retrying_since_at_ms / 1000.0, 'unixepoch') AS retrying_since,
       strftime('%Y-%m-%dT%H:%M:%fZ', p.updated_at_ms / 1000.0, 'unixepoch') AS updated,
       p.writer, i.profile AS reported_by, i.pid, i.id AS instance
-- In this order: a handful of the instances is live, and most of the platforms are of the others.
FROM instances AS i CROSS JOIN platform_status AS p ON p.instance_id = i.id
WHERE i.ended_at_ms IS NULL
ORDER BY p.profile, i.kind, p.platform;
