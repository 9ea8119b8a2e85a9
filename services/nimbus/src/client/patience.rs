//! Asking again until it goes well.

use std::time::Duration;

use tokio::time::Instant;

use crate::problem::Outcome;

/// Between two questions: as often as a person looks who waits.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks, and again until it goes well, for `most` at most: not at all again when that is zero. The last failure, or the
/// first that asking again does not mend.
pub(crate) async fn until_well<T>(most: Duration, mut ask: impl AsyncFnMut() -> Outcome<T>) -> Outcome<T> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(problem) if problem.is_passing() && begun.elapsed() < most => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use nimbus_errors::Code;

    use super::*;
    use crate::problem::Problem;

    async fn asked(most: Duration, good_at: u32, problem: fn() -> Problem) -> (u32, bool) {
        let mut times = 0;
        let outcome = until_well(most, async || {
            times += 1;
            if times == good_at { Ok(()) } else { Err(problem()) }
        })
        .await;
        (times, outcome.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for_and_nothing_else() {
        let passing = || Problem::failed("down");
        let for_good = || Problem::failed("refused").code(Code::AuthUnauthorized.as_str());
        assert_eq!(asked(Duration::from_secs(10), 3, passing).await, (3, true));
        assert_eq!(
            asked(Duration::from_secs(1), 9, passing).await,
            (3, false),
            "at 0, 0.5 and 1 s"
        );
        assert_eq!(
            asked(Duration::ZERO, 2, passing).await,
            (1, false),
            "once, unless told to wait"
        );
        assert_eq!(
            asked(Duration::from_secs(10), 3, for_good).await,
            (1, false),
            "time does not mend it"
        );
    }
}
