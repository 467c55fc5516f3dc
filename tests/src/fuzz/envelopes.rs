//! Envelopes of the outbox and the quarantine, read back from the disk, where anybody with a mind to it may have written: what is read is written alike, and has a session.

use std::time::Duration;

use gatepost::outbox::{Envelope, time};
use gatepost_protocol::HeaderBlock;

/// Takes an input as an envelope's file.
pub fn check(input: &[u8]) {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(input) else {
        return;
    };
    let written = serde_json::to_vec_pretty(&envelope).unwrap();
    let read: Envelope = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec_pretty(&read).unwrap(), written);

    let session = envelope.session("5e55", 1, HeaderBlock::default(), None);
    let transaction = &session.transaction;
    assert_eq!(transaction.sender.as_ref(), Some(&envelope.sender));
    assert_eq!(transaction.recipients.len(), envelope.recipients.len());
    for (at, recipient) in envelope.recipients.iter().enumerate() {
        assert_eq!(transaction.recipients[at], recipient.address);
        assert_eq!(transaction.parameters_of(at), &recipient.parameters);
        let path = recipient.address.as_str();
        assert!(!path.contains(char::is_control), "{path:?}");
    }
    assert!(
        envelope.after(Duration::MAX)
            >= envelope.arrived.min(envelope.released.unwrap_or(u64::MAX))
    );
    let released = envelope.released(envelope.due);
    assert!(released.withheld.is_none());
    assert_eq!(released.recipients.len(), envelope.recipients.len());
    for moment in [envelope.arrived, envelope.due, u64::MAX] {
        gatepost::message::date::rfc5322(time(moment));
    }
}
