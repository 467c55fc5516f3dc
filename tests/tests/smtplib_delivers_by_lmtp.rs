//! Python's smtplib speaks LMTP to a daemon that answers for each recipient.

use std::process::Command;

use gatepost_tests::server::Server;

/// Two recipients, so that replies that were too many or too few would be taken for those of the next command: smtplib itself reads one.
const CLIENT: &str = "
import smtplib, sys
with smtplib.LMTP('127.0.0.1', int(sys.argv[1]), local_hostname='client.example') as lmtp:
    lmtp.ehlo_or_helo_if_needed()
    assert lmtp.has_extn('chunking') and not lmtp.has_extn('prdr'), lmtp.esmtp_features
    assert not lmtp.sendmail('alice@client.example', ['bob@example.org'], b'Subject: one\\r\\n\\r\\n.x\\r\\n')
    lmtp.mail('alice@client.example')
    for recipient in 'bob', 'carol':
        code, text = lmtp.rcpt(recipient + '@example.org')
        assert code == 250, text
    code, text = lmtp.data(b'Subject: two\\r\\n\\r\\n.x\\r\\n')
    assert code == 250, text
    code, text = lmtp.getreply()
    assert code == 250 and b'Queued' in text, text
    code, text = lmtp.noop()
    assert code == 250 and b'Queued' not in text, text
";

#[test]
fn smtplib_delivers_by_lmtp() {
    let server = Server::start("[[listen]]\nprotocol = \"lmtp\"\n");
    let status = Command::new("python3")
        .args(["-c", CLIENT, &server.address().port().to_string()])
        .status();
    assert!(status.expect("Python 3 is there").success());
    assert_eq!(server.delivered().len(), 2);
}
