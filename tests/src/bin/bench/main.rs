//! `make bench`: our figure beside its peer's, measured in one run, as a ratio.
//!
//! Everything runs on loopback, is bounded in count and time, and stops by itself. Figures depend on
//! the machine; ratios less so. The budgets are those the project holds itself to on two cores.
#![expect(clippy::print_stdout, reason = "a measuring tool prints")]

mod compose;
mod gpu;
mod http;
mod provision;
mod report;
mod rpc;
mod sandboxes;
mod server;
mod start;

use anyhow::Result;
use report::Report;

#[tokio::main]
async fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let mut report = Report::default();
    if wants("rpc") {
        rpc::measure(&mut report).await?;
    }
    if wants("start") {
        start::measure(&mut report).await?;
    }
    if wants("http") {
        http::measure(&mut report).await?;
    }
    if wants("provision") {
        provision::measure(&mut report).await?;
    }
    if wants("sandboxes") {
        sandboxes::measure(&mut report).await?;
    }
    if wants("gpu") {
        gpu::measure(&mut report).await?;
    }
    if wants("compose") {
        compose::measure(&mut report).await?;
    }
    report.print();
    Ok(())
}
