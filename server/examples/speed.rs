//! Measures.
use gatepost::chain::{Chain, Entry, Rules};
use gatepost_protocol::plugin::Subscription;
use gatepost_protocol::*;
use std::sync::Arc;
struct Yes;
impl Plugin for Yes {
    fn subscriptions(&self) -> Vec<Subscription> {
        vec![
            Subscription::to(Hook::Rcpt, &[]),
            Subscription::to(Hook::Queue, &[]),
        ]
    }
    fn call<'a>(&'a self, _: &'a Call<'a>) -> Answer<'a> {
        Outcome {
            verdict: Some(Verdict::Ok),
            ..Outcome::default()
        }
        .into()
    }
}
#[tokio::main]
async fn main() {
    use gatepost::config::*;
    use std::time::Duration;
    let config = Config {
        hostname: "mx.example.org".into(),
        spool_dir: "/tmp/wt/dlg-spool".into(),
        state: "x".into(),
        flat_files: None,
        loglevel: Level::Warn,
        log_format: LogFormat::Text,
        listen: vec![Listen {
            addr: std::env::args().nth(1).unwrap().parse().unwrap(),
            direction: Direction::Inbound,
        }],
        limits: Limits {
            max_size: 200 << 20,
            max_command_line: 2048,
            max_data_line: 1000,
            max_header: 256 << 10,
            max_recipients: 100,
            max_transactions: 1000000,
            max_errors: 20,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            session_timeout: Duration::from_secs(3600),
            max_connections: 20000,
            max_connections_per_ip: 20000,
            memory_per_message: 2 << 20,
            memory_for_messages: 256 << 20,
        },
        bare_newlines: BareNewlines::Reject,
        plugins: vec![],
    };
    let listeners = gatepost::listen::Listeners::bind(&config).unwrap();
    let spool = Arc::new(gatepost::message::Spool::open(&config).unwrap());
    let chain = Chain::new(vec![Entry {
        name: "yes".into(),
        plugin: Arc::new(Yes),
        rules: Rules::new(Policy::default(), Policy::default(), None, None),
        when: None,
    }]);
    let shared = Arc::new(gatepost::dialog::Shared {
        config: Arc::new(config),
        chain: Arc::new(chain),
        spool,
    });
    listeners.run(shared, Default::default()).await;
}
