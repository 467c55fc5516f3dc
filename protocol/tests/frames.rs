//! Frames as properties: what is sent is what arrives, and nothing that arrives does harm.

#![allow(clippy::unwrap_used)] // A test may stop where it stands.

use std::collections::BTreeMap;

use gatepost_protocol::channel::FrameReader;
use gatepost_protocol::frame::{self, MAX_INTEGER};
use gatepost_protocol::wire::ReplyMessage;
use gatepost_protocol::{Change, Value};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        (-MAX_INTEGER..=MAX_INTEGER).prop_map(Value::Integer),
        "\\PC{0,40}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            proptest::collection::btree_map("[a-z]{1,8}", inner, 0..6).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn a_message_arrives_as_it_was_sent_in_whatever_pieces(id in 0..1u64 << 53, value in value(), piece in 1usize..64) {
        let message = ReplyMessage { id, ok: Some(value), error: None };
        let sent = frame::encode(&message).unwrap();
        let pieces = sent.chunks(piece).map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(piece)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let arrived = runtime.block_on(async {
            let source = tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces));
            FrameReader::new(source).next().await.unwrap().unwrap()
        });
        prop_assert_eq!(arrived.kind(), "reply");
        prop_assert_eq!(arrived.decode::<ReplyMessage>().unwrap(), message);
    }

    #[test]
    fn garbage_is_refused_and_never_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        if frame::check(&payload).is_ok() {
            // What passes the check is plain data in full.
            frame::decode::<Value>(&payload).unwrap();
        }
    }

    #[test]
    fn a_damaged_message_is_refused_or_read_and_never_a_panic(at in 0usize..200, byte in any::<u8>()) {
        let values = BTreeMap::from([("data".to_owned(), Value::Bytes(b"J\xf6rg".to_vec()))]);
        let mut sent = frame::encode(&ReplyMessage { id: 7, ok: Some(Value::Map(values)), error: None }).unwrap();
        let at = 4 + at % (sent.len() - 4);
        sent[at] = byte;
        if frame::check(&sent[4..]).is_ok() {
            let _ = frame::decode::<ReplyMessage>(&sent[4..]);
            let _ = frame::decode::<Change>(&sent[4..]);
        }
    }
}
