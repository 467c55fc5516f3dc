//! nodemailer, from the npm registry: the client that most programs in Node send with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::programs;
use crate::wait::PATIENCE;

/// Sends messages at once, and prints what became of each.
const CLIENT: &str = "
const { createTransport } = require('nodemailer');
const [options, messages] = JSON.parse(process.argv[1]);
const transport = createTransport(options);
Promise.all(messages.map(message => transport.sendMail(message).then(
    ({ accepted, rejected, response }) => ({ accepted, rejected, response }),
    ({ code, command, response, message }) => ({ code, command, response, message })
))).then(results => {
    transport.close();
    console.log(JSON.stringify(results));
});
";

/// It is installed.
pub struct Nodemailer {
    node: PathBuf,
    folder: PathBuf,
}

impl Nodemailer {
    /// Looks for it; where it is missing the test says so loudly and is over, and in CI fails.
    pub fn needed() -> Option<Nodemailer> {
        let node = programs::needed("node")?;
        let folder = programs::root().join("tests/clients");
        if !folder.join("node_modules/nodemailer").is_dir() {
            programs::missing("nodemailer is not installed: run `make setup`");
            return None;
        }
        Some(Nodemailer { node, folder })
    }

    /// Sends a message: `accepted`, `rejected` and `response`, or of an error `code`, `command`, `response` and `message`.
    /// `options` are nodemailer's for a transport, without the server.
    pub fn send(&self, server: SocketAddr, options: Value, message: Value) -> Value {
        let mut results = self.send_all(server, options, &[message]);
        assert_eq!(results.len(), 1, "{results:?}");
        results.remove(0)
    }

    /// The same for several messages, all at once.
    pub fn send_all(
        &self,
        server: SocketAddr,
        mut options: Value,
        messages: &[Value],
    ) -> Vec<Value> {
        options["host"] = json!(server.ip());
        options["port"] = json!(server.port());
        options["name"] = json!("client.example");
        options["socketTimeout"] = json!(PATIENCE.as_millis());
        let output = Command::new(&self.node)
            .args(["-e", CLIENT, &json!([options, messages]).to_string()])
            .current_dir(&self.folder)
            .output()
            .expect("node starts");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

/// The lists of recipients must be these.
pub fn assert_sent(result: &Value, accepted: &[&str], rejected: &[&str]) {
    assert_eq!(result["accepted"], json!(accepted), "{result}");
    assert_eq!(result["rejected"], json!(rejected), "{result}");
}
