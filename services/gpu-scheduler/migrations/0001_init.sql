CREATE TABLE gpu_job (
    id TEXT NOT NULL PRIMARY KEY,
    -- Place in the order of submission; a job that is queued again keeps it.
    seq BIGINT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    machine TEXT,
    -- Who submitted it and the key of their request: a repeat finds the first.
    dedupe TEXT UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    pool TEXT NOT NULL,
    priority BIGINT NOT NULL CHECK (priority BETWEEN -100 AND 100),
    image TEXT NOT NULL,
    -- JSON; the environment is sealed, because people put keys there.
    command TEXT NOT NULL,
    env TEXT NOT NULL,
    datasets TEXT NOT NULL,
    time_s BIGINT NOT NULL CHECK (time_s > 0),
    memory_bytes BIGINT,
    log_cap BIGINT NOT NULL,
    artifact_cap BIGINT NOT NULL,
    rerun BIGINT NOT NULL CHECK (rerun IN (0, 1)),
    -- How often it was given to a worker, to which one, and whether that one was seen holding it.
    attempt BIGINT NOT NULL DEFAULT 0,
    worker TEXT,
    held BIGINT NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),
    -- Beats of its worker in a row without it.
    missed BIGINT NOT NULL DEFAULT 0,
    -- Where its assignment lies in the stream; NULL when it lies there no more.
    stored BIGINT,
    phase TEXT,
    phase_note TEXT,
    exit_code BIGINT,
    code TEXT,
    error TEXT,
    -- Bytes kept of attempts before this one, bytes kept, bytes printed.
    log_base BIGINT NOT NULL DEFAULT 0,
    log_end BIGINT NOT NULL DEFAULT 0 CHECK (log_end >= log_base),
    log_bytes BIGINT NOT NULL DEFAULT 0,
    log_truncated BIGINT NOT NULL DEFAULT 0 CHECK (log_truncated IN (0, 1)),
    artifact_end BIGINT NOT NULL DEFAULT 0,
    artifact_bytes BIGINT,
    artifact_sha256 TEXT,
    artifact_note TEXT,
    queued_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    CHECK (state <> 'queued' OR worker IS NULL),
    CHECK (state <> 'running' OR (worker IS NOT NULL AND attempt > 0)),
    CHECK ((state IN ('queued', 'running')) = (finished_at IS NULL))
);
CREATE INDEX gpu_job_queue ON gpu_job (pool, priority DESC, seq) WHERE state = 'queued';
CREATE INDEX gpu_job_active ON gpu_job (owner) WHERE state IN ('queued', 'running');
CREATE INDEX gpu_job_owner ON gpu_job (owner, seq);
CREATE INDEX gpu_job_state ON gpu_job (state, seq);
CREATE INDEX gpu_job_finished ON gpu_job (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE gpu_worker (
    name TEXT NOT NULL PRIMARY KEY,
    pool TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('new', 'online', 'silent', 'lost')),
    standing TEXT NOT NULL CHECK (standing IN ('active', 'paused', 'draining')),
    -- SHA-256 of its token.
    token TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL,
    model TEXT NOT NULL,
    base_url TEXT NOT NULL,
    -- How it was heard last: '' never, 'nats', 'http', or 'old' for one that does not beat.
    link TEXT NOT NULL DEFAULT '',
    trouble BIGINT NOT NULL DEFAULT 0 CHECK (trouble IN (0, 1)),
    -- Signs of life. That it grows is what counts, not the clock of whoever wrote it.
    beats BIGINT NOT NULL DEFAULT 0,
    last_beat TEXT,
    last_beat_at BIGINT,
    -- The job and attempt that occupy it. Free only when it is known to hold nothing.
    job TEXT,
    attempt BIGINT,
    -- Grows with every job given out: of two idle workers the one that waits longer is next.
    turn BIGINT NOT NULL DEFAULT 0,
    paired_at BIGINT NOT NULL,
    CHECK ((job IS NULL) = (attempt IS NULL))
);

-- One row.
CREATE TABLE gpu_settings (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    enabled BIGINT NOT NULL DEFAULT 0 CHECK (enabled IN (0, 1)),
    base_url TEXT NOT NULL DEFAULT '',
    inference_model TEXT NOT NULL DEFAULT '',
    -- Sealed.
    api_key TEXT,
    job_quota BIGINT NOT NULL DEFAULT 5 CHECK (job_quota >= 0),
    -- SHA-256 of the newest pairing token, until when it is good, and the one worker it is for.
    pairing TEXT,
    pairing_until BIGINT,
    pairing_worker TEXT
);
INSERT INTO gpu_settings (id) VALUES (1);

-- Numbers that also order whoever takes one: of two transactions the second waits for the first.
CREATE TABLE gpu_counter (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO gpu_counter (name, value) VALUES ('seq', 0), ('turn', 0);

CREATE TABLE gpu_usage (
    day TEXT NOT NULL,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    requests BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    estimated BIGINT NOT NULL CHECK (estimated IN (0, 1)),
    PRIMARY KEY (day, owner, model)
);
-- Records that are in it already.
CREATE TABLE gpu_usage_seen (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
);
CREATE INDEX gpu_usage_seen_at ON gpu_usage_seen (at);

CREATE TABLE gpu_outbox (id TEXT PRIMARY KEY, body TEXT NOT NULL, created_at BIGINT NOT NULL);
