//! What the configuration says, typed and checked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::{Direction, Level, Policy, Value};
use ipnet::IpNet;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name: in the greeting, in Received, and for plugins.
    pub hostname: String,
    /// The domain of mail for an address literal of ours; `None`: such mail keeps its domain.
    pub localiphost: Option<String>,
    /// The user that the daemon becomes where root starts it.
    pub run_as: Option<String>,
    /// Where messages wait while they come in.
    pub spool_dir: PathBuf,
    /// The most bytes that the journal takes, in a folder of `spool_dir`; 0: there is none.
    pub journal: u64,
    /// The file of the embedded state store.
    pub state: PathBuf,
    /// The DNS server to ask; `None`: those of the system.
    pub dns_server: Option<SocketAddr>,
    /// The folder of qpsmtpd-style flat files.
    pub flat_files: Option<PathBuf>,
    /// Where users have folders with settings of their own.
    pub user_config: Option<super::UserFolders>,
    /// The most talkative level that is logged.
    pub loglevel: Level,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Certificates; there where a listener needs them.
    pub tls: Option<TlsConfig>,
    /// What clients may use up.
    pub limits: Limits,
    /// Mechanisms of AUTH to be offered, by their names.
    pub auth_mechanisms: Vec<String>,
    /// Lone CR and LF in a message.
    pub bare_newlines: BareNewlines,
    /// A message that some of its recipients refuse.
    pub mixed: Mixed,
    /// What waits in the outbox.
    pub outbox: OutboxConfig,
    /// Where limits, `mixed` and `bare_newlines` come from.
    pub origins: super::CoreOrigins,
    /// What is withheld from delivery.
    pub quarantine: QuarantineConfig,
    /// The chain, in order.
    pub plugins: Vec<PluginConfig>,
    /// What holds for some recipients only.
    pub scopes: super::Scopes,
    /// What works, but surely not as it was meant.
    pub warnings: super::Mistakes,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and for qpsmtpd's tools.
    #[default]
    Text,
    /// One JSON object a line, with the same fields.
    Json,
}

/// What to do with a CR or LF that stands alone in a message (RFC 5321 §2.3.8 forbids both).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BareNewlines {
    /// Refuse the message.
    #[default]
    Reject,
    /// Make it a CRLF. Never an end of data.
    Normalize,
    /// Keep it as it is. Never an end of data.
    Keep,
}

/// What becomes of a message that some of its recipients refuse and others take, where the client cannot be told of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mixed {
    /// Recipients whose settings differ are asked to come in a transaction of their own.
    #[default]
    Split,
    /// The message is taken, and its sender told of each recipient that refused it.
    Bounce,
    /// The message is taken, and who refused it does not get it.
    Discard,
    /// The message is refused for all.
    Reject,
}

impl Mixed {
    /// The words in the configuration.
    pub const WORDS: &[&str] = &["split", "bounce", "discard", "reject"];

    /// Reads one of the words.
    pub fn from_value(value: &Value) -> Option<Mixed> {
        Some(match value.as_text()? {
            "split" => Mixed::Split,
            "bounce" => Mixed::Bounce,
            "discard" => Mixed::Discard,
            "reject" => Mixed::Reject,
            _ => return None,
        })
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailProtocol {
    /// RFC 5321.
    #[default]
    Smtp,
    /// RFC 2033.
    Lmtp,
}

/// When a listener encrypts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenTls {
    /// Never.
    #[default]
    Off,
    /// When the client asks for it (RFC 3207).
    StartTls,
    /// From the first byte on (RFC 8314).
    Implicit,
}

impl ListenTls {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            ListenTls::Off => "off",
            ListenTls::StartTls => "starttls",
            ListenTls::Implicit => "implicit",
        }
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Address and port.
    Tcp(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(addr) => addr.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Certificates, and what is asked of clients.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The first is for clients that ask for no name, or for one that no certificate has.
    pub certificates: Vec<CertificateFiles>,
    /// The certificates of those who may vouch for clients; there where clients are asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub client_cert: ClientCert,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Where it stands in the file, to say so in errors.
    pub location: super::Location,
    /// Where its keys stand in the file, for [`super::Mistakes::in_tls`].
    pub spans: super::Spans,
}

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The names it is for, in lower case; none: those in it.
    pub names: Vec<String>,
    /// The certificate, then those of its issuers.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCert {
    /// No.
    #[default]
    Off,
    /// Yes, and all are welcome.
    Request,
    /// Yes, and nobody comes in without a good one.
    Require,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// A socket to listen on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Address and port, or a Unix socket.
    pub addr: Address,
    /// The permissions of a Unix socket; none: those that the process's umask leaves.
    pub mode: Option<u32>,
    /// What is spoken there.
    pub protocol: MailProtocol,
    /// What it is for.
    pub direction: Direction,
    /// When it encrypts.
    pub tls: ListenTls,
    /// Where AUTH is offered.
    pub auth: AuthOffer,
    /// Whether MAIL needs AUTH first.
    pub auth_required: bool,
    /// How long the greeting waits, to see who speaks before it.
    pub greet_delay: Duration,
    /// Peers that send a PROXY header first, and are believed.
    pub proxy_from: Networks,
    /// Clients that may say XCLIENT.
    pub xclient_from: Networks,
    /// Clients that may say XFORWARD.
    pub xforward_from: Networks,
}

impl Listen {
    /// A listener at this address, as usual otherwise.
    pub fn at(addr: SocketAddr) -> Listen {
        Listen {
            addr: Address::Tcp(addr),
            mode: None,
            protocol: MailProtocol::default(),
            direction: Direction::Inbound,
            tls: ListenTls::Off,
            auth: AuthOffer::default(),
            auth_required: false,
            greet_delay: Duration::ZERO,
            proxy_from: Networks::default(),
            xclient_from: Networks::default(),
            xforward_from: Networks::default(),
        }
    }
}

/// Where AUTH is offered, if a plugin hooks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthOffer {
    /// Nowhere.
    Off,
    /// Under TLS.
    #[default]
    Tls,
    /// Also where everybody on the way can read passwords.
    Always,
}

/// Addresses by their networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl Networks {
    /// Whether an address is in one of them. IPv4 addresses within IPv6 are IPv4 addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// What clients may use up (RFC 5321 §4.5.3 and beyond).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a message.
    pub max_size: u64,
    /// Bytes of a command line, its CRLF included.
    pub max_command_line: usize,
    /// Bytes of a line of a message, its CRLF included.
    pub max_data_line: usize,
    /// Bytes of a header block.
    pub max_header: usize,
    /// Recipients of a transaction.
    pub max_recipients: usize,
    /// Transactions of a session.
    pub max_transactions: u32,
    /// Refused commands of a session, before it is ended.
    pub max_errors: u32,
    /// Failed attempts to authenticate of a session, before it is ended.
    pub max_auth_failures: u32,
    /// Commands of a session that do not exist, before it is ended.
    pub max_unknown_commands: u32,
    /// Commands in a row that get no message on its way, before the session is ended.
    pub max_idle_commands: u32,
    /// Fields of a header block.
    pub max_header_fields: usize,
    /// From the greeting to a HELO or EHLO that is accepted.
    pub hello_timeout: Duration,
    /// Bytes a second of a message, on average, from a client that takes longer for it than `data_timeout`; 0: any.
    pub min_data_rate: u64,
    /// Waiting for a command.
    pub command_timeout: Duration,
    /// Waiting for the next block of a message.
    pub data_timeout: Duration,
    /// Waiting for a client, whatever for, while connections are scarce.
    pub stress_timeout: Duration,
    /// A whole session.
    pub session_timeout: Duration,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one client address.
    pub max_connections_per_ip: usize,
    /// Connections of one client network, a /24 of IPv4 or a /56 of IPv6; none: any number.
    pub max_connections_per_network: Option<usize>,
    /// Bytes up to which a message stays in memory while it comes in.
    pub memory_per_message: usize,
    /// Bytes that all messages together may take in memory; beyond, they go to the spool folder.
    pub memory_for_messages: usize,
}

/// How often and how long what waits in the outbox is tried, and how much there may be of it.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxConfig {
    /// From the first attempt to the second; twice as long before each further one.
    pub retry: Duration,
    /// The longest wait between two attempts.
    pub retry_max: Duration,
    /// After this it is given up.
    pub max_age: Duration,
    /// After this its sender is told that it is late.
    pub notify_delay: Duration,
    /// Messages in it, notifications among them.
    pub max_messages: usize,
    /// Bytes of all of them.
    pub max_size: u64,
    /// Notifications an hour.
    pub max_notifications: usize,
    /// Notifications an hour to one address.
    pub max_notifications_per_sender: usize,
}

/// How long what is quarantined stays, and how much there may be withheld.
#[derive(Clone, Debug, PartialEq)]
pub struct QuarantineConfig {
    /// After this a quarantined message is removed.
    pub keep: Duration,
    /// Messages in it, quarantined and held.
    pub max_messages: usize,
    /// Bytes of all of them.
    pub max_size: u64,
}

/// A plugin of the chain.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// Its name, unique in the chain.
    pub name: Arc<str>,
    /// Where it runs.
    pub kind: PluginKind,
    /// What a program is to load for it.
    pub source: Source,
    /// Its own settings, without the core's.
    pub settings: BTreeMap<String, Value>,
    /// What the operator set of the uniform settings.
    pub policy: Policy,
    /// The operator's `loglevel`.
    pub loglevel: Option<LevelChange>,
    /// The operator's deadline for one hook.
    pub timeout: Option<Duration>,
    /// Whether what it finds counts.
    pub shadow: Shadow,
    /// Only ask it where this holds.
    pub when: Option<super::When>,
    /// Where it stands in the file, to say so in errors.
    pub location: super::Location,
    /// Where its settings stand in the file, for [`super::Mistakes::from_settings`].
    pub spans: super::Spans,
}

/// Where a plugin runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginKind {
    /// In the daemon: the built-in of that name (`badmailfrom` for a plugin called `badmailfrom:2`).
    BuiltIn(String),
    /// In a process that we start. Plugins with an equal program share it.
    Run(Program),
    /// In a process that somebody else keeps running: the Unix socket to reach it.
    Attach(PathBuf),
}

/// A program that we start as a plugin process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// How many workers there are at least and at most.
    pub workers: (usize, usize),
    /// Whether a worker has one session at a time.
    pub exclusive: bool,
    /// A name that keeps plugins with the same command in processes of their own.
    pub process: Option<String>,
    /// How it is held.
    pub confine: Box<super::Confinement>,
}

/// What a program is to load for a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The file or name.
    pub name: Option<String>,
    /// Folders to look for it in.
    pub dirs: Vec<PathBuf>,
    /// Arguments of a plugin line.
    pub args: Vec<String>,
}

/// Whether a plugin is asked only to write down what it would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shadow {
    /// What it finds counts.
    #[default]
    Off,
    /// It does not.
    On,
    /// It does for so many clients of 10000.
    Canary(u16),
}

impl Shadow {
    /// Reads a share such as `5%` or `0.25%`, more than none and at most all.
    pub fn share(text: &str) -> Option<Shadow> {
        let (whole, part) = match text.strip_suffix('%')?.split_once('.') {
            Some((whole, part)) => (whole, part),
            None => (text.strip_suffix('%')?, "0"),
        };
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || !(1..=2).contains(&part.len()) {
            return None;
        }
        let hundredths: u16 = format!("{part:0<2}").parse().ok()?;
        let share = whole
            .parse::<u16>()
            .ok()?
            .checked_mul(100)?
            .checked_add(hundredths)?;
        (1..=10_000)
            .contains(&share)
            .then_some(Shadow::Canary(share))
    }
}

/// The `loglevel` of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelChange {
    /// This level for all of its lines.
    Fixed(Level),
    /// So many steps more talkative, or graver.
    Shift(i8),
}

impl LevelChange {
    /// Reads a level's name or number, or a step such as `+1` or `-2`, at most 7.
    pub fn parse(text: &str) -> Option<LevelChange> {
        if !text.starts_with(['+', '-']) {
            return Level::parse(text).map(LevelChange::Fixed);
        }
        let steps = text.parse().ok()?;
        (-7..=7)
            .contains(&steps)
            .then_some(LevelChange::Shift(steps))
    }
}
