//! What the API takes and gives, in JSON. Names follow the API's own contract, not the bus'.

pub(crate) mod account;
pub(crate) mod cluster;
pub(crate) mod deployment;
pub(crate) mod gpu;
pub(crate) mod machine;
pub(crate) mod operation;
pub(crate) mod system;
pub(crate) mod trace;
pub(crate) mod workloads;

use std::borrow::Cow;

use nimbus_model::{Os, Tier, Timestamp};
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A point in time: RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct At(pub Timestamp);

impl From<Timestamp> for At {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl PartialSchema for At {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A point in time: RFC 3339 in UTC."))
            .build()
            .into()
    }
}

impl ToSchema for At {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Timestamp")
    }
}

/// Names of sizes.
pub(crate) fn tier_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Tier::all().iter().map(|t| t.key())))
        .build()
}

/// Names of operating systems.
pub(crate) fn os_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Os::all().iter().map(|o| o.key())))
        .build()
}

/// A hostname.
pub(crate) fn hostname_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))
        .max_length(Some(63))
        .build()
}
