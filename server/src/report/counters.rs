//! How often which limit was exceeded: the closed catalogue of everything that the daemon refuses, cuts off or drops for being too much.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! limits {
    ($($(#[$doc:meta])* $limit:ident $name:literal,)*) => {
        /// A limit that can be exceeded. Where a setting sets it, it has that setting's name (docs/configuration.md).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Limit {
            $($(#[$doc])* $limit,)*
        }

        impl Limit {
            /// All of them, in the order of the log line.
            pub const ALL: [Limit; [$($name),*].len()] = [$(Limit::$limit),*];

            /// The name in the log.
            pub const fn name(self) -> &'static str {
                match self { $(Limit::$limit => $name,)* }
            }
        }
    };
}

limits! {
    /// Connections in all.
    Connections "max_connections",
    /// Connections of a client address.
    ConnectionsPerIp "max_connections_per_ip",
    /// Connections of a client network.
    ConnectionsPerNetwork "max_connections_per_network",
    /// A PROXY header that did not come in time.
    ProxyHeader "proxy_header",
    /// A handshake of TLS that did not end in time.
    TlsHandshake "tls_handshake",
    /// From the greeting to the client's.
    HelloTimeout "hello_timeout",
    /// Waiting for a command.
    CommandTimeout "command_timeout",
    /// Waiting for a client while connections are scarce.
    StressTimeout "stress_timeout",
    /// Waiting for the client to read its replies.
    UnreadReplies "unread_replies",
    /// A whole session.
    SessionTimeout "session_timeout",
    /// A command line.
    CommandLine "max_command_line",
    /// A line of AUTH that is no command (RFC 4954 §4).
    AuthLine "auth_line",
    /// Refused commands.
    Errors "max_errors",
    /// Attempts to authenticate that failed.
    AuthFailures "max_auth_failures",
    /// Commands that do not exist.
    UnknownCommands "max_unknown_commands",
    /// Commands in a row that get no message on its way.
    IdleCommands "max_idle_commands",
    /// Transactions of a session.
    Transactions "max_transactions",
    /// Recipients of a transaction.
    Recipients "max_recipients",
    /// Waiting for the next block of a message.
    DataTimeout "data_timeout",
    /// Bytes a second of a message.
    DataRate "min_data_rate",
    /// A message, as declared or as sent.
    Size "max_size",
    /// What all messages together take in memory.
    MessageMemory "memory_for_messages",
    /// A line of a message.
    DataLine "max_data_line",
    /// A header block.
    Header "max_header",
    /// Fields of a header block.
    HeaderFields "max_header_fields",
    /// Received fields of a message (RFC 5321 §6.3).
    ReceivedFields "received_fields",
    /// What plugins may let a client wait for a reply (docs/protocol.md §6.6).
    PluginDelay "plugin_delay",
    /// What is withheld from delivery.
    Quarantine "quarantine",
    /// Requests that wait for a plugin process.
    PluginRequests "plugin_requests",
    /// Hooks while a circuit breaker is open.
    PluginCircuit "plugin_circuit",
    /// Events that wait for a plugin process.
    PluginEvents "plugin_events",
    /// Log lines that wait for standard error.
    LogLines "log_lines",
    /// Records that wait for the journal.
    JournalRecords "journal_records",
}

/// A number for each limit.
pub(super) struct Counters {
    exceeded: [AtomicU64; Limit::ALL.len()],
    /// The sum of them when they were last told.
    told: AtomicU64,
}

impl Counters {
    pub const fn new() -> Counters {
        Counters {
            exceeded: [const { AtomicU64::new(0) }; Limit::ALL.len()],
            told: AtomicU64::new(0),
        }
    }

    /// The limit was exceeded once more.
    pub fn count(&self, limit: Limit) {
        self.exceeded[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was exceeded.
    pub fn exceeded(&self, limit: Limit) -> u64 {
        self.exceeded[limit as usize].load(Ordering::Relaxed)
    }

    /// Those that were exceeded since the start, as `max_size 3, max_recipients 1`; `None` where nothing was added since this was last asked.
    pub fn news(&self) -> Option<String> {
        let mut text = String::new();
        let mut sum = 0;
        for limit in Limit::ALL {
            let number = self.exceeded(limit);
            sum += number;
            if number > 0 {
                let comma = if text.is_empty() { "" } else { ", " };
                // A text takes everything.
                let _ = write!(text, "{comma}{} {number}", limit.name());
            }
        }
        (self.told.swap(sum, Ordering::Relaxed) != sum).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_exceeded_is_told_once() {
        let counters = Counters::new();
        assert_eq!(counters.news(), None);
        for limit in [Limit::Size, Limit::Connections, Limit::Size] {
            counters.count(limit);
        }
        let news = counters.news();
        assert_eq!(news.as_deref(), Some("max_connections 1, max_size 2"));
        assert_eq!(counters.news(), None);
        counters.count(Limit::LogLines);
        let news = counters.news();
        assert_eq!(
            news.as_deref(),
            Some("max_connections 1, max_size 2, log_lines 1")
        );
    }
}
