-- 0003 markers: planned endings, that no supervisor mistakes for crashes.
--
-- Start with
--     SELECT * FROM open_markers;    -- what somebody has asked of whom, and is not done yet
--     SELECT * FROM markers ORDER BY id DESC;    -- and what became of the older ones
--
-- What older programs still see: everything of 0001 and 0002, unchanged. They may go on writing: they
-- respect no reservation, and a row of instances that one of them ends makes its markers inert.

-- A one-shot message to one instance: takeover, planned_stop, restart, or the caller's own word.
CREATE TABLE markers (
    id              INTEGER PRIMARY KEY,     -- rises, is never reused
    name            TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    -- Whom it is for: one generation. NULL: the process named below, which is on record nowhere.
    instance_id     INTEGER,
    pid             INTEGER NOT NULL,
    start_time      INTEGER,
    start_time_unit TEXT CHECK (start_time_unit IN ('ticks', 'microseconds', 'filetime')),
    boot_id         TEXT,
    pid_ns          TEXT,
    -- Who wrote it, and why.
    writer          TEXT NOT NULL,
    writer_pid      INTEGER,
    writer_uid      INTEGER,
    -- The writer's own instance, where it waits for the outcome (a takeover, a stop).
    writer_id       INTEGER,
    reason          TEXT,
    written_at_ms   INTEGER NOT NULL,
    -- Until when it counts: for people, and in milliseconds of the boot clock of that boot.
    expires_at_ms   INTEGER NOT NULL,
    expires_boot_ms INTEGER NOT NULL,
    expires_boot_id TEXT,
    -- What became of it; NULL while it is open. replaced: by another marker; target_ended: nobody
    -- consumed it.
    closed_at_ms    INTEGER,
    closed_how      TEXT CHECK (closed_how IN
        ('consumed', 'cleared', 'expired', 'replaced', 'target_ended')),
    closed_by       TEXT,
    -- restart: when a `run` started its command again for it.
    served_at_ms    INTEGER,
    CHECK ((closed_at_ms IS NULL) = (closed_how IS NULL))
) STRICT;

-- One of each name for an instance, and one request of all three kinds, whatever the code above does.
CREATE UNIQUE INDEX one_open_marker ON markers (instance_id, name)
    WHERE closed_at_ms IS NULL AND instance_id IS NOT NULL;
CREATE UNIQUE INDEX one_open_request ON markers (instance_id)
    WHERE closed_at_ms IS NULL AND instance_id IS NOT NULL
      AND name IN ('takeover', 'planned_stop', 'restart');
CREATE INDEX ends_asked_of_instance ON markers (instance_id, id)
    WHERE name IN ('takeover', 'planned_stop');
CREATE INDEX unserved_restarts ON markers (instance_id, id)
    WHERE name = 'restart' AND served_at_ms IS NULL;
CREATE INDEX open_markers_by_pid ON markers (pid) WHERE closed_at_ms IS NULL;

-- Who will have an office (profile, kind) or a lock (scope, identity_hash) next, or keeps it free
-- while it is being stopped. It counts only while that instance lives, and before its time is over.
CREATE TABLE reservations (
    instance_id     INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    purpose         TEXT NOT NULL CHECK (purpose IN ('takeover', 'stop')),
    profile         TEXT,
    kind            TEXT,
    scope           TEXT,
    identity_hash   TEXT,
    made_at_ms      INTEGER NOT NULL,
    until_boot_ms   INTEGER NOT NULL,
    boot_id         TEXT
) STRICT;
CREATE UNIQUE INDEX reserved_offices ON reservations (profile, kind) WHERE scope IS NULL;
CREATE UNIQUE INDEX reserved_locks ON reservations (scope, identity_hash) WHERE scope IS NOT NULL;
CREATE INDEX reservations_of_instance ON reservations (instance_id);

-- The parties whose gateway was replaced: while the successor (instance_id) lives, none of them may
-- replace it without --force. Two supervisors settle after one swap.
CREATE TABLE superseded (
    instance_id     INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    party           TEXT NOT NULL,
    replaced_id     INTEGER NOT NULL,        -- the instance of that party that was replaced
    at_ms           INTEGER NOT NULL,
    PRIMARY KEY (instance_id, party)
) STRICT, WITHOUT ROWID;

-- For what is asked about a live process: by its pid, or by that of a run's command.
CREATE INDEX live_by_pid ON instances (pid) WHERE ended_at_ms IS NULL;
CREATE INDEX live_by_child ON instances (child_pid)
    WHERE ended_at_ms IS NULL AND child_pid IS NOT NULL;

CREATE VIEW open_markers AS
SELECT m.id, m.name, i.profile, i.kind, m.pid, m.instance_id AS instance, m.writer, m.reason,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.written_at_ms / 1000.0, 'unixepoch') AS written,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.expires_at_ms / 1000.0, 'unixepoch') AS expires
FROM markers AS m LEFT JOIN instances AS i ON i.id = m.instance_id
WHERE m.closed_at_ms IS NULL AND (m.instance_id IS NULL OR i.ended_at_ms IS NULL AND i.id IS NOT NULL)
ORDER BY m.id;
