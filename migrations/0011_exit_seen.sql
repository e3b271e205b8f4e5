-- 0011 exit seen: of an end that nobody recorded as it happened, when somebody saw it. A gateway that
-- is killed writes nothing; the next one that starts finds it dead, perhaps hours later. ended_at_ms
-- is then the time of that, which is not when it ended.
--
-- Start with
--     SELECT profile, pid, end_reason,
--            datetime(started_at_ms / 1000, 'unixepoch') AS started,
--            datetime(exit_seen_at_ms / 1000, 'unixepoch') AS ended_before
--     FROM instances WHERE exit_seen_at_ms IS NOT NULL ORDER BY id DESC;
--
-- What older programs still see: everything of 0001 to 0010; they may go on writing.

-- When its process was first seen to have ended: Unix milliseconds. It ended some time before. A
-- keeper waits for that, so it says when it was; a next claimant does not. NULL: it recorded its end
-- itself (or its `run` did), so ended_at_ms is when that was; or an older program wrote it.
ALTER TABLE instances ADD COLUMN exit_seen_at_ms INTEGER;
