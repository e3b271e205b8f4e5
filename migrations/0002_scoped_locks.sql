-- 0002 scoped locks: who holds a token, an account or a port, across all profiles.
--
-- Start with
--     SELECT * FROM lock_holders;    -- who is on record as holding what now
-- The identity itself (the token) is never stored: identity_hash is the first 16 hex digits of its
-- SHA-256 (printf %s "$TOKEN" | sha256sum | cut -c1-16).
--
-- What older programs still see: everything of 0001, unchanged. They may go on writing: a row of
-- instances that one of them ends makes the locks of that row free, whether or not they are deleted.

CREATE TABLE scoped_locks (
    scope          TEXT NOT NULL CHECK (length(scope) BETWEEN 1 AND 64),
    -- The first 16 hex digits of the SHA-256 of the identity, which is stored nowhere.
    identity_hash  TEXT NOT NULL CHECK (length(identity_hash) = 16),
    -- The row it was taken from: it ends with that row, and is as alive as its process.
    instance_id    INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    fence          INTEGER NOT NULL,         -- rises with every change of holder, never falls
    acquired_at_ms INTEGER NOT NULL,
    renewed_at_ms  INTEGER,
    -- The lease, where one was asked for: how long one lasts, and until when this one does, in
    -- milliseconds of the boot clock of that boot. It decides only where no anchor can be seen.
    ttl_ms         INTEGER CHECK (ttl_ms > 0),
    lease_until_ms INTEGER,
    lease_boot_id  TEXT,
    metadata       TEXT CHECK (metadata IS NULL OR json_valid(metadata)),   -- the owner's own
    -- At most one holder, whatever the code above does.
    PRIMARY KEY (scope, identity_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX locks_of_instance ON scoped_locks (instance_id);

-- Who wanted a lock that another one held: counted, so that a loop of refusals is one row.
CREATE TABLE lock_conflicts (
    scope          TEXT NOT NULL,
    identity_hash  TEXT NOT NULL,
    holder_id      INTEGER NOT NULL,         -- the instance that held it
    contender      TEXT NOT NULL,            -- the contender's party, or its pid if that is unknown
    profile        TEXT NOT NULL,            -- the contender's; empty if it has none
    pid            INTEGER NOT NULL,         -- the last one of that contender
    first_at_ms    INTEGER NOT NULL,
    last_at_ms     INTEGER NOT NULL,
    count          INTEGER NOT NULL CHECK (count > 0),
    PRIMARY KEY (scope, identity_hash, holder_id, contender, profile)
) STRICT, WITHOUT ROWID;

-- A waiter waits for an office (profile, kind) or for a lock (scope, identity_hash; its profile, if
-- it has one).
CREATE TABLE waiters_0002 (
    instance_id    INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    profile        TEXT,
    kind           TEXT,
    since_at_ms    INTEGER NOT NULL,
    scope          TEXT,
    identity_hash  TEXT
) STRICT;
INSERT INTO waiters_0002 (instance_id, profile, kind, since_at_ms)
    SELECT instance_id, profile, kind, since_at_ms FROM waiters;
DROP TABLE waiters;
ALTER TABLE waiters_0002 RENAME TO waiters;
CREATE INDEX waiters_for_lock ON waiters (scope, identity_hash) WHERE scope IS NOT NULL;

-- For retention, which keeps one row of every anchor that is held.
CREATE INDEX ended_anchors ON instances (anchor, id) WHERE ended_at_ms IS NOT NULL;
CREATE INDEX ids_without_office ON instances (id) WHERE kind IS NULL;

CREATE VIEW lock_holders AS
SELECT l.scope, l.identity_hash, i.profile, i.kind, i.pid, l.instance_id AS instance, l.fence,
       strftime('%Y-%m-%dT%H:%M:%fZ', l.acquired_at_ms / 1000.0, 'unixepoch') AS since,
       strftime('%Y-%m-%dT%H:%M:%fZ', l.renewed_at_ms / 1000.0, 'unixepoch') AS renewed,
       l.metadata, i.argv AS command, i.anchor
FROM scoped_locks AS l JOIN instances AS i ON i.id = l.instance_id
WHERE i.ended_at_ms IS NULL
ORDER BY l.scope, l.identity_hash;
