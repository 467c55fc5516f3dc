//! Reads the date of a message (RFC 5322 §3.3, with the obsolete forms of §4.3).

/// Seconds since 1970 of a Date header's value; `None` where it is no date.
pub fn parse(value: &[u8]) -> Option<i64> {
    let text = without_comments(std::str::from_utf8(value).ok()?);
    // The name of the day says nothing that the date does not.
    let text = text.split_once(',').map_or(text.as_str(), |(_, rest)| rest);
    let mut words = text.split_whitespace();
    let day = number(words.next()?, 1..=31)?;
    let month = month(words.next()?)?;
    let year = year(words.next()?)?;
    if day > days_in(month, year) {
        return None;
    }
    let mut clock = words.next()?.split(':');
    let hour = number(clock.next()?, 0..=23)?;
    let minute = number(clock.next()?, 0..=59)?;
    // 60: a leap second.
    let second = clock
        .next()
        .map_or(Some(0), |second| number(second, 0..=60))?;
    if clock.next().is_some() {
        return None;
    }
    let offset = words.next().map_or(Some(0), offset)?;
    if words.next().is_some() {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

fn without_comments(text: &str) -> String {
    let mut depth = 0u32;
    text.chars()
        .filter(|character| {
            let opens = *character == '(';
            let closes = *character == ')' && depth > 0;
            depth = depth + u32::from(opens) - u32::from(closes);
            depth == 0 && !closes
        })
        .collect()
}

fn number(text: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok())??;
    range.contains(&number).then_some(number)
}

fn month(name: &str) -> Option<i64> {
    const NAMES: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let index = NAMES
        .iter()
        .position(|known| known.eq_ignore_ascii_case(name))?;
    Some(index as i64 + 1)
}

/// RFC 5322 §4.3: two digits up to 49 are of this century, the others, and three digits, count from 1900.
fn year(text: &str) -> Option<i64> {
    let year = number(text, 0..=9999)?;
    match text.len() {
        2 if year < 50 => Some(2000 + year),
        2 | 3 => Some(1900 + year),
        4 => Some(year),
        _ => None,
    }
}

/// Seconds east of UTC. Names that are not in RFC 5322 §4.3 mean nothing certain and count as UTC.
fn offset(zone: &str) -> Option<i64> {
    let digits = zone
        .strip_prefix(['+', '-'])
        .filter(|digits| digits.len() == 4);
    if let Some(digits) = digits {
        let (hours, minutes) = digits.split_at_checked(2)?;
        let seconds = number(hours, 0..=99)? * 3600 + number(minutes, 0..=59)? * 60;
        return Some(if zone.starts_with('-') {
            -seconds
        } else {
            seconds
        });
    }
    if !zone.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let hours = match zone.to_ascii_uppercase().as_str() {
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        _ => 0,
    };
    Some(hours * 3600)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(month: i64, year: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let before = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    let in_year: i64 = (1..month).map(|month| days_in(month, year)).sum();
    before + in_year + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 +0000", 0),
            ("Sun, 22 Nov 2026 10:33:54 +0100", 1_795_340_034),
            ("22 Nov 2026 10:33 +0100", 1_795_340_020 - 40),
            ("Sun,22 NOV 2026 04:33:54 EST (Eastern (US))", 1_795_340_034),
            ("Sun, 22\r\n Nov 26 09:33:54 GMT", 1_795_340_034),
            ("Tue, 29 Feb 2000 12:00:00 -0000", 951_825_600),
            ("1 Jan 99 00:00:00 Z", 915_148_800),
            ("Thu, 01 Jan 1970 00:00:00", 0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(seconds), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-11-22T10:33:54Z",
            "29 Feb 2026 12:00:00 +0000",
            "1 Jan 2026 24:00:00 +0000",
            "1 Jan 2026 12:00:00 +00:00",
            "1 Jan 2026 12:00:00 +0000 and more",
            "1 Jan 20260 12:00:00 +0000",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[ -~]{0,60}") {
            parse(text.as_bytes());
        }

        #[test]
        fn days_follow_each_other(day in 0i64..80_000) {
            // Walks the calendar from 1900 on, beside the formula.
            let (mut year, mut month, mut left) = (1900, 1, day);
            while left >= days_in(month, year) {
                left -= days_in(month, year);
                month += 1;
                if month > 12 {
                    (year, month) = (year + 1, 1);
                }
            }
            prop_assert_eq!(days_since_1970(year, month, left + 1), day - 25_567);
        }
    }
}
