//! Waiting for a state, with a bound.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Asks again until the answer is good.
///
/// # Panics
/// When it was not in time; the last answer is in the message.
pub async fn eventually<T: Debug>(
    what: &str,
    bound: Duration,
    mut ask: impl AsyncFnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> T {
    let until = Instant::now() + bound;
    let mut pause = Duration::from_millis(2);
    loop {
        let answer = ask().await;
        if good(&answer) {
            return answer;
        }
        assert!(
            Instant::now() < until,
            "not within {bound:?}: {what}; the last answer was {answer:#?}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Waits for what must end.
///
/// # Panics
/// When it did not in time.
pub async fn within<T>(what: &str, bound: Duration, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(bound, work).await {
        Ok(value) => value,
        Err(_) => panic!("not within {bound:?}: {what}"),
    }
}
