//! How texts of the host say how long something took.

use std::time::Duration;

/// A time for people: `250 ms`, `1.5 s`, `30 s`.
pub(super) fn span(time: Duration) -> String {
    let milliseconds = time.as_millis();
    if milliseconds < 1000 {
        format!("{milliseconds} ms")
    } else if milliseconds.is_multiple_of(1000) {
        format!("{} s", milliseconds / 1000)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let texts = [0, 250, 1500, 30_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(texts, ["0 ms", "250 ms", "1.5 s", "30 s"]);
    }
}
