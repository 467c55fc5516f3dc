//! What plugin processes send: frames in any blocks, messages of every kind, results and the changes in them. Whatever a plugin says, what it is taken to have said can be
//! said again, breaks no rule, and leaves a session of which the next plugin can be told.

use std::fmt::Debug;
use std::sync::LazyLock;

use bytes::Bytes;
use gatepost::host::{hook_message, judged};
use gatepost_protocol::change::{MAX_NOTES, MAX_RECIPIENTS, MAX_ROUTE};
use gatepost_protocol::channel::FrameReader;
use gatepost_protocol::frame::{self, FrameError, Kind, MAX_FRAME};
use gatepost_protocol::plugin::Wants;
use gatepost_protocol::wire::{
    CallMessage, Cancel, Failed, Fork, Hello, HookMessage, Init, InitError, Late, Log, Ready,
    ReplyMessage, ResultMessage,
};
use gatepost_protocol::{
    Address, Args, Call, Change, Departure, Disposition, Field, FieldSet, HeaderBlock, Hook,
    Outcome, Parameters, Session, Value, Verdict,
};

use super::client::Script;
use super::{Blocks, in_runtime};

/// Who is asked.
const SEGMENT: [&str; 2] = ["a", "b"];

/// Takes an input as: the blocks that frames come in, and these; and as the payload of one.
pub fn check(input: &[u8]) {
    let Some((blocks, stream)) = Blocks::take(input) else {
        return;
    };
    check_payload(stream);
    let whole = in_runtime(payloads(Script::unheard([stream.to_vec()].into())));
    let cut = in_runtime(payloads(Script::unheard(blocks.cut(stream))));
    assert_eq!(whole, cut);
    for payload in whole.iter().flatten() {
        check_payload(payload);
    }
}

/// Every payload of a channel, and how it ended.
async fn payloads(source: Script) -> Vec<Result<Vec<u8>, String>> {
    let mut reader = FrameReader::new(source);
    let mut all = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(payload)) => {
                assert!(payload.len() <= MAX_FRAME && !payload.is_empty());
                all.push(Ok(payload.to_vec()));
            }
            Ok(None) => return all,
            Err(error) => {
                all.push(Err(error.to_string()));
                return all;
            }
        }
    }
}

fn check_payload(payload: &[u8]) {
    let Ok(kind) = frame::check(payload) else {
        return;
    };
    assert!(kind.len() <= 255);
    again::<Hello>(payload);
    again::<Init>(payload);
    again::<Ready>(payload);
    again::<InitError>(payload);
    again::<HookMessage<'_>>(payload);
    again::<ResultMessage>(payload);
    again::<Late>(payload);
    again::<Cancel>(payload);
    again::<CallMessage>(payload);
    again::<ReplyMessage>(payload);
    again::<Log>(payload);
    again::<Failed>(payload);
    again::<Fork>(payload);
    check_value(payload);
    let Ok(turns) = judged(payload, &SEGMENT) else {
        return;
    };
    assert!((1..=SEGMENT.len()).contains(&turns.len()));
    let (_, before) = turns.split_last().unwrap();
    // Whether the next one is to be asked is the operator's to say, so a process that asked it broke the rules.
    for (outcome, _) in before {
        let found = matches!(
            outcome.disposition,
            Some(Disposition::Fail | Disposition::Error)
        );
        let verdict = outcome.verdict.unwrap_or(Verdict::Declined);
        assert!(verdict == Verdict::Declined && !(found && outcome.verdict.is_none()));
        assert!(outcome.recipients.is_empty());
    }
    for (outcome, defer) in turns {
        assert!(
            defer.is_none()
                || outcome
                    .verdict
                    .or(outcome.disposition.map(|_| Verdict::Ok))
                    .is_none()
        );
        check_outcome(&outcome);
    }
}

/// What was read as a message is one: written, and read again, it is the same.
fn again<T: Kind + PartialEq + Debug>(payload: &[u8]) {
    let Ok(message) = frame::decode::<T>(payload) else {
        return;
    };
    let frame = match frame::encode(&message) {
        Ok(frame) => frame,
        Err(FrameError::TooLong(_)) => return,
        Err(error) => panic!("{error}: {message:?}"),
    };
    let (head, payload) = frame.split_first_chunk().unwrap();
    assert_eq!(frame::length(*head), Ok(payload.len()));
    assert_eq!(frame::check(payload), Ok(T::KIND), "{message:?}");
    assert_eq!(frame::decode::<T>(payload).as_ref(), Ok(&message));
}

/// Plain data is within its bounds, and stays itself.
fn check_value(payload: &[u8]) {
    let Ok(value) = frame::decode::<Value>(payload) else {
        return;
    };
    let message = CallMessage {
        id: 1,
        hook: None,
        method: String::new(),
        params: value,
    };
    let Ok(frame) = frame::encode(&message) else {
        return;
    };
    // One map more stands around it.
    let checked = frame::check(&frame[4..]);
    assert!(
        matches!(checked, Ok(CallMessage::KIND) | Err(FrameError::Depth)),
        "{checked:?}"
    );
    assert_eq!(frame::decode::<CallMessage>(&frame[4..]), Ok(message));
}

fn check_outcome(outcome: &Outcome) {
    for (code, enhanced) in [(outcome.code, outcome.enhanced)].into_iter().chain(
        outcome
            .recipients
            .iter()
            .map(|(_, own)| (own.code, own.enhanced)),
    ) {
        let Some(code) = code else { continue };
        assert!((200..600).contains(&code));
        assert!(enhanced.is_none_or(|enhanced| u16::from(enhanced.0) == code / 100));
    }
    for hook in [Hook::Connect, Hook::DataPost] {
        let mut session = session(hook);
        for change in &outcome.changes {
            let before = format!("{session:?}");
            let made = change
                .check(hook)
                .and_then(|()| change.apply(&mut session, SEGMENT[0]));
            if made.is_err() {
                assert_eq!(format!("{session:?}"), before, "{change:?}");
            }
            check_session(&session, change);
        }
        check_told(&session, hook);
    }
}

fn session(hook: Hook) -> Session {
    let mut session = Session {
        id: "5e55".into(),
        ..Session::default()
    };
    session.connection.remote = Some("192.0.2.1:1234".parse().unwrap());
    if hook != Hook::Connect {
        let transaction = &mut session.transaction;
        transaction.number = 1;
        transaction.sender = Some(Address::null());
        transaction.add_recipient(
            Address::parse("bob@example.org").unwrap(),
            Parameters::new(),
        );
        transaction.header = Some(HeaderBlock::parse(Bytes::from_static(HEADER)));
    }
    session
}

const HEADER: &[u8] = b" begins folded\r\nFrom: a@b\r\nSubject: x\r\n\ty\r\nno colon\r\n";

/// What a plugin may not do, whatever it asks for.
fn check_session(session: &Session, change: &Change) {
    let (connection, transaction) = (&session.connection, &session.transaction);
    if let Some(header) = &transaction.header {
        let written = HeaderBlock::parse(header.to_bytes());
        assert_eq!(written.len(), header.len(), "{change:?}");
    }
    assert!(transaction.recipients.len() <= MAX_RECIPIENTS);
    assert!(
        transaction
            .recipients
            .iter()
            .all(|address| !address.is_null()),
        "{change:?}"
    );
    let notes = |notes: &gatepost_protocol::session::Notes| -> usize {
        notes.values().map(Value::weight).sum()
    };
    assert!(notes(&connection.notes) + notes(&transaction.notes) <= MAX_NOTES);
    let is_plain = |text: &String| !text.contains(char::is_control);
    assert!(
        transaction
            .routes
            .values()
            .all(|route| route.len() <= MAX_ROUTE && is_plain(route))
    );
    assert!(connection.auth_results.iter().all(is_plain));
    assert!(
        connection.remote_info.iter().all(is_plain) && connection.remote_host.iter().all(is_plain)
    );
}

static EVERYTHING: LazyLock<Wants> = LazyLock::new(|| Wants {
    fields: FieldSet::of(Field::ALL),
    notes: vec!["*".to_owned()],
});

/// The next plugin can be told of it all.
fn check_told(session: &Session, hook: Hook) {
    let call = Call {
        hook,
        session,
        args: &Args::None,
        message: None,
        deadline: std::time::Duration::from_secs(1),
        settings: None,
        departure: &Departure::new(),
        speech: None,
    };
    let message = hook_message(&SEGMENT, &EVERYTHING, &call);
    match frame::encode(&message) {
        Ok(frame) => {
            assert_eq!(frame::check(&frame[4..]), Ok(HookMessage::KIND));
            let told = frame::decode::<HookMessage<'_>>(&frame[4..]);
            assert_eq!(told.as_ref(), Ok(&message));
        }
        Err(error) => assert!(matches!(error, FrameError::TooLong(_)), "{error}"),
    }
}
