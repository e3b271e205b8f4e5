-- 0006 legacy files: where a profile's older gateway keeps gateway.pid and gateway.lock.
--
-- Start with
--     SELECT profile, legacy_home FROM profiles WHERE legacy_home IS NOT NULL;
--
-- A gateway that only knows those files has a row of `instances` like any other, as soon as somebody met
-- it (`incumbent import`, a claim): its anchor is the path of the gateway.lock that it holds.
--
-- What older programs still see: everything of 0001 to 0005, unchanged, and they may go on writing. They
-- cannot look at such an anchor, and so take nobody's place because of it.

-- The real path of the directory with the older program's files. As long as some process holds the
-- gateway.lock in it, nobody else gets the profile's office.
ALTER TABLE profiles ADD COLUMN legacy_home TEXT;
