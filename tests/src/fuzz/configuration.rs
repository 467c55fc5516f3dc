//! Configurations: each mistake has its place in the file, and what stands above moves it and changes nothing.

use std::sync::LazyLock;

use gatepost::config::{Mistake, Mistakes, parse};
use gatepost_protocol::Definition;

/// Lines of comment that are put above.
const LINES: usize = 3;

static DEFINITIONS: LazyLock<Vec<Definition>> = LazyLock::new(gatepost::plugins::all);

/// Takes an input as the text of `gatepost.toml`.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read = parse(text, "gatepost.toml", &DEFINITIONS);
    let below = parse(
        &format!("{}{text}", "# x\n".repeat(LINES)),
        "gatepost.toml",
        &DEFINITIONS,
    );
    match (read, below) {
        (Ok(config), Ok(below)) => {
            assert_eq!(config.hostname, below.hostname);
            assert_eq!(config.limits.max_size, below.limits.max_size);
            let names = |config: &gatepost::config::Config| -> Vec<_> {
                config
                    .plugins
                    .iter()
                    .map(|plugin| plugin.name.clone())
                    .collect()
            };
            assert_eq!(names(&config), names(&below));
            compare(&config.warnings, &below.warnings, text);
        }
        (Err(mistakes), Err(below)) => {
            assert!(!mistakes.is_empty());
            compare(&mistakes, &below, text);
        }
        (read, below) => panic!("{:?} {:?}", read.err(), below.err()),
    }
}

fn compare(mistakes: &Mistakes, below: &Mistakes, text: &str) {
    let below: Vec<&Mistake> = below.iter().collect();
    assert_eq!(mistakes.iter().count(), below.len());
    for (mistake, below) in mistakes.iter().zip(below) {
        check_place(mistake, text);
        assert_eq!(
            without_lines(&mistake.message),
            without_lines(&below.message)
        );
        let place = below.place.clone().map(|mut place| {
            place.line -= LINES;
            place
        });
        assert_eq!(mistake.place, place, "{}", mistake.message);
    }
    let shown = mistakes.to_string();
    let is_plain = |c: char| c == '\n' || !c.is_control();
    assert!(shown.chars().all(is_plain), "{shown:?}");
}

/// A message but for the numbers of lines that it names.
fn without_lines(message: &str) -> String {
    let mut pieces = message.split("line ");
    let mut rest = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        rest.push_str("line ");
        rest.push_str(piece.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    rest
}

fn check_place(mistake: &Mistake, text: &str) {
    assert!(!mistake.message.is_empty());
    let Some(place) = &mistake.place else {
        // Of a key with more parts than anybody writes the parser does not say where it stands.
        return assert_eq!(mistake.message, "recursion limit");
    };
    let line = text.split('\n').nth(place.line - 1);
    let line = line.map(|line| line.trim_end_matches('\r'));
    assert_eq!(line, Some(&*place.text), "{}", mistake.message);
    let length = place.text.chars().count();
    assert!(place.column >= 1 && place.column <= length + 1, "{place:?}");
    assert!(
        place.width >= 1 && place.width <= (length + 1 - place.column).max(1),
        "{place:?}"
    );
}
