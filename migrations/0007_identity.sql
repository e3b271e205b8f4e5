-- 0007 identity: which file an anchor is, which process a pid meant, and what a `run` left behind.
--
-- Start with
--     SELECT id, pid, process_inode, anchor, anchor_inode, command_lock, keeper_pid, keeper2_pid
--     FROM instances WHERE ended_at_ms IS NULL;
--
-- A row whose written_by is NULL was written by version 0.1: nothing of this is known of its owner.
--
-- This migration closes the store to writers of version 0.1: they would give away what a living command
-- or a lost keeper still keeps. They go on reading, hold what they hold, and say so when they write.

-- The anchor is this very file, on this very filesystem (the device and statfs' f_fsid: one of them
-- changes where overlayfs or btrfs is mounted again). Another file at the same path is none.
ALTER TABLE instances ADD COLUMN anchor_inode INTEGER;
ALTER TABLE instances ADD COLUMN anchor_dev INTEGER;
ALTER TABLE instances ADD COLUMN anchor_fsid INTEGER;
-- The kernel's own number of a process, never given out twice in a boot (the inode of a pidfd, Linux
-- 6.9): of pid, child_pid and keeper_pid.
ALTER TABLE instances ADD COLUMN process_inode INTEGER;
ALTER TABLE instances ADD COLUMN child_process_inode INTEGER;
ALTER TABLE instances ADD COLUMN keeper_process_inode INTEGER;
-- The session that the command of a `run` was started in.
ALTER TABLE instances ADD COLUMN child_sid INTEGER;
-- The lock that the command itself holds on the file <anchor>.cmd, and which file that is. Only `held`
-- proves something: a living command can lose it.
ALTER TABLE instances ADD COLUMN command_lock TEXT CHECK (command_lock IN ('held', 'lost', 'none'));
ALTER TABLE instances ADD COLUMN command_lock_inode INTEGER;
-- The second process of the keeper pair, and when both ended although their process lived on.
ALTER TABLE instances ADD COLUMN keeper2_pid INTEGER;
ALTER TABLE instances ADD COLUMN keeper2_start_time INTEGER;
ALTER TABLE instances ADD COLUMN keeper_ended_at_ms INTEGER;
-- The boot clock when the row was written, and by which program (NULL: version 0.1).
ALTER TABLE instances ADD COLUMN written_boot_clock_ms INTEGER;
ALTER TABLE instances ADD COLUMN written_by TEXT;
