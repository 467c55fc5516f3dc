//! STARTTLS (RFC 3207).

use gatepost_protocol::{Hook, Level};

use super::Mail;
use crate::dialog::{End, Next, Stream, Wire};

impl Mail {
    /// Whether STARTTLS is a command here at all.
    pub(super) fn knows_tls(&self) -> bool {
        self.can_secure || self.visit.session.connection.tls.is_some()
    }

    /// Whether it may be said now.
    pub(super) fn may_start_tls(&self) -> bool {
        self.can_secure && self.visit.session.connection.authenticated.is_none()
    }

    pub(super) async fn start_tls<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        argument: &[u8],
    ) -> Result<Next, End> {
        let pipelined = wire.has_input().await?;
        let output = wire.output();
        if !self.can_secure {
            return Ok(self.say(output, "503 5.5.1 TLS is in use already"));
        }
        if self.visit.session.connection.authenticated.is_some() {
            // What was allowed in the clear would have to be forgotten with it.
            return Ok(self.say(output, "503 5.5.1 You are authenticated; too late for TLS"));
        }
        if !argument.is_empty() {
            return Ok(self.say(output, "501 5.5.4 STARTTLS takes no argument"));
        }
        if pipelined {
            // Nothing may follow before our reply (RFC 3207 §4.1). Who stands between a client and us, and wants commands of their own to be
            // taken for the client's, does just this.
            self.log(
                Level::Warn,
                None,
                format_args!(
                    "commands came together with STARTTLS: an attempt to inject them into the encrypted session? Closed"
                ),
            );
            self.say(output, "503 5.5.1 STARTTLS must be the last command sent");
            return Ok(Next::Close);
        }
        self.say(output, "220 2.0.0 Ready to start TLS");
        let secured = wire.secure().await?;
        self.can_secure = false;
        // What the client said so far may be another's words (RFC 3207 §4.2).
        self.reset().await;
        let connection = &mut self.visit.session.connection;
        connection.hello = None;
        connection.hello_host = None;
        connection.tls = Some(Box::new(secured.tls));
        self.channel_binding = secured.channel_binding;
        self.log_tls(None);
        Ok(Next::Go)
    }

    /// Says how the connection is encrypted, if it is.
    pub(super) fn log_tls(&self, hook: Option<Hook>) {
        let Some(tls) = &self.visit.session.connection.tls else {
            return;
        };
        let part = |name: &str, value: &Option<String>| match value {
            Some(value) => format!(", {name} {value}"),
            None => String::new(),
        };
        self.log(
            Level::Info,
            hook,
            format_args!(
                "TLS begins: {}, {}{}{}",
                tls.version,
                tls.cipher,
                part("server name", &tls.server_name),
                part("client certificate of", &tls.client_name),
            ),
        );
    }
}
