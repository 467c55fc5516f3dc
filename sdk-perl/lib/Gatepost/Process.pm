package Gatepost::Process;

# The program gatepost-perl: where the channel comes from, and what the process around the plugins looks like.

use strict;
use warnings;

use IO::Handle;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(SOCK_STREAM);
use Gatepost::Channel;
use Gatepost::Streams;
use Gatepost::Worker;

my $USAGE = <<'END';
gatepost-perl runs qpsmtpd's plugins for Gatepost, which starts it by itself for a plugin configured like this:

    [[plugin]]
    name = "badrcptto"
    qpsmtpd = "badrcptto"
    plugin_dirs = ["/usr/share/qpsmtpd/plugins"]

To keep it running by hand, and let Gatepost attach to it (attach = "unix:/run/gatepost-perl.sock"):

    gatepost-perl --listen unix:/run/gatepost-perl.sock [PLUGIN-FILE [ARGUMENT ...]]

PLUGIN-FILE is the plugin to run where the configuration names none.
END

our $worker;

# Where a plugin's code ended the process; plugins are compiled later than this.
my $ended_at = '';

BEGIN {
    no warnings 'once';
    *CORE::GLOBAL::exit = sub (;$) {
        my (undef, $file, $line) = caller;
        $ended_at = " at $file line $line";
        CORE::exit($_[0] // 0);
    };
}

END {
    my $code = $?;
    $worker->ended($code, $ended_at) if $worker;
    $? = $code;
}

# Returns the exit code.
sub main {
    my @arguments = @_;
    my $listen = shift @arguments && shift @arguments if @arguments && $arguments[0] eq '--listen';
    my ($source, @args) = @arguments;
    my %default = (source => $source, args => \@args);
    if (defined $listen) { return _listen($listen, %default) }

    my $where = delete $ENV{GATEPOST_FD};
    if (!defined $where) {
        print STDERR $USAGE;
        return 2;
    }
    my $channel = eval { Gatepost::Channel->from_environment($where) };
    if (!$channel) {
        print STDERR "gatepost-perl: $@";
        return 2;
    }
    # An interrupt at the terminal goes to all processes; the core decides when its workers end.
    $SIG{INT} = sub { };
    return _serve($channel, %default);
}

sub _serve {
    my ($channel, %default) = @_;
    Gatepost::Streams::set_up();
    # A handler, since an ignored signal would stay ignored in programs that plugins run.
    $SIG{PIPE} = sub { };
    $worker = Gatepost::Worker->new($channel, %default);
    # The core asks where we are (docs/protocol.md §7.2).
    $SIG{USR2} = sub { local ($!, $@, $?); $worker->late if $worker };
    my $code = $worker->serve;
    undef $worker;
    return $code;
}

# One process for each connection: the core opens one for each of its workers, and a plugin expects to be alone.
sub _listen {
    my ($where, %default) = @_;
    my ($path) = $where =~ /\Aunix:(.+)\z/;
    if (!defined $path) {
        print STDERR "gatepost-perl: --listen $where: should be unix:PATH\n";
        return 2;
    }
    if (-S $path && !IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path)) { unlink $path }
    my $listener = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path, Listen => 16);
    if (!$listener) {
        print STDERR "gatepost-perl: cannot listen on $path: $!\n";
        return 1;
    }
    local $SIG{CHLD} = sub { local ($!, $?); 1 while waitpid(-1, POSIX::WNOHANG()) > 0 };
    while (1) {
        my $socket = $listener->accept or next;
        my $child = fork;
        if (!defined $child) {
            print STDERR "gatepost-perl: cannot start a process for a connection: $!\n";
            next;
        }
        next if $child;
        $SIG{CHLD} = 'DEFAULT';
        close $listener;
        exit _serve(Gatepost::Channel->new($socket, $socket), %default);
    }
}

1;
