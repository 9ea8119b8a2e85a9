//! The HTTP edge: it translates between HTTP and the bus, and keeps nothing but caches.
//!
//! | Part | Does |
//! |---|---|
//! | `server` | accepts connections, speaks HTTP/1.1 and TLS, drains on stop |
//! | `edge` | the one stack every request passes: id, trace, panic guard, limits, origin, headers |
//! | `principals` | credentials in exchange for access tokens, cached until they end or are revoked |
//! | `hub` | the one subscription to domain events, fanned out to event streams and waiting requests |
//! | `follow` | waits for an operation on behalf of a request |
//! | `routes` | one file per group; every route is in the OpenAPI document or it does not exist |

mod access;
mod assets;
mod config;
mod docs_page;
mod edge;
mod envelope;
mod extract;
mod follow;
mod hub;
mod openapi;
mod principals;
mod routes;
mod server;
mod state;
mod throttle;
mod views;

pub use config::GatewayConfig;
pub use openapi::document;
pub use server::run;
