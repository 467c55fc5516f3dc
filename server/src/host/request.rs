//! From a call to the `hook` message: what was subscribed, borrowed from the session (docs/protocol.md §5).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use gatepost_protocol::plugin::{Call, InForce, Then, Wants};
use gatepost_protocol::session::Notes;
use gatepost_protocol::wire::{
    ArgsMessage, ConnectionFields, HookMessage, NotesMessage, SettingsMessage, ThenMessage,
    TransactionFields,
};
use gatepost_protocol::{
    Args, Credentials, Field, FieldSet, Hook, Score, Session, Transaction, Value,
};

/// The message for a call, without id, deadline and `resumed`.
pub fn hook_message<'a, S: AsRef<str>>(
    plugins: &'a [S],
    wants: &'a Wants,
    call: &'a Call<'a>,
) -> HookMessage<'a> {
    let transaction = &call.session.transaction;
    HookMessage {
        hook: call.hook.name().into(),
        plugins: plugins.iter().map(|name| name.as_ref().into()).collect(),
        session: (&*call.session.id).into(),
        transaction: (transaction.number > 0).then_some(transaction.number),
        args: args(call.args),
        connection: connection(wants.fields, call.session),
        transaction_fields: self::transaction(wants.fields, transaction),
        notes: notes(&wants.notes, call),
        settings: call.settings.and_then(|all| settings(plugins, all)),
        ..HookMessage::default()
    }
}

/// The message for a call and the hook that comes next: with all that either of them needs.
pub(super) fn hook_message_then<'a, S: AsRef<str>>(
    plugins: &'a [S],
    wants: &'a Wants,
    call: &'a Call<'a>,
    then: &'a Then<'a>,
) -> HookMessage<'a> {
    let mut message = hook_message(plugins, wants, call);
    fill(&mut message.args, then.args);
    message.then = Some(ThenMessage {
        hook: then.hook.name().into(),
        plugins: then.plugins.iter().map(|name| (*name).into()).collect(),
        transaction: (then.transaction > 0).then_some(then.transaction),
    });
    message
}

/// The message for a line of the log: of its session, which may be at work meanwhile, nothing is told.
pub(super) fn line_message<'a>(
    plugins: &'a [Arc<str>],
    session: &'a str,
    args: &'a Args<'a>,
) -> HookMessage<'a> {
    HookMessage {
        hook: Hook::Log.name().into(),
        plugins: plugins.iter().map(|name| (&**name).into()).collect(),
        session: session.into(),
        args: self::args(args),
        ..HookMessage::default()
    }
}

/// What is in force for those who are asked, and for nobody else: settings may be secret.
fn settings<'a, S: AsRef<str>>(plugins: &[S], all: &'a InForce) -> Option<SettingsMessage<'a>> {
    let theirs = plugins
        .iter()
        .filter_map(|name| all.get_key_value(name.as_ref()))
        .map(|(name, settings)| (Cow::Borrowed(&**name), Cow::Borrowed(settings)));
    let theirs: SettingsMessage<'a> = theirs.collect();
    (!theirs.is_empty()).then_some(theirs)
}

fn args<'a>(args: &'a Args<'a>) -> ArgsMessage<'a> {
    let mut message = ArgsMessage::default();
    fill(&mut message, args);
    message
}

fn fill<'a>(message: &mut ArgsMessage<'a>, args: &'a Args<'a>) {
    match args {
        Args::None => {}
        Args::Arrival {
            connections,
            max_connections,
        } => {
            message.connections = Some(*connections);
            message.max_connections = Some(*max_connections);
        }
        Args::Host(host) => message.host = borrowed(host),
        Args::Line(line) => message.line = borrowed(line),
        Args::Capabilities(lines) => {
            let lines = lines.iter().map(|line| Cow::Borrowed(&**line));
            message.capabilities = Some(lines.collect());
        }
        Args::Address {
            address,
            parameters,
        } => {
            message.address = Some(Cow::Borrowed(&**address));
            message.parameters = Some(Cow::Borrowed(&**parameters));
        }
        Args::Argument(argument) => message.argument = borrowed(argument),
        Args::Lines { lines, offset } => {
            message.lines = Some(Cow::Borrowed((&**lines).into()));
            message.offset = Some(*offset);
        }
        Args::Command { command, argument } => {
            message.command = borrowed(command);
            message.argument = borrowed(argument);
        }
        Args::Auth(credentials) => {
            let credentials: &'a Credentials = credentials;
            message.mechanism = borrowed(&credentials.mechanism);
            message.user = borrowed(&credentials.user);
            message.password = credentials.password.as_deref().map(Cow::Borrowed);
            message.challenge = credentials.challenge.as_deref().map(Cow::Borrowed);
            message.response = credentials.response.as_deref().map(Cow::Borrowed);
            message.token = credentials.token.as_deref().map(Cow::Borrowed);
        }
        Args::Decided {
            plugin,
            hook,
            verdict,
            message: said,
        } => {
            message.plugin = borrowed(plugin);
            message.hook = Some(*hook);
            message.verdict = Some(*verdict);
            message.message = borrowed(said);
        }
        Args::Logged {
            level,
            plugin,
            hook,
            message: said,
        } => {
            message.level = borrowed(level.name());
            message.plugin = plugin.as_deref().map(Cow::Borrowed);
            message.hook = *hook;
            message.message = borrowed(said);
        }
        Args::Default(header) => message.default = borrowed(header),
        Args::Name(name) => message.name = borrowed(name),
        Args::Recipient(address) => message.address = Some(Cow::Borrowed(&**address)),
        Args::RecipientFile { address, name } => {
            message.address = Some(Cow::Borrowed(&**address));
            message.name = borrowed(name);
        }
    }
}

fn borrowed<'a>(text: &'a str) -> Option<Cow<'a, str>> {
    Some(Cow::Borrowed(text))
}

fn connection(wanted: FieldSet, session: &Session) -> Option<ConnectionFields<'_>> {
    let from = &session.connection;
    let is_scored = wanted.has(Field::Score);
    let naughty = from.naughty.as_ref().filter(|_| wanted.has(Field::Naughty));
    let tls = from.tls.as_deref();
    let fields = ConnectionFields {
        remote_ip: ip(wanted, Field::RemoteIp, from.remote),
        remote_port: port(wanted, Field::RemotePort, from.remote),
        remote_host: pick(wanted, Field::RemoteHost, from.remote_host.as_deref()),
        remote_info: pick(wanted, Field::RemoteInfo, from.remote_info.as_deref()),
        local_ip: ip(wanted, Field::LocalIp, from.local),
        local_port: port(wanted, Field::LocalPort, from.local),
        direction: pick(wanted, Field::Direction, Some(from.direction.name())),
        hello: pick(wanted, Field::Hello, from.hello.as_deref()),
        hello_host: pick(wanted, Field::HelloHost, from.hello_host.as_deref()),
        early_talker: wanted.has(Field::EarlyTalker).then_some(from.early_talker),
        relay_client: wanted.has(Field::RelayClient).then_some(from.relay_client),
        immune: pick(wanted, Field::Immune, from.immune.as_deref()),
        whitelisted: pick(wanted, Field::Whitelisted, from.whitelisted.as_deref()),
        naughty: naughty.map(|naughty| Cow::Borrowed(&*naughty.message)),
        naughty_plugin: naughty.map(|naughty| Cow::Borrowed(&*naughty.plugin)),
        naughty_verdict: naughty.map(|naughty| naughty.verdict),
        karma: wanted.has(Field::Karma).then_some(from.karma),
        score: is_scored.then(|| session.score()),
        scores: match is_scored {
            true => session.scores().map(Score::borrowed).collect(),
            false => Vec::new(),
        },
        authenticated: pick(wanted, Field::Authenticated, from.authenticated.as_deref()),
        tls_version: pick(wanted, Field::TlsVersion, tls.map(|tls| &*tls.version)),
        tls_cipher: pick(wanted, Field::TlsCipher, tls.map(|tls| &*tls.cipher)),
        tls_server_name: pick(
            wanted,
            Field::TlsServerName,
            tls.and_then(|tls| tls.server_name.as_deref()),
        ),
        tls_client_name: pick(
            wanted,
            Field::TlsClientName,
            tls.and_then(|tls| tls.client_name.as_deref()),
        ),
        auth_results: pick(wanted, Field::AuthResults, Some(&*from.auth_results)),
    };
    (fields != ConnectionFields::default()).then_some(fields)
}

fn transaction(wanted: FieldSet, from: &Transaction) -> Option<TransactionFields<'_>> {
    // Before MAIL there is nothing, and before the message nothing of it.
    let running = from.number > 0;
    let message = from.header.is_some();
    let header = from.header.as_ref().filter(|_| wanted.has(Field::Header));
    let number = |field, number: u64| (wanted.has(field) && message).then_some(number);
    let fields = TransactionFields {
        sender: pick(wanted, Field::Sender, from.sender.as_ref()),
        sender_parameters: pick(
            wanted,
            Field::SenderParameters,
            from.sender.as_ref().map(|_| &from.sender_parameters),
        ),
        recipients: pick(
            wanted,
            Field::Recipients,
            running.then_some(&*from.recipients),
        ),
        recipient_parameters: (running && wanted.has(Field::RecipientParameters)).then(|| {
            let all = 0..from.recipients.len();
            all.map(|at| from.parameters_of(at).clone()).collect()
        }),
        size: number(Field::Size, from.size),
        header: header.map(|header| header.to_bytes().to_vec().into()),
        path: pick(wanted, Field::Path, from.path.as_deref()),
        header_end: number(Field::HeaderEnd, from.header_end),
        body_start: number(Field::BodyStart, from.body_start),
        immune: pick(wanted, Field::Immune, from.immune.as_deref()),
        whitelisted: pick(wanted, Field::Whitelisted, from.whitelisted.as_deref()),
        quarantine: pick(wanted, Field::Quarantine, from.quarantine.as_deref()),
        route: pick(wanted, Field::Route, from.route.as_deref()),
    };
    (fields != TransactionFields::default()).then_some(fields)
}

fn pick<T: ToOwned + ?Sized>(
    wanted: FieldSet,
    field: Field,
    value: Option<&T>,
) -> Option<Cow<'_, T>> {
    value.filter(|_| wanted.has(field)).map(Cow::Borrowed)
}

fn ip(wanted: FieldSet, field: Field, address: Option<SocketAddr>) -> Option<String> {
    let address = address.filter(|_| wanted.has(field))?;
    Some(address.ip().to_string())
}

fn port(wanted: FieldSet, field: Field, address: Option<SocketAddr>) -> Option<u16> {
    address.filter(|_| wanted.has(field)).map(|at| at.port())
}

fn notes<'a>(wanted: &[String], call: &Call<'a>) -> Option<NotesMessage<'a>> {
    if wanted.is_empty() {
        return None;
    }
    let all = wanted.iter().any(|name| name == "*");
    let chosen = |notes: &'a Notes| -> BTreeMap<Cow<'a, str>, Cow<'a, Value>> {
        notes
            .iter()
            .filter(|(name, _)| all || wanted.contains(name))
            .map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(value)))
            .collect()
    };
    Some(NotesMessage {
        connection: chosen(&call.session.connection.notes),
        transaction: chosen(&call.session.transaction.notes),
    })
}
