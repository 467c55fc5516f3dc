//! The file of a message that a Perl plugin hands to a scanner's daemon: a daemon of another user reads it where the flat file
//! `spool_perms` lets its group in, and nobody else does.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use gatepost_tests::programs;
use gatepost_tests::server::Server;
use gatepost_tests::smtp::Client;
use nix::unistd::{User, geteuid};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nEICAR\r\n";

/// A path without a hyphen, since the plugin takes none: the daemon and its server are both in the folder.
const HEAD: &str = "
    [[plugin]]
    qpsmtpd = 'virus/clamdscan clamd_socket $CLAMD'
    plugin_dirs = ['$ROOT/.qpsmtpd/usr/share/qpsmtpd/plugins']

    [[plugin]]
    name = 'rcpt_ok'

    [[plugin]]
    name = 'queue/maildir'

    [servers]
    CLAMD = ['perl', '$ROOT/tests/servers/clamd.pl', 'clamd', 'nobody']
";

/// The daemon with a scanner of the user nobody, and a spool that this user's group may enter; none where that cannot be had.
fn server(files: &str) -> Option<Server> {
    if !geteuid().is_root() {
        programs::missing("only root can start a scanner as another user");
        return None;
    }
    let group = User::from_name("nobody").unwrap().expect("a user").gid;
    Some(Server::start_inside(&format!("{HEAD}{files}"), |dir| {
        let spool = dir.join("spool");
        std::fs::create_dir(&spool).unwrap();
        chown(&spool, None, Some(group.as_raw())).unwrap();
        // What is made in there belongs to the same group.
        set_permissions(&spool, Permissions::from_mode(0o2750)).unwrap();
        set_permissions(dir, Permissions::from_mode(0o711)).unwrap();
        Vec::new()
    }))
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// The widest permissions of the plugin processes' own folders.
fn folder_mode(server: &Server) -> u32 {
    let folders = std::fs::read_dir(server.stage().spool.join("plugins")).unwrap();
    let modes = folders.map(|folder| mode(&folder.unwrap().path()));
    modes.max().expect("a folder of a plugin process")
}

#[test]
fn by_its_group() {
    let Some(mut server) = server("[files]\n'config/spool_perms' = '0750'") else {
        return;
    };
    let mut client = Client::greet(server.address());
    let reply = client.deliver(MESSAGE);
    assert!(
        reply.starts_with("552 ") && reply.contains("Virus found: Eicar"),
        "{reply}"
    );
    assert_eq!(folder_mode(&server), 0o750);
    client.ask("QUIT", "221");
    assert!(server.stop().success());
}

#[test]
fn not_unless_it_is_said() {
    let Some(mut server) = server("") else { return };
    let mut client = Client::greet(server.address());
    let reply = client.deliver(MESSAGE);
    assert!(reply.starts_with("250 "), "{reply}");
    server.wait_for_log("what the scanner says", |text| {
        text.contains("File path check failure: Permission denied")
    });
    assert_eq!(folder_mode(&server), 0o700);
    client.ask("QUIT", "221");
    assert!(server.stop().success());
}
