use std::time::{Duration, SystemTime};

use super::*;

fn folder(pattern: &str, address: &str) -> Option<String> {
    let folders = UserFolders::parse(pattern).unwrap();
    let address = Address::parse_utf8(address).unwrap();
    let folder = folders.folder_of(&address)?;
    Some(folder.to_str().unwrap().to_owned())
}

#[test]
fn a_path_has_places_for_what_an_address_consists_of() {
    for (pattern, address, expected) in [
        ("/u/%h/%u", "Bob@Example.ORG", "/u/example.org/bob"),
        ("/u/%a/x", "bob@example.org", "/u/bob@example.org/x"),
        ("%u-%u%%", "bob@example.org", "bob-bob%"),
        ("/u/%u", "postmaster", "/u/postmaster"),
        ("/u/%u", "\"a b\"@example.org", "/u/a b"),
        ("/u/%u", "Ünal@example.org", "/u/ünal"),
        ("/u/%u", "a.b+c@example.org", "/u/a.b+c"),
        ("/u/%h", "bob@[192.0.2.1]", "/u/[192.0.2.1]"),
        // Not a place in what stands in another's place.
        ("/u/%u", "%h@example.org", "/u/%h"),
    ] {
        assert_eq!(folder(pattern, address).as_deref(), Some(expected));
    }
}

#[test]
fn an_address_that_is_more_than_a_name_has_no_folder() {
    let long = format!("\"{}\"@example.org", "ü".repeat(128));
    for (pattern, address) in [
        ("/u/%u", "\"..\"@example.org"),
        ("/u/%u", "\".\"@example.org"),
        ("/u/%u", "\".ssh\"@example.org"),
        ("/u/%u", "\"a/b\"@example.org"),
        ("/u/%u", "\"a..b\"@example.org"),
        ("/u/%u", "\"/etc\"@example.org"),
        ("/u/%u", "\"a\\\\b\"@example.org"),
        ("/u/%u", "\"\"@example.org"),
        ("/u/%a", "a/../../b@example.org"),
        ("/u/%h", "postmaster"),
        ("/u/%u", &long),
    ] {
        // What the grammar does not let through need not be looked at.
        if Address::parse_utf8(address).is_ok() {
            assert_eq!(folder(pattern, address), None, "{address}");
        }
    }
    for part in [
        "", ".", "..", "a/b", "a\0b", "a\nb", "a\u{85}b", "../x", "x/..",
    ] {
        assert_eq!(safe(part), None, "{part:?}");
    }
}

#[test]
fn no_folder_for_all_and_no_place_for_nothing() {
    for pattern in ["/u/users", "/u/%n/%u", "/u/%", "/u/%U"] {
        assert!(UserFolders::parse(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn the_first_value_of_databytes_counts() {
    let file = Path::new("databytes");
    for (text, expected) in [
        ("", None),
        ("# none\n\n", None),
        ("# some\n  1000 \n2", Some(1000)),
        ("0", Some(core::MAX_SIZE)),
    ] {
        assert_eq!(databytes(text, file).unwrap(), expected, "{text:?}");
    }
    let wrong = databytes("# so many\n\nten\n", file).unwrap_err();
    assert!(
        wrong
            .to_string()
            .starts_with("databytes:3:1: expected bytes"),
        "{wrong}"
    );
    assert!(databytes("99999999999999999999", file).is_err());
}

#[test]
fn a_changed_folder_has_another_state() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("bob");
    assert_eq!(FolderState::of(&folder), Ok(None));
    std::fs::create_dir(&folder).unwrap();
    let mut states = vec![FolderState::of(&folder).unwrap().unwrap()];
    assert!(!states[0].is_settled());
    let mut note = || {
        let state = FolderState::of(&folder).unwrap().unwrap();
        assert!(!states.contains(&state));
        states.push(state);
    };
    // Whatever the clock of the file system, sizes and names differ.
    std::fs::write(folder.join(SETTINGS), "a = 1").unwrap();
    note();
    std::fs::write(folder.join(SETTINGS), "a = 10").unwrap();
    note();
    std::fs::write(folder.join(SIZE), "1").unwrap();
    note();
    let file = std::fs::File::open(folder.join(SIZE)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(100))
        .unwrap();
    note();
    // A file in the place of the folder is none.
    let state = FolderState::of(&folder.join(SIZE));
    assert_eq!(state, Ok(None));
}
