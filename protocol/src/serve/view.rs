//! From a `hook` message to the session and arguments that a plugin sees: what was subscribed, the rest empty.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::policy::Level;
use crate::session::{Args, Credentials, Direction, Naughty, Session, Tls};
use crate::wire::{ArgsMessage, ConnectionFields, HookMessage};
use crate::{Address, HeaderBlock, Hook, Score, Scores, Value, Verdict};

/// The session.
pub(super) fn session(message: &HookMessage<'_>) -> Session {
    let mut session = Session {
        id: message.session.as_ref().into(),
        ..Session::default()
    };
    session.transaction.number = message.transaction.unwrap_or_default();
    let owned = |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| text.to_string());
    if let Some(fields) = &message.connection {
        let connection = &mut session.connection;
        connection.remote = socket(fields.remote_ip.as_deref(), fields.remote_port);
        connection.local = socket(fields.local_ip.as_deref(), fields.local_port);
        connection.remote_host = owned(&fields.remote_host);
        connection.remote_info = owned(&fields.remote_info);
        connection.direction = match fields.direction.as_deref() {
            Some("submission") => Direction::Submission,
            Some("relay") => Direction::Relay,
            Some("local") => Direction::Local,
            _ => Direction::Inbound,
        };
        connection.hello = owned(&fields.hello).map(Cow::Owned);
        connection.hello_host = owned(&fields.hello_host);
        connection.early_talker = fields.early_talker.unwrap_or_default();
        connection.relay_client = fields.relay_client.unwrap_or_default();
        connection.immune = owned(&fields.immune);
        connection.whitelisted = owned(&fields.whitelisted);
        connection.naughty = owned(&fields.naughty).map(|message| Naughty {
            plugin: owned(&fields.naughty_plugin).unwrap_or_default(),
            message,
            verdict: fields.naughty_verdict.unwrap_or(Verdict::Deny),
        });
        connection.karma = fields.karma.unwrap_or_default();
        let scores = fields.scores.iter().map(Score::to_static).collect();
        connection.scores = Scores::of(fields.score.unwrap_or_default(), scores);
        connection.authenticated = owned(&fields.authenticated);
        connection.tls = tls(fields).map(Box::new);
        connection.auth_results = fields.auth_results.as_deref().unwrap_or_default().to_vec();
    }
    if let Some(fields) = &message.transaction_fields {
        let transaction = &mut session.transaction;
        transaction.sender = fields.sender.as_deref().cloned();
        transaction.sender_parameters = fields
            .sender_parameters
            .as_deref()
            .cloned()
            .unwrap_or_default();
        transaction.recipients = fields.recipients.as_deref().unwrap_or_default().to_vec();
        transaction.recipient_parameters = fields
            .recipient_parameters
            .as_deref()
            .unwrap_or_default()
            .to_vec();
        transaction.size = fields.size.unwrap_or_default();
        transaction.header = fields
            .header
            .as_ref()
            .map(|header| HeaderBlock::parse(header.to_vec().into()));
        transaction.path = fields.path.as_deref().map(Into::into);
        transaction.header_end = fields.header_end.unwrap_or_default();
        transaction.body_start = fields.body_start.unwrap_or_default();
        transaction.immune = owned(&fields.immune);
        transaction.whitelisted = owned(&fields.whitelisted);
        transaction.quarantine = owned(&fields.quarantine);
        transaction.route = owned(&fields.route);
    }
    if let Some(notes) = &message.notes {
        let copy = |notes: &BTreeMap<Cow<'_, str>, Cow<'_, Value>>| {
            notes
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone().into_owned()))
                .collect()
        };
        session.connection.notes = copy(&notes.connection);
        session.transaction.notes = copy(&notes.transaction);
    }
    session
}

/// What was subscribed of it; `None` where there was nothing to send.
fn tls(fields: &ConnectionFields<'_>) -> Option<Tls> {
    let text = |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| text.to_string());
    let tls = Tls {
        version: text(&fields.tls_version).unwrap_or_default().into(),
        cipher: text(&fields.tls_cipher).unwrap_or_default().into(),
        server_name: text(&fields.tls_server_name),
        client_name: text(&fields.tls_client_name),
    };
    (tls != Tls::default()).then_some(tls)
}

fn socket(ip: Option<&str>, port: Option<u16>) -> Option<SocketAddr> {
    let ip: IpAddr = ip?.parse().ok()?;
    Some(SocketAddr::new(ip, port.unwrap_or_default()))
}

/// The arguments.
pub(super) fn args<'a>(hook: Hook, message: &'a ArgsMessage<'_>) -> Args<'a> {
    let text = |text: &'a Option<Cow<'_, str>>| Cow::Borrowed(text.as_deref().unwrap_or_default());
    match hook {
        Hook::PreConnection => Args::Arrival {
            connections: message.connections.unwrap_or_default(),
            max_connections: message.max_connections.unwrap_or_default(),
        },
        Hook::Helo | Hook::Ehlo => Args::Host(text(&message.host)),
        Hook::HeloParse
        | Hook::EhloParse
        | Hook::MailParse
        | Hook::MailPre
        | Hook::RcptParse
        | Hook::RcptPre => Args::Line(text(&message.line)),
        Hook::Capabilities => {
            let lines = message.capabilities.as_deref().unwrap_or_default();
            Args::Capabilities(lines.iter().map(|line| Cow::Borrowed(&**line)).collect())
        }
        Hook::Mail | Hook::Rcpt => Args::Address {
            address: message
                .address
                .as_deref()
                .map_or(Cow::Owned(Address::null()), Cow::Borrowed),
            parameters: message
                .parameters
                .as_deref()
                .map_or(Cow::Owned(BTreeMap::new()), Cow::Borrowed),
        },
        Hook::Vrfy | Hook::Help => Args::Argument(text(&message.argument)),
        Hook::DataLines => Args::Lines {
            lines: Cow::Borrowed(message.lines.as_ref().map_or(&[][..], |lines| lines)),
            offset: message.offset.unwrap_or_default(),
        },
        Hook::UnrecognizedCommand => Args::Command {
            command: text(&message.command),
            argument: text(&message.argument),
        },
        Hook::AuthMechanism | Hook::Auth => {
            let owned = |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| text.to_string());
            Args::Auth(Cow::Owned(Credentials {
                mechanism: owned(&message.mechanism).unwrap_or_default(),
                user: owned(&message.user).unwrap_or_default(),
                password: owned(&message.password),
                challenge: owned(&message.challenge),
                response: owned(&message.response),
                token: owned(&message.token),
            }))
        }
        Hook::Deny | Hook::Ok => Args::Decided {
            plugin: text(&message.plugin),
            hook: message.hook.unwrap_or(Hook::Connect),
            verdict: message.verdict.unwrap_or(Verdict::Declined),
            message: text(&message.message),
        },
        Hook::Log => Args::Logged {
            level: Level::parse(&text(&message.level)).unwrap_or(Level::Info),
            plugin: message.plugin.as_deref().map(Cow::Borrowed),
            hook: message.hook,
            message: text(&message.message),
        },
        Hook::ReceivedLine => Args::Default(text(&message.default)),
        Hook::Config => Args::Name(text(&message.name)),
        Hook::RecipientValid | Hook::UserConfig => {
            let address = message
                .address
                .as_deref()
                .map_or(Cow::Owned(Address::null()), Cow::Borrowed);
            match message.name.as_deref() {
                Some(name) if hook == Hook::UserConfig => {
                    let name = Cow::Borrowed(name);
                    Args::RecipientFile { address, name }
                }
                _ => Args::Recipient(address),
            }
        }
        _ => Args::None,
    }
}
