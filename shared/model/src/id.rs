//! Typed ids: a prefix that names the kind, and a `UUIDv7` (RFC 9562), which sorts by time.
//!
//! Text everywhere: `TEXT` on both databases, a string in JSON and on the bus. A wrong prefix is an
//! error that names the right one.

use uuid::Uuid;

/// Why a text is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind} id: expected {prefix}_ and 32 hexadecimal digits")]
pub struct IdError {
    kind: &'static str,
    prefix: &'static str,
    text: String,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// What the text form starts with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; ids made later sort later.
            #[must_use]
            #[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
            pub fn fresh() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id with exactly this UUID, as tests and snapshots need.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError { kind: $kind, prefix: $prefix, text: text.chars().take(64).collect() };
                let digits = text.strip_prefix(concat!($prefix, "_")).ok_or_else(wrong)?;
                if digits.len() != 32 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(wrong());
                }
                Uuid::try_parse(digits).map(Self).map_err(|_| wrong())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl<DB: sqlx::Database> sqlx::Type<DB> for $name
        where
            String: sqlx::Type<DB>,
        {
            fn type_info() -> DB::TypeInfo {
                <String as sqlx::Type<DB>>::type_info()
            }
            fn compatible(info: &DB::TypeInfo) -> bool {
                <String as sqlx::Type<DB>>::compatible(info)
            }
        }

        impl<'q, DB: sqlx::Database> sqlx::Encode<'q, DB> for $name
        where
            String: sqlx::Encode<'q, DB>,
        {
            fn encode_by_ref(
                &self,
                buffer: &mut <DB as sqlx::Database>::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                <String as sqlx::Encode<'q, DB>>::encode(self.to_string(), buffer)
            }
        }

        impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for $name
        where
            &'r str: sqlx::Decode<'r, DB>,
        {
            fn decode(value: <DB as sqlx::Database>::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                Ok(<&str as sqlx::Decode<'r, DB>>::decode(value)?.parse::<Self>()?)
            }
        }
    };
}

typed_id!(/// A person who can sign in.
          UserId, "usr", "user");
typed_id!(/// What owns resources and quotas; every user has a personal one.
          TenantId, "ten", "tenant");
typed_id!(/// A signed-in browser.
          SessionId, "ses", "session");
typed_id!(/// A personal access token.
          TokenId, "tok", "token");
typed_id!(/// An API key, for programs.
          KeyId, "key", "API key");
typed_id!(/// One virtual machine of a user.
          MachineId, "vm", "machine");
typed_id!(/// One long-running piece of work, which is also one saga.
          OperationId, "op", "operation");
typed_id!(/// One domain event.
          EventId, "evt", "event");
typed_id!(/// One request at the edge, in answers and logs.
          RequestId, "req", "request");
typed_id!(/// One lease of an address.
          AddressId, "adr", "address");
typed_id!(/// One job for a GPU.
          JobId, "job", "job");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form_and_other_prefixes_are_refused_by_name() {
        let id = MachineId::fresh();
        assert_eq!(id.to_string().parse::<MachineId>(), Ok(id));
        let error = UserId::fresh().to_string().parse::<MachineId>().unwrap_err();
        assert!(error.to_string().contains("expected vm_"), "{error}");
        for bad in [
            "",
            "vm_",
            "vm_zz",
            "vm_00000000-0000-0000-0000-000000000000",
            "VM_00000000000000000000000000000000",
        ] {
            assert!(bad.parse::<MachineId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn later_ids_sort_later() {
        let first = OperationId::fresh();
        let second = OperationId::fresh();
        assert!(first < second && first.to_string() < second.to_string());
    }
}
