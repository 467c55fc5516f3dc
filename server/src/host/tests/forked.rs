//! Workers that are forked come when they are needed, and go when they are not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::Hook;
use gatepost_protocol::plugin::{Host, Wants};

use super::super::Processes;
use super::fake::{Desk, LONG, attached, call, core, session, until};
use crate::config::{PluginKind, Program, Source};

/// Perl's workers are forked; the SDK is the repository's.
#[tokio::test]
async fn a_worker_that_is_not_needed_any_more_is_ended() {
    let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk-perl/bin/gatepost-perl");
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("quiet");
    std::fs::write(&source, "sub hook_rcpt { return DECLINED }\n").unwrap();
    let mut plugin = attached("quiet", Path::new(""));
    plugin.settings.clear();
    plugin.source = Source {
        name: Some(source.display().to_string()),
        ..Source::default()
    };
    plugin.kind = PluginKind::Run(Program {
        argv: ["perl", sdk].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        workers: (1, 3),
        exclusive: false,
        process: None,
        confine: Default::default(),
    });
    let mut core = core(Arc::new(Desk::default()));
    core.spool_dir = folder.path().to_owned();
    core.patience.idle = Duration::from_millis(50);
    let (processes, started) = Processes::start(&[plugin], &core).await.unwrap();
    let process = &started[0].process;
    let sessions = ["one", "two", "three"].map(session);
    for session in &sessions {
        let rcpt = call(Hook::Rcpt, session, LONG);
        process.ask(&["quiet"], &Wants::default(), &rcpt).await;
    }
    assert_eq!(process.pool().number(), 3);
    for session in &sessions {
        let gone = call(Hook::Disconnect, session, LONG);
        process.tell(&[], &Wants::default(), &gone);
    }
    until("two of three workers to end", || {
        process.pool().number() == 1
    })
    .await;
    processes.shutdown(LONG).await;
}
