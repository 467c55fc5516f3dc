use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use FakeDNS;

BEGIN { FakeDNS::serve('bad.com.uribl.example TXT' => '"spamvertised"', 'bad.com.uribl.example A' => '127.0.0.2') }

use Cwd ();
use Test::More;
use QpsmtpdPackage;
use Qpsmtpd::Constants;

# Plugins of Debian's package that look at the message, and those that take it: the hit and the miss of each.

my $date = 'Date: ' . do { require POSIX; POSIX::strftime('%a, %d %b %Y %H:%M:%S +0000', gmtime) };
my $good = "From: <a\@client.example>\n$date\nMessage-Id: <1\@client.example>\nSubject: hello\n\nhow are you?\n";
my %to_bob = (transaction => {sender => 'a@client.example', recipients => ['bob@example.org'], recipient_parameters => [{}]});

sub post { my ($name, $message, %about) = @_; return plugin($name, message => $message, %to_bob, %about)->hook('data_post') }
sub header_of { my ($result, $name) = @_; return (map { $_->{value} } grep { ($_->{name} // '') eq $name } @{$result->changes})[0] }

if (has('Date::Parse')) {
    is post('headers', $good)->rc, DECLINED, 'headers: all there';
    is post('headers', "Subject: x\n\ny\n")->rc, DENY, 'headers: no From';
    is post('headers', "From: a\@b\nDate: Mon, 1 Jan 1990 00:00:00 +0000\n\ny\n", args => [past => 5])->rc, DENY, 'headers: from the past';
}
is post('loop', "Received: x\n" x 5 . $good, args => [3])->reply, 'Too many hops (#5.4.6)', 'loop: too many hops';
is post('loop', $good, args => [3])->rc, DECLINED, 'loop: few';
# Its init takes the place of the one in loop, which sets the limit.
is post('check_loop', $good, args => [3])->rc, DENY, 'check_loop: refuses everything, in 0.94';
{
    my %null = (transaction => {sender => '', recipients => ['bob@example.org'], recipient_parameters => [{}]});
    is post('bogus_bounce', "Return-Path: <x\@y>\n$good", %null, args => [reject => 1])->rc, DENY, 'bogus_bounce: a return path in a bounce';
    is post('bogus_bounce', $good, %null, args => [reject => 1])->rc, DECLINED, 'bogus_bounce: a bounce';
    is post('bogus_bounce', $good, args => [reject => 1])->rc, DECLINED, 'bogus_bounce: no bounce';
}
{
    my %about = (config => {uribl_zones => ['uribl.example']}, args => [action => 'deny', timeout => 5]);
    is post('uribl', "$good\nsee http://www.bad.com/x\n", %about)->rc, DENY, 'uribl: listed';
    is post('uribl', "$good\nsee http://www.good.com/x\n", %about)->rc, DECLINED, 'uribl: not listed';
}
{
    my $spamd = sub {
        my ($verdict, $score) = @_;
        return answers(sub {
            my $socket = shift;
            while (sysread $socket, my $text, 65536) { last if $text =~ /how are you/ }
            syswrite $socket, "SPAMD/1.1 0 EX_OK\r\n\r\nX-Spam-Status: $verdict, score=$score required=5.0 tests=BAD\n\tautolearn=no\n\n";
        });
    };
    my $result = post('spamassassin', $good, args => [reject => 10, spamd_socket => $spamd->('Yes', '20.0')]);
    is $result->reply, 'spam score exceeded threshold', 'spamassassin: spam';
    $result = post('spamassassin', $good, args => [reject => 10, spamd_socket => $spamd->('No', '-1.0')]);
    is $result->rc, DECLINED, 'spamassassin: none';
    ok defined header_of($result, 'X-Spam-Status'), 'spamassassin: a header';
    is post('spamassassin', $good, args => [reject => 10, spamd_socket => "$WORK/nobody"])->rc, DECLINED, 'spamassassin: no spamd';
}
{
    my $here = Cwd::getcwd();
    mkdir "$WORK/mail";
    chdir "$WORK" or die $!;
    post('content_log', $good);
    my ($log) = glob 'mail/*';
    open my $handle, '<', $log // 'mail/nothing' or die "$WORK/mail: $!";
    chdir $here or die $!;
    like do { local $/; <$handle> }, qr/Subject: hello.*how are you\?/s, 'content_log: the message';
}
if (has('Mail::DKIM::Verifier')) {
    my $test = plugin('dkim', message => $good, %to_bob);
    is $test->hook('data_post')->rc, DECLINED, 'dkim: not signed';
    my $forged = "DKIM-Signature: v=1; a=rsa-sha256; c=simple; d=client.example; s=x; h=from; bh=MTIz; b=MTIz\n$good";
    my $result = post('dkim', $forged, args => [reject => 1]);
    ok $result->rc == DENY || $result->disposition, 'dkim: signed by nobody';
}
if (has('Mail::DMARC::PurePerl')) {
    is post('dmarc', $good)->rc, DECLINED, 'dmarc: no policy';
}
{
    my $dspam = file('dspam', "#!/bin/sh\ncat >/dev/null\necho 'X-DSPAM-Result: bob; result=\"Spam\"; class=\"Spam\"; probability=1.0000; confidence=1.00; signature=4f'\n", 0755);
    my $result = post('dspam', $good, args => [dspam_bin => $dspam, reject => 0.95]);
    like $result->reply, qr/no spam please/, 'dspam: spam' or diag join "\n", $result->message // '', $result->log;
    $dspam = file('nospam', "#!/bin/sh\ncat >/dev/null\necho 'X-DSPAM-Result: bob; result=\"Innocent\"; class=\"Innocent\"; probability=0.0000; confidence=1.00; signature=4f'\n", 0755);
    is post('dspam', $good, args => [dspam_bin => $dspam, reject => 1])->rc, DECLINED, 'dspam: none';
}

# Scanners: a program that finds something in a message with EICAR, and what it takes for each plugin to understand it.
sub scanner {
    my ($name, $found, $code, $clean) = @_;
    return file($name, "#!/bin/sh\nfor file; do :; done\nif grep -q EICAR \"\$file\" 2>/dev/null; then echo \"$found\"; exit $code; fi\necho \"${\($clean // 'clean')}\"\nexit 0\n", 0755);
}
my $infected = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n${good}EICAR\n";
my $healthy  = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n$good";
for (
    ['virus/clamav', [clamscan_path => scanner('clamscan', '$file: Eicar FOUND', 1)], sub { ["clamscan_path=$_[0][1]", 'action=reject', "tmp_dir=$WORK"] }],
    ['virus/uvscan', [uvscan_location => scanner('uvscan', 'Found the EICAR virus', 13), deny_viruses => 'yes'], sub { $_[0] }],
    ['virus/bitdefender', [bitdefender_location => scanner('bdc', '$file infected: Eicar', 1)], sub { $_[0] }],
    ['virus/hbedv', [hbedvscanner => scanner('antivir', 'ALERT: [Eicar virus]', 1)], sub { $_[0] }],
    ['virus/aveclient', [avclient_bin => scanner('aveclient', 'INFECTED Eicar', 4)], sub { [@{$_[0]}, avdaemon_sock => '/dev/null'] }],
) {
    my ($name, $about, $args) = @$_;
    my @args = (args => $args->($about));
    chmod 0755, "$WORK";
    my $result = post($name, $infected, @args);
    is $result->rc, DENY, "$name: infected" or diag join "\n", $result->message // '', $result->log;
    is post($name, $healthy, @args)->rc, DECLINED, "$name: healthy";
}
{
    my $sophie = answers(sub { my $socket = shift; my $file = readline $socket; chomp $file; open my $h, '<', $file; my $bad = $h && grep { /EICAR/ } <$h>; syswrite $socket, $bad ? '1:Eicar' : '0' });
    my $result = post('virus/sophie', $infected, args => [sophie_socket => $sophie]);
    is $result->rc, DENY, 'virus/sophie: infected, in a file that others can read' or diag join "\n", $result->message // '', $result->log;
}
is post('virus/klez_filter', "$good" . "Content-Type: x\n" . 'A' x 70 . "\n" x 900)->rc, DECLINED, 'virus/klez_filter: none';
is post('virus/clamdscan', $healthy, args => [clamd_socket => "$WORK/nobody"])->rc, DECLINED, 'virus/clamdscan: no clamd';

# Queues
sub queue { my ($name, %about) = @_; return plugin($name, message => $good, %to_bob, %about)->hook('queue') }
{
    my $result = queue('queue/maildir', args => ["$WORK/mail"]);
    is $result->rc, OK, 'queue/maildir: kept';
    my ($file) = glob "$WORK/mail/new/*";
    open my $handle, '<', $file or die "$WORK/mail/new: $!";
    like do { local $/; <$handle> }, qr/\AReturn-Path: <a\@client\.example>\n.*Subject: hello\n\nhow are you\?\n\z/s, 'queue/maildir: as it was';
    file('full', '');
    isnt eval { queue('queue/maildir', args => ["$WORK/full"])->rc } // 'dies while it is loaded', OK, 'queue/maildir: nowhere to keep it';
}
{
    my $qmail = file('qmail-queue', "#!/bin/sh\ncat >$WORK/qmail.message\ncat <&1 >$WORK/qmail.envelope\nexit 0\n", 0755);
    my $result = queue('queue/qmail-queue', args => [$qmail]);
    is $result->rc, OK, 'queue/qmail-queue: kept, by a child' or diag join "\n", $result->message // '', $result->log;
    open my $handle, '<', "$WORK/qmail.envelope" or die $!;
    is do { local $/; <$handle> }, "Fa\@client.example\0Tbob\@example.org\0\0", 'queue/qmail-queue: the envelope';
    my $full = file('qmail-full', "#!/bin/sh\ncat >/dev/null\ncat <&1 >/dev/null\nexit 53\n", 0755);
    is queue('queue/qmail-queue', args => [$full])->rc, DECLINED, 'queue/qmail-queue: refused';
}
{
    my $exim = file('rsmtp', "#!/bin/sh\ncat >$WORK/bsmtp\nexit 0\n", 0755);
    is queue('queue/exim-bsmtp', args => [exim_path => $exim], config => {spool_dir => ["$WORK"]})->rc, OK, 'queue/exim-bsmtp: kept';
    open my $handle, '<', "$WORK/bsmtp" or die $!;
    like do { local $/; <$handle> }, qr/MAIL FROM:<a\@client\.example>.*RCPT TO:<bob\@example\.org>.*how are you/s, 'queue/exim-bsmtp: all of it';
}
{
    my $cleanup = sub {
        my $status = shift;
        return answers(sub {
            my $socket = shift;
            syswrite $socket, "queue_id\0ABCDEF\0\0";
            my $all = '';
            while ($all !~ /X\0E\0\z/) { sysread $socket, my $piece, 65536 or last; $all .= $piece }
            open my $out, '>', "$WORK/records";
            print {$out} $all;
            close $out;
            syswrite $socket, "status\0$status\0reason\0too bad\0\0";
        });
    };
    my $long = 'X-Long: ' . 'x' x 300;
    my $result = queue('queue/postfix-queue', args => [$cleanup->(0), 'FLAG_FILTER'], message => "$long\n$good");
    is $result->rc, OK, 'queue/postfix-queue: kept';
    like $result->reply, qr/Queue-Id: ABCDEF/;
    open my $handle, '<', "$WORK/records" or die $!;
    my $records = do { local $/; <$handle> };
    like $records, qr/\Aflags\x002\0\0T.*S\x10a\@client\.exampleR\x0fbob\@example\.orgM\0N.*N\x0chow are you\?X\0E\0\z/s, 'queue/postfix-queue: the records';
    like $records, qr/N\xb4\x02\Q$long\EN/, 'queue/postfix-queue: a long line';
    $result = queue('queue/postfix-queue', args => [$cleanup->(8)]);
    is_deeply [$result->rc, $result->reply], [DENY, 'too bad'], 'queue/postfix-queue: refused';
    is queue('queue/postfix-queue', args => ["$WORK/nobody"])->rc, DENYSOFT, 'queue/postfix-queue: nobody there';
}

done_testing;
