-- 0008 slots: a lock that several may hold at once, and one that excludes within a process, too; and
-- the order of served profiles.
--
-- Start with
--     SELECT * FROM lock_slots;    -- who holds which slot of what now
--
-- A slot is a row of scoped_locks. The first one (slot 0) is stored by the lock's own identity_hash,
-- so that the key of the table keeps it apart from a lock without slots. The others are stored by a
-- hash that is made of that and the slot's number.
--
-- What older programs still see: each slot as a lock. One that wants the lock without slots is
-- refused by the key while somebody holds slot 0, and by the trigger while only other slots are held.

-- Which slot; NULL: a lock without slots, which the guards of its holder's process share.
ALTER TABLE scoped_locks ADD COLUMN slot INTEGER CHECK (slot >= 0);
-- How many its holder said that there are; 1: an exclusive lock. NULL without slots.
ALTER TABLE scoped_locks ADD COLUMN slots INTEGER CHECK (slots > 0);
-- The identity_hash of the lock itself. NULL without slots.
ALTER TABLE scoped_locks ADD COLUMN slot_of TEXT CHECK (length(slot_of) = 16);
CREATE INDEX slots_of_lock ON scoped_locks (scope, slot_of) WHERE slot_of IS NOT NULL;

-- No lock without slots beside any slot, whatever program asks. The other way round the key says it
-- of slot 0, and of the others the programs that know of slots.
CREATE TRIGGER lock_beside_its_slots BEFORE INSERT ON scoped_locks
WHEN NEW.slot_of IS NULL AND EXISTS (
    SELECT 1 FROM scoped_locks AS l JOIN instances AS i ON i.id = l.instance_id
    WHERE l.scope = NEW.scope AND l.slot_of = NEW.identity_hash AND i.ended_at_ms IS NULL)
BEGIN
    SELECT RAISE(ABORT, 'the lock is held in slots, see the view lock_slots');
END;

CREATE VIEW lock_slots AS
SELECT l.scope, l.slot_of AS identity_hash, l.slot, l.slots, i.profile, i.kind, i.pid,
       l.instance_id AS instance, l.fence,
       strftime('%Y-%m-%dT%H:%M:%fZ', l.acquired_at_ms / 1000.0, 'unixepoch') AS since, l.metadata
FROM scoped_locks AS l JOIN instances AS i ON i.id = l.instance_id
WHERE l.slot_of IS NOT NULL AND i.ended_at_ms IS NULL
ORDER BY l.scope, l.slot_of, l.slot;

-- The place of a profile among those that an instance said it serves, from 0. NULL: said by an older
-- program; those are in the order of their names.
ALTER TABLE serves ADD COLUMN position INTEGER CHECK (position >= 0);
