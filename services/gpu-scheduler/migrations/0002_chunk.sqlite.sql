-- Bytes of logs and artifacts, in pieces as they came. Together they have no gap and no overlap.
CREATE TABLE gpu_chunk (
    job TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('log', 'artifact')),
    start BIGINT NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (job, kind, start)
);
