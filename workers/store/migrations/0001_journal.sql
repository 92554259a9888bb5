-- The read model: conversations and messages of every tenant, rebuilt from the log at any time.
-- Times are unix milliseconds. Ids of Meta's are kept as they came.

CREATE TABLE conversations (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    phone_number_id TEXT    NOT NULL,
    user_id         TEXT,
    phone           TEXT,
    group_id        TEXT,
    name            TEXT,
    last_ms         INTEGER NOT NULL,
    last_text       TEXT    NOT NULL,
    last_direction  TEXT    NOT NULL,
    incoming        INTEGER NOT NULL,
    outgoing        INTEGER NOT NULL,
    created_ms      INTEGER NOT NULL,
    -- Set when it turned out to be the same person as another conversation; that one holds everything.
    merged_into     TEXT
) STRICT;
CREATE INDEX conversations_by_time ON conversations (tenant, last_ms, id) WHERE merged_into IS NULL;
CREATE INDEX conversations_by_number ON conversations (tenant, phone_number_id, last_ms, id) WHERE merged_into IS NULL;
CREATE INDEX conversations_merged ON conversations (merged_into) WHERE merged_into IS NOT NULL;

-- Which conversation a person (`u:`, `p:`) or group (`g:`) has with a business number.
CREATE TABLE contacts (
    tenant          TEXT NOT NULL,
    phone_number_id TEXT NOT NULL,
    key             TEXT NOT NULL,
    conversation    TEXT NOT NULL,
    PRIMARY KEY (tenant, phone_number_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX contacts_by_conversation ON contacts (conversation);

CREATE TABLE messages (
    tenant          TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    conversation    TEXT    NOT NULL,
    phone_number_id TEXT    NOT NULL,
    direction       TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    text            TEXT,
    content         TEXT    NOT NULL,
    wamid           TEXT,
    reply_to        TEXT,
    status          TEXT    NOT NULL,
    status_times    TEXT    NOT NULL,
    fault           TEXT,
    origin          TEXT,
    created_ms      INTEGER NOT NULL,
    received_ms     INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX messages_by_conversation ON messages (conversation, created_ms, sequence);
CREATE INDEX messages_by_wamid ON messages (tenant, wamid) WHERE wamid IS NOT NULL;

-- Statuses that came before their message.
CREATE TABLE held_statuses (
    tenant      TEXT    NOT NULL,
    wamid       TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    -- Our own id of the message, when Meta repeated it.
    message     TEXT,
    at_ms       INTEGER NOT NULL,
    fault       TEXT,
    received_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, wamid, status)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_by_message ON held_statuses (tenant, message) WHERE message IS NOT NULL;
CREATE INDEX held_by_age ON held_statuses (received_ms);

-- What has been written, by update id, so that a repeat costs one lookup.
CREATE TABLE updates (
    tenant  TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    seen_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX updates_by_age ON updates (seen_ms);
