//! The tables, and every statement on them.

use std::sync::Arc;

/// The two tables for a migration: `migrations!["0002_saga" => nimbus_saga::ddl!("machine")]` makes
/// `machine_saga` and `machine_saga_event`. Same text for both engines.
#[macro_export]
macro_rules! ddl {
    ($prefix:literal) => {
        concat!(
            "CREATE TABLE ",
            $prefix,
            "_saga (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    params TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'undoing', 'done', 'undone', 'stuck')),
    owner TEXT NOT NULL,
    owner_until BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    cancel BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX ",
            $prefix,
            "_saga_unfinished ON ",
            $prefix,
            "_saga (owner_until) WHERE state IN ('running', 'undoing');
CREATE TABLE ",
            $prefix,
            "_saga_event (
    saga_id TEXT NOT NULL REFERENCES ",
            $prefix,
            "_saga (id) ON DELETE CASCADE,
    seq BIGINT NOT NULL,
    step TEXT,
    what TEXT NOT NULL,
    data TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (saga_id, seq)
);
"
        )
    };
}

/// The text of [`ddl!`](crate::ddl!) for a prefix that is not a literal.
#[must_use]
pub fn ddl(prefix: &str) -> String {
    crate::ddl!("PREFIX").replace("PREFIX", prefix)
}

/// Events that one INSERT takes; a batch of more uses several.
pub(crate) const ROWS: usize = 4;

/// The statements, made once because table names cannot be parameters.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(crate) create: Arc<str>,
    pub(crate) claim: Arc<str>,
    pub(crate) release: Arc<str>,
    pub(crate) beat: Arc<str>,
    pub(crate) advance: Arc<str>,
    pub(crate) events: Arc<str>,
    pub(crate) written: Arc<str>,
    pub(crate) load: Arc<str>,
    pub(crate) abandoned: Arc<str>,
    pub(crate) forget: Arc<str>,
    pub(crate) cancel: Arc<str>,
    pub(crate) reopen: Arc<str>,
    pub(crate) prune: Arc<str>,
    /// Index n inserts n + 1 rows.
    pub(crate) insert: [Arc<str>; ROWS],
}

impl Sql {
    pub(crate) fn new(p: &str) -> Self {
        let text = |sql: String| -> Arc<str> { sql.into() };
        let unfinished = "state IN ('running', 'undoing')";
        Self {
            create: text(format!(
                "INSERT INTO {p}_saga (id, name, params, state, owner, owner_until, fence, cancel, created_at, updated_at)
                 VALUES ($1, $2, $3, 'running', $4, $5, $6, 0, $7, $7)"
            )),
            claim: text(format!(
                "UPDATE {p}_saga SET owner = $2, owner_until = $3, fence = fence + 1, updated_at = $4
                 WHERE id = $1 AND {unfinished} AND (owner_until <= $4 OR owner = $2)
                 RETURNING name, params, fence, cancel"
            )),
            release: text(format!("UPDATE {p}_saga SET owner = '', owner_until = 0 WHERE id = $1 AND fence = $2")),
            beat: text(format!(
                "UPDATE {p}_saga SET owner_until = $3 WHERE id = $1 AND fence = $2 AND {unfinished} RETURNING cancel"
            )),
            // One write that checks the fence, renews the lease and moves the state; on PostgreSQL it also
            // takes the row's lock, so a claim waits until the events below it are committed.
            advance: text(format!(
                "UPDATE {p}_saga SET state = $3, owner = $4, owner_until = $5, updated_at = $6
                 WHERE id = $1 AND fence = $2 RETURNING cancel"
            )),
            events: text(format!("SELECT seq, step, what, data, at FROM {p}_saga_event WHERE saga_id = $1 ORDER BY seq")),
            written: text(format!(
                "SELECT count(*) FROM {p}_saga s JOIN {p}_saga_event e ON e.saga_id = s.id
                 WHERE s.id = $1 AND s.fence = $2 AND e.seq = $3"
            )),
            load: text(format!(
                "SELECT id, name, params, state, owner, owner_until, cancel, created_at, updated_at FROM {p}_saga WHERE id = $1"
            )),
            abandoned: text(format!(
                "SELECT id FROM {p}_saga WHERE {unfinished} AND owner_until <= $1 ORDER BY created_at, id LIMIT $2"
            )),
            forget: text(format!("UPDATE {p}_saga SET owner_until = 0 WHERE {unfinished} AND owner_until > 0")),
            cancel: text(format!("UPDATE {p}_saga SET cancel = 1 WHERE id = $1 AND state = 'running'")),
            reopen: text(format!(
                "UPDATE {p}_saga SET state = 'undoing', owner = '', owner_until = 0, fence = fence + 1, updated_at = $2
                 WHERE id = $1 AND state = 'stuck' RETURNING name"
            )),
            prune: text(format!("DELETE FROM {p}_saga WHERE state IN ('done', 'undone') AND updated_at < $1")),
            insert: std::array::from_fn(|index| {
                let rows: Vec<String> = (0..=index)
                    .map(|row| {
                        let at = row * 6;
                        format!("(${}, ${}, ${}, ${}, ${}, ${})", at + 1, at + 2, at + 3, at + 4, at + 5, at + 6)
                    })
                    .collect();
                text(format!("INSERT INTO {p}_saga_event (saga_id, seq, step, what, data, at) VALUES {}", rows.join(", ")))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_function_and_the_macro_make_the_same_tables() {
        assert_eq!(super::ddl("machine"), crate::ddl!("machine"));
        assert!(super::ddl("machine").contains("CREATE TABLE machine_saga_event ("));
    }
}
