-- 0001 offices: who holds an office, who held it before, and who asked for it.
--
-- Reading this file with sqlite3 after an incident? Start with
--     SELECT * FROM gateways;        -- who is on record as holding an office now
--     SELECT * FROM incarnations;    -- every past and present holder, newest first
-- A row on record is not proof of life: `incumbent status` asks the kernel as well.
-- Open the file read-only (sqlite3 -readonly), and never copy, hash or edit it while gateways run.
--
-- Times named *_at_ms are Unix milliseconds, for people. What decides runs on *_boot_ms, a clock
-- that never steps and is comparable only under the same boot_id.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    -- store_uuid: names this store; part of its anchors' file names.
    -- min_writer: the oldest schema version that may still write; older programs refuse to.
    -- last_id:    the last instance id or fence that was drawn; the next is max(last + 1, Unix us).
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE profiles (
    profile       TEXT PRIMARY KEY NOT NULL CHECK (length(profile) BETWEEN 1 AND 64),
    -- The real path of the configuration directory this profile is bound to, if any.
    home          TEXT,
    -- What an operator wants: written only by the verb `desired` and by `stop --desired`.
    desired       TEXT CHECK (desired IN ('running', 'stopped')),
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One incarnation of a process known to the store: the PID record.
-- An office is live while ended_at_ms IS NULL. kind NULL: a process without an office.
CREATE TABLE instances (
    id                INTEGER PRIMARY KEY,   -- the generation: rises, is never reused
    nonce_hash        TEXT NOT NULL,         -- SHA-256 of the owner's secret: proves ownership
    profile           TEXT CHECK (length(profile) BETWEEN 1 AND 64),
    kind              TEXT CHECK (length(kind) BETWEEN 1 AND 64),
    origin            TEXT NOT NULL CHECK (origin IN ('library', 'run', 'pid')),
    -- Who it is. start_time counts in start_time_unit since the kernel's own epoch, never wall time.
    pid               INTEGER NOT NULL,
    start_time        INTEGER,
    start_time_unit   TEXT CHECK (start_time_unit IN ('ticks', 'microseconds', 'filetime')),
    boot_id           TEXT,
    pid_ns            TEXT,
    host              TEXT,
    uid               INTEGER,
    argv              TEXT CHECK (argv IS NULL OR json_valid(argv)),   -- JSON array, redacted
    version           TEXT,
    party             TEXT,                  -- who keeps starting it
    supervisor        TEXT,                  -- systemd:UNIT, launchd:LABEL, container:ID or none
    stop_budget_ms    INTEGER NOT NULL,      -- how long it may take to stop
    heartbeat_every_ms INTEGER,              -- the cadence it promised, if any
    anchor            TEXT,                  -- file in <db>.anchors/ that the kernel locks for it
    -- The command of a `run`, and the keeper of a record made by `claim --pid`.
    child_pid         INTEGER,
    child_start_time  INTEGER,
    keeper_pid        INTEGER,
    keeper_start_time INTEGER,
    started_at_ms     INTEGER NOT NULL,
    heartbeat_at_ms   INTEGER,
    -- How it ended; NULL while it is on record as live.
    ended_at_ms       INTEGER,
    end_reason        TEXT,
    ended_by          TEXT,
    exit_code         INTEGER,
    signal            INTEGER,
    detail            TEXT,
    CHECK ((ended_at_ms IS NULL) = (end_reason IS NULL)),
    CHECK (kind IS NULL OR profile IS NOT NULL)
) STRICT;

-- At most one live holder of an office, whatever the code above does.
CREATE UNIQUE INDEX one_live_holder ON instances (profile, kind)
    WHERE ended_at_ms IS NULL AND kind IS NOT NULL;
CREATE INDEX instances_of_office ON instances (profile, kind, id);
CREATE INDEX instances_without_office ON instances (ended_at_ms) WHERE kind IS NULL;
CREATE INDEX unended_anchors ON instances (anchor) WHERE ended_at_ms IS NULL;

-- Who waits for an office now. The waiter is an instance of its own (kind NULL), with an anchor.
CREATE TABLE waiters (
    instance_id   INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    profile       TEXT NOT NULL,
    kind          TEXT NOT NULL,
    since_at_ms   INTEGER NOT NULL
) STRICT;

-- Every attempt to take an office.
CREATE TABLE starts (
    id            INTEGER PRIMARY KEY,
    profile       TEXT NOT NULL,
    kind          TEXT NOT NULL,
    outcome       TEXT NOT NULL CHECK (outcome IN ('granted', 'refused')),
    instance_id   INTEGER,                   -- granted: the new instance
    holder_id     INTEGER,                   -- refused: the instance that held it
    reason        TEXT,                      -- refused: why the holder counts as holding it
    pid           INTEGER NOT NULL,
    party         TEXT,
    -- Whether it counts towards a storm: refused, or following an abnormal end.
    counted       INTEGER NOT NULL CHECK (counted IN (0, 1)),
    at_ms         INTEGER NOT NULL,
    at_boot_ms    INTEGER NOT NULL,
    boot_id       TEXT
) STRICT;
CREATE INDEX starts_of_office ON starts (profile, kind, id);

-- Who wanted an office that another one held: counted, so that a loop of refusals is one row.
CREATE TABLE conflicts (
    profile       TEXT NOT NULL,
    kind          TEXT NOT NULL,
    holder_id     INTEGER NOT NULL,
    contender     TEXT NOT NULL,             -- the contender's party, or its pid if that is unknown
    pid           INTEGER NOT NULL,          -- the last one of that contender
    first_at_ms   INTEGER NOT NULL,
    last_at_ms    INTEGER NOT NULL,
    count         INTEGER NOT NULL CHECK (count > 0),
    PRIMARY KEY (profile, kind, holder_id, contender)
) STRICT, WITHOUT ROWID;

-- What happened, in order; the newest are kept.
CREATE TABLE events (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms         INTEGER NOT NULL,
    event         TEXT NOT NULL,
    profile       TEXT,
    kind          TEXT,
    instance_id   INTEGER,
    pid           INTEGER,
    detail        TEXT CHECK (detail IS NULL OR json_valid(detail))
) STRICT;

CREATE VIEW gateways AS
SELECT profile, kind, pid, child_pid, id AS instance,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at_ms / 1000.0, 'unixepoch') AS since,
       supervisor, version, argv AS command, anchor
FROM instances
WHERE ended_at_ms IS NULL AND kind IS NOT NULL
ORDER BY profile, kind;

CREATE VIEW incarnations AS
SELECT id AS instance, profile, kind, pid,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at_ms / 1000.0, 'unixepoch') AS started,
       strftime('%Y-%m-%dT%H:%M:%fZ', ended_at_ms / 1000.0, 'unixepoch') AS ended,
       round((ended_at_ms - started_at_ms) / 1000.0, 3) AS lasted_s,
       end_reason, ended_by, exit_code, signal, detail
FROM instances
WHERE kind IS NOT NULL
ORDER BY id DESC;
