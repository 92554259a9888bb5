-- Meta tells whole seconds and we know milliseconds: within one second the log's order is the order.
ALTER TABLE messages ADD COLUMN second INTEGER GENERATED ALWAYS AS (created_ms / 1000) VIRTUAL;
DROP INDEX messages_by_conversation;
CREATE INDEX messages_in_order ON messages (conversation, second, sequence);

-- The place in the log of the message that is shown as the newest.
ALTER TABLE conversations ADD COLUMN last_sequence INTEGER NOT NULL DEFAULT 0;
