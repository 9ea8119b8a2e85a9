-- Tokens with which hosts join.
CREATE TABLE auth_join_token (
    -- SHA-256 of the token, in hexadecimal.
    secret_hash TEXT NOT NULL PRIMARY KEY,
    -- The only host that may use it, if one was named.
    host TEXT,
    user_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
