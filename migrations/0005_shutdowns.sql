-- 0005 shutdowns: the last words of a gateway. Who sent which signal, and where it panicked.
--
-- Start with
--     SELECT datetime(at_ms / 1000, 'unixepoch') AS at, profile, pid, signal_name, sender
--     FROM shutdowns WHERE what = 'signal' ORDER BY id DESC;       -- who stops my gateway?
--     SELECT datetime(at_ms / 1000, 'unixepoch') AS at, profile, pid, message, place
--     FROM shutdowns WHERE what = 'panic' ORDER BY id DESC;
--     SELECT json_extract(snapshot, '$.parent') FROM shutdowns;    -- what else was seen then
--
-- A row says that a signal came, not that the gateway ended by it: `incumbent history` puts both
-- together. The newest 20 of each instance are kept, and the newest 1,000 of all others.
--
-- What older programs still see: everything of 0001 to 0004, unchanged, and they may go on writing.

CREATE TABLE shutdowns (
    id            INTEGER PRIMARY KEY,
    at_ms         INTEGER NOT NULL,
    at_boot_ms    INTEGER,
    boot_id       TEXT,
    -- NULL: a process that is on record nowhere.
    instance_id   INTEGER REFERENCES instances (id) ON DELETE CASCADE,
    profile       TEXT,
    kind          TEXT,
    pid           INTEGER NOT NULL,
    what          TEXT NOT NULL CHECK (what IN ('signal', 'panic')),
    -- A signal: by number and name, who sent it (or why that cannot be known), and what for.
    signal        INTEGER,
    signal_name   TEXT,
    sender_pid    INTEGER,
    sender_uid    INTEGER,
    sender        TEXT,
    -- 1 where the signal may be a request to read the configuration again, and so explains no end.
    may_be_reload INTEGER NOT NULL DEFAULT 0 CHECK (may_be_reload IN (0, 1)),
    cause         TEXT,
    -- When the process had outlived it (a signal by its stop budget and 15 s, a panic by 5 s): no end is
    -- by it.
    survived_at_ms INTEGER,
    -- A panic: what it said, and where.
    message       TEXT,
    place         TEXT,
    -- Everything that was seen at that moment: incumbent forensics snapshot.
    snapshot      TEXT CHECK (snapshot IS NULL OR json_valid(snapshot))
) STRICT;
CREATE INDEX shutdowns_of_instance ON shutdowns (instance_id, id);

-- The directory of the memory cgroup that a process was in when it registered, with its inode (systemd
-- makes the group of a service anew), and how many processes of that group the kernel had killed for
-- memory until then.
ALTER TABLE instances ADD COLUMN memory_cgroup TEXT;
ALTER TABLE instances ADD COLUMN memory_cgroup_inode INTEGER;
ALTER TABLE instances ADD COLUMN oom_kills INTEGER;
