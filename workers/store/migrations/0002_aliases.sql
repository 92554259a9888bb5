-- The id that an event tells for a conversation: a hash of one of its keys. Rows of before get theirs when their
-- person is seen again.
ALTER TABLE contacts ADD COLUMN alias TEXT;
CREATE INDEX contacts_by_alias ON contacts (tenant, alias) WHERE alias IS NOT NULL;

-- With whom a message was that other programs sent, of which only statuses are known.
ALTER TABLE held_statuses ADD COLUMN phone_number_id TEXT;
ALTER TABLE held_statuses ADD COLUMN conversation TEXT;
