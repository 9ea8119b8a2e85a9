//! How many copies the server keeps of each stream.

use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use crate::bus::Bus;
use crate::error::BusError;

/// Streams that the server names at once.
const PAGE: usize = 256;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    streams: Option<Vec<Info>>,
}

#[derive(Deserialize)]
struct Info {
    config: Value,
}

impl Bus {
    /// Gives every stream this many copies; the names of those that had another number. A stream made
    /// later has one copy. For the process that administers the bus: services have no right to it.
    ///
    /// # Errors
    /// Fewer servers than copies, a server without JetStream, or a credential without the right.
    pub async fn set_replicas(&self, replicas: u8) -> Result<Vec<String>, BusError> {
        let mut changed = Vec::new();
        let mut offset = 0;
        loop {
            let page: Page = self
                .storage("$JS.API.STREAM.LIST", &json!({ "offset": offset }))
                .await?;
            let page = page.streams.unwrap_or_default();
            let count = page.len();
            for Info { mut config } in page {
                let name = config
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                if config.get("num_replicas").and_then(Value::as_u64) == Some(u64::from(replicas)) {
                    continue;
                }
                if let Some(fields) = config.as_object_mut() {
                    fields.insert("num_replicas".to_owned(), Value::from(replicas));
                }
                self.storage::<Value>(&format!("$JS.API.STREAM.UPDATE.{name}"), &config)
                    .await?;
                info!(stream = %name, replicas, "the stream {name} is kept {replicas} times");
                changed.push(name);
            }
            if count < PAGE {
                changed.sort();
                return Ok(changed);
            }
            offset += count;
        }
    }
}
