//! The HTTP edge: it translates between HTTP and the bus, and keeps nothing but caches.
//!
//! | Part | Does |
//! |---|---|
//! | `server` | accepts connections, speaks HTTP/1.1 and TLS, drains on stop |
//! | `edge` | the one stack every request passes: id, trace, panic guard, limits, origin, headers |
//! | `principals` | credentials in exchange for access tokens, cached until they end or are revoked |
//! | `hub` | the one subscription to domain events, fanned out to event streams and waiting requests |
//! | `channel` | streams and questions into sandboxes |
//! | `files` | files inside sandboxes |
//! | `feed` | what is streamed line by line: logs, output of commands |
//! | `follow` | waits for an operation on behalf of a request |
//! | `inference` | models behind the gateway, by the OpenAI API |
//! | `job_log` | logs of GPU jobs as they grow |
//! | `grpc` | the verbs of Workloads with typed stubs, on the same port |
//! | `routes` | one file per group; every route is in the OpenAPI document or it does not exist |

mod access;
mod assets;
mod browser;
mod channel;
mod config;
mod docs_page;
mod edge;
mod envelope;
mod extract;
mod feed;
mod files;
mod fleet;
mod follow;
mod grpc;
mod hub;
mod inference;
mod input;
mod job_log;
mod knowledge;
mod openapi;
mod principals;
mod prompt;
mod proxy;
mod public;
mod routes;
mod server;
mod state;
mod terminal;
mod throttle;
mod views;

pub use config::GatewayConfig;
pub use openapi::document;
pub use server::run;
