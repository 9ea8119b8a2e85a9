-- What machines know of GPUs. A row is written before a machine made earlier gets a token, and goes only after the
-- machine has gone and its token with it.
CREATE TABLE provisioner_gpu (
    machine TEXT   NOT NULL PRIMARY KEY,
    -- Address and model as it was told them last; NULL while it has no token that is good.
    told    TEXT,
    -- Attempts in a row that did not succeed, and until when nobody makes another.
    tries   BIGINT NOT NULL DEFAULT 0,
    due_at  BIGINT NOT NULL DEFAULT 0
);
