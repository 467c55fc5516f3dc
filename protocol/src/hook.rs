//! The steps of a conversation at which plugins are asked (docs/protocol.md §5.1).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! hooks {
    ($($variant:ident $name:literal,)*) => {
        /// A step of the conversation. The names are qpsmtpd's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Hook {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Hook {
            /// Every hook, in the order of a conversation.
            pub const ALL: [Hook; [$($name),*].len()] = [$(Hook::$variant),*];

            /// The name on the wire, in the log and in configuration files.
            pub const fn name(self) -> &'static str {
                match self { $(Hook::$variant => $name,)* }
            }

            /// The hook of that name.
            pub fn from_name(name: &str) -> Option<Hook> {
                match name { $($name => Some(Hook::$variant),)* _ => None }
            }
        }
    };
}

hooks! {
    PreConnection "pre_connection",
    Connect "connect",
    HeloParse "helo_parse",
    Helo "helo",
    EhloParse "ehlo_parse",
    Ehlo "ehlo",
    Capabilities "capabilities",
    AuthMechanism "auth_mechanism",
    Auth "auth",
    MailParse "mail_parse",
    MailPre "mail_pre",
    Mail "mail",
    RcptParse "rcpt_parse",
    RcptPre "rcpt_pre",
    Rcpt "rcpt",
    Data "data",
    DataHeadersEnd "data_headers_end",
    DataLines "data_lines",
    DataPostHeaders "data_post_headers",
    DataPost "data_post",
    QueuePre "queue_pre",
    Queue "queue",
    QueuePost "queue_post",
    Rset "rset",
    Noop "noop",
    Vrfy "vrfy",
    Help "help",
    Quit "quit",
    UnrecognizedCommand "unrecognized_command",
    ReceivedLine "received_line",
    Config "config",
    RecipientValid "recipient_valid",
    UserConfig "user_config",
    Deny "deny",
    Ok "ok",
    ResetTransaction "reset_transaction",
    Disconnect "disconnect",
    Log "log",
}

impl Hook {
    /// How many hooks there are; `hook as usize` is below it.
    pub const COUNT: usize = Hook::ALL.len();

    /// Whether the hook only tells and never asks (docs/protocol.md §4, observers).
    pub const fn is_event(self) -> bool {
        matches!(
            self,
            Hook::QueuePost
                | Hook::Deny
                | Hook::Ok
                | Hook::ResetTransaction
                | Hook::Disconnect
                | Hook::Log
        )
    }

    /// Whether the client waits for a reply that depends on it: a plugin may delay that (docs/protocol.md §6.6).
    pub const fn has_reply(self) -> bool {
        !self.is_event()
            && !matches!(
                self,
                Hook::Config | Hook::RecipientValid | Hook::ReceivedLine
            )
    }

    /// Whether a client has to be silent until the reply, as far as the hook tells: behind BDAT, and behind XCLIENT, it has not.
    pub const fn silences_client(self) -> bool {
        matches!(
            self,
            Hook::PreConnection | Hook::Connect | Hook::Helo | Hook::Ehlo | Hook::Data
        )
    }

    /// Whether a message is at hand: its header block and its bytes can be read.
    pub const fn has_message(self) -> bool {
        matches!(
            self,
            Hook::DataPostHeaders
                | Hook::DataPost
                | Hook::QueuePre
                | Hook::Queue
                | Hook::QueuePost
                | Hook::ReceivedLine
        )
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Hook {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Hook {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Hook::from_name(&name).ok_or_else(|| de::Error::custom(format!("unknown hook `{name}`")))
    }
}
