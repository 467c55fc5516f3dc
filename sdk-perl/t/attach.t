use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use File::Temp ();
use FakeCore;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(SOCK_STREAM);
use Test::More;
use Time::HiRes qw(sleep time);

# The program started by hand: it listens, and serves each connection in a process of its own.

my $dir = File::Temp->newdir;
my $path = "$dir/plugin.sock";

# A test that dies must not leave a listener behind: it would keep the test harness waiting.
my $listener;
END { kill KILL => $listener if $listener }

sub start {
    my @arguments = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        undef $listener;
        delete $ENV{GATEPOST_FD};
        open STDERR, '>', "$dir/stderr" or die;
        no warnings 'exec';
        exec $^X, "-I$FakeCore::ROOT/lib", "$FakeCore::ROOT/bin/gatepost-perl", @arguments;
        POSIX::_exit(127);
    }
    return $pid;
}

sub attach {
    my $until = time + $FakeCore::DEADLINE;
    while (time < $until) {
        my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path) or sleep(0.01), next;
        return FakeCore->over($socket, $socket);
    }
    die "nothing listens on $path";
}

sub rcpt { my ($core, $user) = @_; my $results = $core->hook(rcpt => args => {address => "$user\@example.org"}); $results && $results->[0] }

# A socket that a dead process left behind is no obstacle.
IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path, Listen => 1) or die "$path: $!";
$listener = start('--listen', "unix:$path", "$FindBin::RealBin/plugins/say", 'reject', '0');

my ($first, $second) = (attach(), attach());
is $_->start({name => 'known under another name'})->{kind}, 'ready', 'ready' for $first, $second;
is rcpt($first, 'deny')->{plugin}, 'known under another name', 'the plugin of the command line takes the name it is sent';
is rcpt($second, 'deferred')->{message}, 'tolerated, listed', 'and its arguments';
is rcpt($second, 'exit'), undef, 'the end of one channel ...';
is rcpt($first, 'deny')->{verdict}, 'deny', '... is not the end of another';
close $first->{out};

my $third = attach();
is $third->start({name => 'x', source => "$FindBin::RealBin/plugins/hops"})->{kind}, 'ready',
    'the next connection, with a plugin that the core names';
is $third->hook('data_post', transaction => 1, transaction_fields => {header => "Received: x\r\n" x 100, header_end => 1300, body_start => 1302})
    ->[0]{verdict}, 'deny';
kill TERM => $listener;
waitpid $listener, 0;
undef $listener;

for my $case ([['--listen', 'tcp:1'], 2, qr/should be unix:PATH/], [['--listen', 'unix:/nowhere/s'], 1, qr/cannot listen/], [[], 2, qr/qpsmtpd = "badrcptto"/]) {
    my ($arguments, $code, $text) = @$case;
    waitpid start(@$arguments), 0;
    is $? >> 8, $code, "@$arguments: exit code";
    open my $handle, '<', "$dir/stderr" or die;
    like join('', <$handle>), $text, 'and what to do';
}

done_testing;
