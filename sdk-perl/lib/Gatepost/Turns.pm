package Gatepost::Turns;

# What a plugin does at each of the protocol's hooks, from what it registered for qpsmtpd's.
#
# of(\%entry)   hook => the entry with {codes}, and {code} which is all of them as one. A code is called as a method of the plugin,
#               with the transaction and the hook's arguments
#
# Several hooks of qpsmtpd are part of one of the protocol's: post-connection comes last in disconnect, auth-plain and the like
# are auth_mechanism. Around the code of a plugin that needs it (Gatepost::Needs) stand the environment
# of its connection, and a look at what it did to the process.

use strict;
use warnings;

use B ();
use Cwd ();
use POSIX ();
use Gatepost::Hooks;
use Gatepost::Log;
use Gatepost::Outcome;
use Qpsmtpd::Command;
use Qpsmtpd::Constants;

sub of {
    my $entry = shift;
    my $plugin = $entry->{plugin};
    my (%turns, %where);
    my $registered = $plugin->{_gatepost}{registered} // {};
    for my $hook (grep { $registered->{$_} } @Gatepost::Hooks::ORDER) {
        my $served_by = Gatepost::Hooks::served_by($hook);
        push @{$turns{$served_by}}, map { _code($entry, $hook, $_) } @{$registered->{$hook}};
        $where{$served_by} //= place(_own($entry, $registered->{$hook}[0]));
    }
    for my $hook (keys %turns) {
        my @codes = @{$turns{$hook}};
        $turns{$hook} = {%$entry, where => $where{$hook}, codes => \@codes, code => @codes == 1 ? $codes[0] : _one_by_one(@codes)};
    }
    return \%turns;
}

# " at FILE line N", where the code begins, for messages.
sub place {
    my $code = shift // return '';
    my $start = B::svref_2object($code)->START;
    return $start->can('line') ? ' at ' . $start->file . ' line ' . $start->line : '';
}

sub _own { my ($entry, $what) = @_; return ref $what ? $what : $entry->{plugin}->can($what) }

sub _code {
    my ($entry, $hook, $what) = @_;
    my $code = _own($entry, $what) // return _missing($what);
    $code = _guarded($entry->{name}, $code) if $entry->{guarded};
    $code = _with_environment($code)        if $entry->{environment};
    return $hook =~ /\Aauth-(.+)/    ? _for_mechanism($hook, $1, $code)
         : $hook =~ /\A(\w+)_parse\z/ ? _parser($1, $code)
         : $hook =~ /-connection\z/    ? _named($hook, $code)
         :                              $code;
}

sub _missing {
    my $method = shift;
    return sub { die "the method $method, which the plugin registered, does not exist\n" };
}

# The first that has something to say ends it.
sub _one_by_one {
    my @codes = @_;
    return sub {
        my @got;
        for my $code (@codes) {
            @got = $code->(@_);
            no warnings 'numeric';
            last unless defined $got[0] && $got[0] == DECLINED;
        }
        return @got;
    };
}

sub _named {
    my ($hook, $code) = @_;
    return sub {
        local $Qpsmtpd::Plugin::current_hook = $hook;
        return $code->(@_);
    };
}

sub _for_mechanism {
    my ($hook, $mechanism, $code) = @_;
    return sub {
        return DECLINED unless lc($_[2] // '') eq $mechanism;
        local $Qpsmtpd::Plugin::current_hook = $hook;
        return $code->(@_);
    };
}

my %opens = (mail => 'FROM:', rcpt => 'TO:');

# The code that the hook gives is run here and now, and its result is what the core reads in place of the line.
sub _parser {
    my ($command, $code) = @_;
    return sub {
        my ($plugin, $transaction, $line) = @_;
        my ($rc, $parser, @rest) = $code->(@_);
        return ($rc, $parser, @rest) unless defined $rc && $rc eq OK && ref $parser eq 'CODE';
        my ($said, $first, @more) = Qpsmtpd::Command->parse($command, $line, $parser);
        if (!defined $said || $said ne OK) {
            $Gatepost::Outcome::code = 501;
            return (DENY, $first // 'Syntax error');
        }
        return (OK, join ' ', grep { defined } $first, @more) unless $opens{$command};
        my $read = $opens{$command} . ($first // '');
        while (my ($key, $value) = splice @more, 0, 2) { $read .= ' ' . uc($key) . (defined $value ? "=$value" : '') }
        return (OK, $read);
    };
}

# tcpserver's, and those that tell plugins what to think of a client. What a plugin deletes stays deleted for the connection.
my @TOLD = qw(RELAYCLIENT WHITELISTCLIENT RBLSMTPD);
my %TCP = (
    TCPREMOTEIP => 'remote_ip', TCPREMOTEHOST => 'remote_host', TCPREMOTEPORT => 'remote_port',
    TCPLOCALIP => 'local_ip', TCPLOCALPORT => 'local_port',
);

sub _with_environment {
    my $code = shift;
    return sub {
        my $connection = $Qpsmtpd::Plugin::current_qp->connection;
        my $told = $connection->{_environment} //= {
            $connection->relay_client ? (RELAYCLIENT => 1) : (), map { exists $ENV{$_} ? ($_ => $ENV{$_}) : () } @TOLD,
        };
        local @ENV{@TOLD, keys %TCP};
        delete @ENV{@TOLD};
        @ENV{keys %$told} = values %$told;
        for my $name (keys %TCP) { my $method = $TCP{$name}; $ENV{$name} = $connection->$method // '' }
        my @got = $code->(@_);
        $connection->{_environment} = {map { exists $ENV{$_} ? ($_ => $ENV{$_}) : () } @TOLD};
        return @got;
    };
}

# A working folder, a handler for children and children belong to all plugins of the process: what one did to them is undone, and said.
sub guard {
    my ($name, $where, $code) = @_;
    my ($folder, $handler, $pid) = (Cwd::getcwd(), $SIG{CHLD}, $$);
    # Those that somebody left before are not to be laid at this one's door.
    my $before;
    1 while ($before = waitpid -1, POSIX::WNOHANG()) > 0;
    my @got;
    my $lived = eval { @got = $code->(); 1 };
    my $error = $@;
    # A plugin's child has no business in here: it would answer in its parent's place.
    if ($$ != $pid) {
        print STDERR "$name: a child of it came back out of the plugin, and is ended$where\n";
        POSIX::_exit(255);
    }
    my $now = Cwd::getcwd();
    if (defined $folder && ($now // '') ne $folder) {
        Gatepost::Log::line($name, LOGWARN, 'changed the working folder to ' . ($now // 'one that is gone') . "; it is changed back$where");
        chdir $folder or Gatepost::Log::line($name, LOGERROR, "cannot go back to $folder: $!");
    }
    if (($SIG{CHLD} // '') ne ($handler // '')) {
        Gatepost::Log::line($name, LOGWARN, "set \$SIG{CHLD}, which is taken back: other plugins wait for children of theirs$where");
        $SIG{CHLD} = $handler // 'DEFAULT';
    }
    my $child;
    while (($child = waitpid -1, POSIX::WNOHANG()) > 0) {
        Gatepost::Log::line($name, LOGWARN, "left a child behind, process $child, which has ended$where");
    }
    Gatepost::Log::line($name, LOGWARN, "left a child behind, which still runs$where") if $child == 0 && $before != 0;
    die $error unless $lived;
    return @got;
}

sub _guarded {
    my ($name, $code) = @_;
    my $where = place($code);
    return sub {
        my @arguments = @_;
        return guard($name, $where, sub { $code->(@arguments) });
    };
}

1;
