-- What the file says of itself: since when something is written into it, and since when it is known to lack what was
-- read before.
CREATE TABLE notes (
    name  TEXT    NOT NULL PRIMARY KEY,
    at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO notes (name, at_ms)
    SELECT 'begun', 0 WHERE EXISTS (SELECT 1 FROM conversations) OR EXISTS (SELECT 1 FROM updates);
