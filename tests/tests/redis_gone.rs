//! A Redis that a Perl plugin keeps its table in goes away, or hangs: the plugin fails, within its time, and what that costs is the operator's to say; when Redis is there again
//! so is the table, without a restart.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use gatepost_tests::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const HEAD: &str = r#"
[[plugin]]
qpsmtpd = "counts"
plugin_dirs = ["$DIR"]
on_error = "tempfail"
timeout = "2s"
[[plugin]]
name = "rcpt_ok"
[[plugin]]
name = "queue/maildir"
[files]
"counts" = """
use Qpsmtpd::DB;
my $db;
sub hook_mail {
    my $self = shift;
    $db ||= Qpsmtpd::DB->new(name => 'counts', class => 'Qpsmtpd::DB::Redis', redis_server => '$DIR/redis.sock');
    $db->set(mails => 1 + ($db->get('mails') || 0));
    return DECLINED;
}
"""
"#;

/// A Redis of the test's own, killed when dropped.
struct Redis(Child);

impl Redis {
    fn start(program: &Path, dir: &Path) -> Redis {
        let socket: PathBuf = dir.join("redis.sock");
        // That of one that was killed.
        let _ = std::fs::remove_file(&socket);
        let child = Command::new(program)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started");
        until("a Redis that listens", || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        Redis(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        kill(pid, signal).expect("it runs");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mail(server: &Server) -> String {
    let mut client = Client::greet(server.address());
    client.send(b"MAIL FROM:<alice@client.example>\r\n");
    client.reply()
}

fn is_well(server: &Server) {
    let reply = mail(server);
    assert!(reply.starts_with("250 "), "{reply:?}");
}

fn fails(server: &Server, reason: &str) {
    let reply = mail(server);
    assert!(reply.starts_with("450 "), "{reply:?}");
    server.wait_for_log("why the plugin failed", |text| {
        text.starts_with("(mail) counts: error") && text.contains(reason)
    });
}

#[test]
fn it_is_killed_hangs_and_comes_back() {
    let Some(program) = programs::needed("redis-server") else {
        return;
    };
    let mut server = Server::start(HEAD);
    fails(&server, "no database for counts can be used");
    let redis = Redis::start(&program, server.dir());
    is_well(&server);
    drop(redis);
    fails(&server, "");
    fails(&server, "");
    let redis = Redis::start(&program, server.dir());
    is_well(&server);
    redis.signal(Signal::SIGSTOP);
    fails(&server, "2 s");
    redis.signal(Signal::SIGCONT);
    is_well(&server);
    assert!(server.stop().success());
}
