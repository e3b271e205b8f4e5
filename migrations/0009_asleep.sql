-- 0009 asleep: what of the time since a heartbeat the machine was suspended for. A laptop that woke up
-- has missed none.
--
-- What older programs still see: everything of 0001 to 0008, unchanged, and they may go on writing.
-- They count a suspend as silence.

-- For how long the machine had been suspended since its start when the last heartbeat was given, in
-- milliseconds. NULL: none was given, or an older program wrote it.
ALTER TABLE runtime_status ADD COLUMN heartbeat_asleep_ms INTEGER CHECK (heartbeat_asleep_ms >= 0);
