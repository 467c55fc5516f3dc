use strict;
use warnings;

use File::Find ();
use FindBin;
use lib "$FindBin::RealBin/../lib";
use POSIX ();
use Test::More;
use QpsmtpdPackage;

# Every plugin file of Debian's package is loaded, unmodified, and the table says what came of it. docs/porting.md has the same table
# with reasons; a plugin that fares differently from what is written here fails the test.

# Arguments without which a plugin does not load, or has no hook.
my %args = (
    'queue/smtp-forward' => ['127.0.0.1', 25],
    'queue/maildir'      => ["$WORK/mail"],
    'rcpt_map'           => [domain => 'example.org', file => file('map', "bob\@example.org OK ours\n")],
    'logging/file'       => ["$WORK/log"],
    'greylisting'        => [db_dir => "$WORK"],
    'karma'              => [db_dir => "$WORK"],
    'auth/auth_checkpassword' => [checkpw => '/bin/true', true => '/bin/true'],
    'virus/hbedv'        => [hbedvscanner => '/bin/true'],
    'virus/aveclient'    => [avclient_bin => '/bin/true', avdaemon_sock => '/dev/null'],
    'virus/kavscanner'   => [kavscanner_bin => '/bin/true'],
    'dspam'              => [dspam_bin => '/bin/true'],
);

# Of qpsmtpd's own other servers, of Apache, or of nobody; and what needs a module that Debian has not.
my %cannot = (
    (map { ("async/$_" => qr/Async::DNSBLBase|ParaDNS|YIELD/) }
        qw(dns_whitelist_soft dnsbl earlytalker queue/smtp-forward resolvable_fromhost rhsbl uribl)),
    'logging/apache'         => qr/Apache2/,
    'logging/connection_id'  => qr/currently unsupported/,
    'logging/transaction_id' => qr/currently unsupported/,
    milter                   => qr/Net::Milter/,
    stunnel                  => qr/ParaDNS/,
    qmail_deliverable        => qr/Qmail::Deliverable/,
);

my @names;
File::Find::find({no_chdir => 1, wanted => sub { push @names, $_ =~ s{\A\Q$DIR\E/}{}r if -f }}, $DIR);
@names = grep { !/\A(?:karma_tool|tls_cert|registry\.txt)\z/ } sort @names;
cmp_ok scalar(@names), '>=', 80, 'they are all there';

for my $name (@names) {
    my $what = loaded($name);
    my ($word) = $what =~ /\bCan't locate ([\w\/]+)\.pm/;
    my $short = $what =~ /\A(?:runs|exit)/ ? $what : $word ? 'needs module ' . ($word =~ s{/}{::}gr) : "cannot: $what";
    note sprintf '%-28s %s', $name, $short;
    if ($cannot{$name}) { like $what, $cannot{$name}, "$name: $short" }
    else                { like $what, qr/\Aruns/, "$name: $short" }
}

# In a child: some call exit.
sub loaded {
    my $name = shift;
    pipe my $reads, my $writes or die "pipe: $!";
    my $child = fork // die "fork: $!";
    if (!$child) {
        close $reads;
        chdir "$WORK";
        open STDERR, '>', '/dev/null';
        my $said = 0;
        my $say = sub { syswrite $writes, $_[0] unless $said++ };
        my $test = eval { plugin($name, args => $args{$name} // []) };
        if ($test) { $say->('runs, at ' . (join(' ', map { $_->{hook} } @{$test->ready->{hooks}}) || 'no hook')) }
        else       { $say->($@) }
        POSIX::_exit(0);
    }
    close $writes;
    my $what = do { local $/; <$reads> };
    waitpid $child, 0;
    return $what if length $what;
    return 'exit ' . ($? >> 8) . ' while it was loaded';
}

done_testing;
