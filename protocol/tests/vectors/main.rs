//! The shared test vectors of `protocol/vectors/`, which every SDK passes: what is in the files is what this crate says and takes.
//!
//! `UPDATE_VECTORS=1 cargo test -p gatepost-protocol --test vectors` writes the files anew.

#![allow(clippy::unwrap_used)] // A test may stop where it stands.

mod messages;

use gatepost_protocol::frame::{self, FrameError, MAX_FRAME};
use gatepost_protocol::wire::*;
use gatepost_protocol::{Change, Value};
use serde_json::{Value as Json, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn framed(payload: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(payload.len()).unwrap().to_be_bytes(),
        payload,
    ]
    .concat()
}

/// Bytes are written `{"$bytes": "<hex>"}`.
fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(truth) => json!(truth),
        Value::Integer(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!({ "$bytes": hex(bytes) }),
        Value::List(list) => list.iter().map(to_json).collect(),
        Value::Map(map) => Json::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), to_json(value)))
                .collect(),
        ),
    }
}

fn read(frame_bytes: &[u8]) -> Result<Value, FrameError> {
    let head = frame_bytes.get(..4).ok_or(FrameError::Truncated)?;
    let length = frame::length(head.try_into().unwrap())?;
    let payload = frame_bytes
        .get(4..4 + length)
        .ok_or(FrameError::Truncated)?;
    frame::check(payload)?;
    frame::decode(payload)
}

fn error_name(error: &FrameError) -> &'static str {
    match error {
        FrameError::Empty => "empty",
        FrameError::TooLong(_) => "too_long",
        FrameError::Truncated => "truncated",
        FrameError::Trailing => "trailing",
        FrameError::NotAMap => "not_a_map",
        FrameError::Depth => "depth",
        FrameError::BadKey => "bad_key",
        FrameError::DuplicateKey(_) => "duplicate_key",
        FrameError::Ext => "ext",
        FrameError::Float => "float",
        FrameError::IntegerRange => "integer_range",
        FrameError::Malformed(_) => "malformed",
    }
}

/// Compares with the file, or writes it.
fn matches_file(name: &str, made: &Json) {
    let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = serde_json::to_string_pretty(made).unwrap() + "\n";
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let file: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        &file, made,
        "{name} is not what the crate says; see the head of this test"
    );
}

#[test]
fn frames() {
    let nested = |depth: usize| {
        // A map whose value is lists within lists.
        let mut payload = b"\x81\xa1v".to_vec();
        payload.extend(std::iter::repeat_n(0x91, depth - 1));
        payload.push(0xc0);
        payload
    };
    let mut long_text = b"\x81\xa1v\xda\x01\x2c".to_vec();
    long_text.extend_from_slice(&[b'x'; 300]);
    let good: Vec<(&str, Vec<u8>)> = vec![
        ("a kind and nothing else", b"\x81\xa4kind\xa7goodbye".to_vec()),
        ("an unknown kind", b"\x81\xa4kind\xa6future".to_vec()),
        ("nil, true, false", b"\x83\xa1a\xc0\xa1b\xc3\xa1c\xc2".to_vec()),
        ("integers of every width", b"\x89\xa1a\x00\xa1b\x7f\xa1c\xe0\xa1d\xcc\xff\xa1e\xcd\xff\xff\xa1f\xce\xff\xff\xff\xff\xa1g\xd0\x80\xa1h\xd1\x80\x00\xa1i\xd2\x80\x00\x00\x00".to_vec()),
        ("two to the fifty-third", b"\x82\xa1a\xcf\x00\x20\x00\x00\x00\x00\x00\x00\xa1b\xd3\xff\xe0\x00\x00\x00\x00\x00\x00".to_vec()),
        ("an integer wider than it need be", b"\x81\xa1a\xcf\x00\x00\x00\x00\x00\x00\x00\x07".to_vec()),
        ("text that looks like a number", b"\x81\xa7address\xa3007".to_vec()),
        ("empty text, list and map", b"\x83\xa1a\xa0\xa1b\x90\xa1c\x80".to_vec()),
        ("text beyond ASCII", b"\x81\xa1a\xa5J\xc3\xb6rg".to_vec()),
        ("bytes that are not UTF-8", b"\x81\xa1a\xc4\x03\xff\x00\xfe".to_vec()),
        ("a text of 300 bytes", long_text),
        ("wide headers for short things", b"\xde\x00\x02\xd9\x01a\xdc\x00\x01\x01\xda\x00\x01b\xdf\x00\x00\x00\x01\xa1c\xdb\x00\x00\x00\x01d".to_vec()),
        ("as deep as may be", nested(16)),
    ];
    let mut broken: Vec<(&str, Vec<u8>)> = vec![
        ("length 0", vec![0, 0, 0, 0]),
        (
            "length 1 MiB and one",
            (u32::try_from(MAX_FRAME).unwrap() + 1)
                .to_be_bytes()
                .to_vec(),
        ),
        ("length 4 GiB", vec![0xff; 4]),
        ("half a length", vec![0, 0]),
        ("half a frame", b"\0\0\0\x0a\x81\xa4kind".to_vec()),
    ];
    let payloads: Vec<(&str, Vec<u8>)> = vec![
        ("text cut off", b"\x81\xa1a\xa9abc".to_vec()),
        (
            "a map with fewer entries than it says",
            b"\x82\xa1a\x01".to_vec(),
        ),
        (
            "a list of four thousand million",
            b"\x81\xa1a\xdd\xff\xff\xff\xff".to_vec(),
        ),
        (
            "a map of four thousand million",
            b"\xdf\xff\xff\xff\xff".to_vec(),
        ),
        ("bytes behind the map", b"\x81\xa1a\x01\xc0".to_vec()),
        ("two maps", b"\x81\xa1a\x01\x81\xa1a\x01".to_vec()),
        ("a list", b"\x91\x01".to_vec()),
        ("an integer", b"\x01".to_vec()),
        ("nil", b"\xc0".to_vec()),
        ("too deep", nested(17)),
        ("a key twice", b"\x82\xa1a\x01\xa1a\x02".to_vec()),
        (
            "a key twice further down",
            b"\x81\xa1m\x83\xa1a\x01\xa1b\x02\xa1a\x03".to_vec(),
        ),
        ("a key that is an integer", b"\x81\x01\x01".to_vec()),
        ("a key that is nil", b"\x81\xc0\x01".to_vec()),
        ("an ext type", b"\x81\xa1a\xd4\x01\x00".to_vec()),
        ("a timestamp", b"\x81\xa1a\xd6\xff\x00\x00\x00\x00".to_vec()),
        ("a long ext type", b"\x81\xa1a\xc7\x01\x05\x00".to_vec()),
        ("a short float", b"\x81\xa1a\xca\x3f\x80\x00\x00".to_vec()),
        (
            "a long float",
            b"\x81\xa1a\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00".to_vec(),
        ),
        (
            "beyond two to the fifty-third",
            b"\x81\xa1a\xcf\x00\x20\x00\x00\x00\x00\x00\x01".to_vec(),
        ),
        (
            "below minus two to the fifty-third",
            b"\x81\xa1a\xd3\xff\xdf\xff\xff\xff\xff\xff\xff".to_vec(),
        ),
        (
            "the byte that MessagePack never uses",
            b"\x81\xa1a\xc1".to_vec(),
        ),
    ];
    broken.extend(
        payloads
            .into_iter()
            .map(|(name, payload)| (name, framed(&payload))),
    );

    let good: Vec<Json> = good
        .into_iter()
        .map(|(name, payload)| {
            let frame_bytes = framed(&payload);
            let value = read(&frame_bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            json!({ "name": name, "hex": hex(&frame_bytes), "value": to_json(&value) })
        })
        .collect();
    let broken: Vec<Json> = broken
        .into_iter()
        .map(|(name, frame_bytes)| {
            let error = read(&frame_bytes).expect_err(name);
            json!({ "name": name, "hex": hex(&frame_bytes), "error": error_name(&error) })
        })
        .collect();
    matches_file("frames.json", &json!({ "frames": good, "broken": broken }));
}

#[test]
fn text_may_come_as_bytes_and_bytes_as_text() {
    let payload = b"\x83\xa4kind\xc4\x06result\xa2id\x07\xa7results\x91\x82\xa6plugin\xc4\x03vip\xa7changes\x91\x83\xa2op\xc4\x0aadd_header\xa4name\xc4\x01X\xa5value\xa1y";
    assert_eq!(frame::check(payload), Ok("result"));
    let result: ResultMessage = frame::decode(payload).unwrap();
    assert_eq!(result.results[0].plugin, "vip");
    let change = &result.results[0].changes.as_ref().unwrap()[0];
    assert_eq!(
        change,
        &Change::AddHeader {
            name: "X".into(),
            value: "y".into(),
            at: gatepost_protocol::Edge::Top
        }
    );
}

#[test]
fn the_files_hold_whole_frames() {
    for name in ["frames.json", "messages.json"] {
        let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
        let file: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let list = if name == "frames.json" {
            &file["frames"]
        } else {
            &file
        };
        for entry in list.as_array().unwrap() {
            let value = read(&unhex(entry["hex"].as_str().unwrap())).unwrap();
            assert_eq!(to_json(&value), entry["value"], "{}", entry["name"]);
        }
    }
}
