CREATE TABLE ippool_address (
    -- The address as a number: text sorts 10.0.0.10 before 10.0.0.9.
    ord BIGINT NOT NULL PRIMARY KEY CHECK (ord BETWEEN 0 AND 4294967295),
    status TEXT NOT NULL DEFAULT 'free' CHECK (status IN ('free', 'reserved', 'allocated')),
    source TEXT NOT NULL DEFAULT 'local' CHECK (source IN ('local', 'adopted', 'external')),
    -- At most one address per machine: what makes a repeated reservation find the first one.
    machine TEXT UNIQUE,
    vmid BIGINT,
    hostname TEXT,
    node TEXT,
    reserved_at BIGINT,
    allocated_at BIGINT,
    last_seen_at BIGINT,
    missed_cycles BIGINT NOT NULL DEFAULT 0 CHECK (missed_cycles >= 0),
    version BIGINT NOT NULL DEFAULT 0,
    CHECK (status <> 'free' OR (machine IS NULL AND vmid IS NULL AND hostname IS NULL AND node IS NULL
        AND reserved_at IS NULL AND allocated_at IS NULL AND last_seen_at IS NULL AND missed_cycles = 0)),
    CHECK (status <> 'reserved' OR (machine IS NOT NULL AND reserved_at IS NOT NULL AND allocated_at IS NULL)),
    CHECK (status <> 'allocated' OR allocated_at IS NOT NULL)
);
CREATE INDEX ippool_address_free ON ippool_address (ord) WHERE status = 'free';

-- When work that any replica may do was last done.
CREATE TABLE ippool_run (
    name TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
);
INSERT INTO ippool_run (name, at) VALUES ('reconcile', 0);
