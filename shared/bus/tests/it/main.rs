//! The bus against a real nats-server: the embedded one, started per test.

mod calls;
mod rights;
mod world;
