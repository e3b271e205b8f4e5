
-- What the history still knows. A damaged row is not counted.
INSERT OR IGNORE INTO counters (profile, kind, name, count)
SELECT profile, kind, iif(outcome = 'granted', 'starts', 'refusals'), count(*)
FROM starts WHERE profile IS NOT NULL AND kind IS NOT NULL GROUP BY 1, 2, 3;
INSERT OR IGNORE INTO counters (profile, kind, name, reason, exit_code, count)
SELECT profile, kind, 'ends', end_reason,
       coalesce(CAST(coalesce(exit_code, 128 + signal) AS TEXT), ''), count(*)
FROM instances
WHERE ended_at_ms IS NOT NULL AND profile IS NOT NULL AND kind IS NOT NULL
  AND end_reason IS NOT NULL
GROUP BY 1, 2, 3, 4, 5;
