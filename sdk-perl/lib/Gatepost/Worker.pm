package Gatepost::Worker;

# The plugin's end of one channel: handshake, hooks one by one in the order they came, calls to the core in between.
#
# serve() returns the exit code when the channel ends. It is also the backend of Gatepost::Core. A process that is asked to fork
# runs no hooks itself: its children have the plugins loaded already, and share the memory of that.

use strict;
use warnings;

use IO::Socket::UNIX;
use POSIX ();
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
use Gatepost;
use Gatepost::Channel;
use Gatepost::Core;
use Gatepost::Host;
use Gatepost::Schema;

# Hooks wait in our pipe rather than in the core: the next one is there when this one is done.
my $CONCURRENCY = 64;

# The next hook has what is left of this one's time, so it is only run where hardly any is gone: in seconds.
my $AT_ONCE = 0.01;

# What stands beside the results of the next hook, in bytes; of plugins that had nothing to say there is not much.
my $BRIEF = 2048;

# How long copies of a process whose core is gone have to finish what they are at, in seconds.
my $GRACE = 5;

# Results above this, and what stands around them, would not fit into a frame.
my $MAX_RESULTS = $Gatepost::Schema::MAX_FRAME - 4096 - $BRIEF;

sub new {
    my ($class, $channel, %args) = @_;
    return bless {
        channel => $channel, host => Gatepost::Host->new(%args), pid => $$, waiting => [], cancelled => {}, departed => {}, calls => 0,
    }, $class;
}

my %handler = (hello => \&_hello, init => \&_init, hook => \&_hook, event => \&_event, cancel => \&_cancel,
    fork => \&_fork);

sub serve {
    my $self = shift;
    local $Gatepost::Core::backend = $self;
    $self->_greet;
    my $waiting = $self->{waiting};
    while (my $message = shift @$waiting // eval { $self->{channel}->next_frame } // $self->_no_frame) {
        my $handler = $handler{$message->{kind} // ''} or next;
        $self->$handler($message);
    }
    $self->_end_children;
    return $self->{failed} // 0;
}

# A core that was killed ends nobody: a copy of ours that is busy for ever would be there for ever.
sub _end_children {
    my $self = shift;
    my $children = $self->{children} or return;
    my $until = clock_gettime(CLOCK_MONOTONIC) + $GRACE;
    while (%$children && clock_gettime(CLOCK_MONOTONIC) < $until) {
        $self->_reap;
        select undef, undef, undef, 0.05 if %$children;
    }
    kill KILL => map { -$_ } keys %$children;
    return;
}

sub _greet {
    my $self = shift;
    $self->{channel}->send(Gatepost::Schema::message_hello({
        protocol => $Gatepost::Schema::PROTOCOL, version => \@Gatepost::Schema::VERSION,
        sdk => "gatepost-perl $Gatepost::VERSION", features => \@Gatepost::Schema::FEATURES,
    }));
    return;
}

# The channel ended, or what came breaks the protocol, which leaves nothing to hold on to.
sub _no_frame {
    my $self = shift;
    return if $@ eq '';
    chomp(my $reason = $@);
    $self->_give_up("broken frame from the core: $reason");
}

sub _give_up {
    my ($self, $reason) = @_;
    print STDERR "gatepost-perl: $reason\n";
    $self->{channel}->flush;
    exit 1;
}

sub _hello {
    my ($self, $message) = @_;
    my ($theirs, $ours) = map { join '.', @$_ } $message->{version} // [], \@Gatepost::Schema::VERSION;
    my $protocol = $message->{protocol} // '';
    my ($major) = @{$message->{version} // []};
    return $self->{greeted} = 1
        if $protocol eq $Gatepost::Schema::PROTOCOL && defined $major && $major == $Gatepost::Schema::VERSION[0];

    my $server = $message->{server} // 'the core';
    my $reason = $protocol ne $Gatepost::Schema::PROTOCOL
        ? "$server speaks the protocol \"$protocol\"; gatepost-perl speaks $Gatepost::Schema::PROTOCOL"
        : "$server speaks plugin protocol $theirs, gatepost-perl $Gatepost::VERSION speaks $ours: upgrade "
            . (($major // 0) > $Gatepost::Schema::VERSION[0] ? 'sdk-perl' : 'the core');
    $self->{channel}->send(Gatepost::Schema::message_error({message => $reason}));
    $self->_give_up($reason);
}

sub _init {
    my ($self, $message) = @_;
    $self->_give_up('the core sent init before hello') unless $self->{greeted};
    %Gatepost::Core::about = (
        hostname => $message->{hostname} // 'localhost', scratch_dir => $message->{scratch_dir},
        worker => $message->{worker} // 1,
    );
    _resolve_at($message->{dns_server}) if defined $message->{dns_server};
    my @errors = $self->{loaded}++ ? () : $self->{host}->load($message->{plugins} // []);
    if (@errors) {
        $self->{channel}->send(Gatepost::Schema::message_init_error({errors => \@errors}));
        $self->{failed} = 1;
    }
    else {
        $self->{channel}->send(Gatepost::Schema::message_ready({
            concurrency => $CONCURRENCY, plugins => $self->{host}->ready,
        }));
    }
    return;
}

# Net::DNS looks into the environment when the first resolver is made, whoever makes it; so do programs in Perl that plugins start.
sub _resolve_at {
    my ($address, $port) = $_[0] =~ /\A\[?([0-9A-Fa-f.:]+?)\]?:([0-9]+)\z/ or return;
    $ENV{RES_NAMESERVERS} = $address;
    $ENV{RES_OPTIONS} = join ' ', $ENV{RES_OPTIONS} // (), "port:$port";
    return;
}

# The child goes on in serve(), at a channel of its own. It leads a process group, so that what it starts ends with it.
sub _fork {
    my ($self, $message) = @_;
    $self->{channel}->flush;
    $SIG{CHLD} = sub { local ($!, $?); $self->_reap };
    my $child = fork;
    if (!defined $child) {
        print STDERR "gatepost-perl: cannot fork a worker: $!\n";
        return;
    }
    if ($child) {
        $self->{children}{$child} = 1;
        return;
    }
    $SIG{CHLD} = 'DEFAULT';
    setpgrp 0, 0;
    srand;
    @$self{qw(pid children greeted)} = ($$, {}, 0);
    close $_ for @{$self->{channel}}{qw(in out)};
    $self->{host}->forked;
    no warnings 'once';
    $Gatepost::Streams::pid = $$;
    my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $message->{path});
    if (!$socket) {
        print STDERR "gatepost-perl: a forked worker cannot connect to $message->{path}: $!\n";
        POSIX::_exit(1);
    }
    $self->{channel} = Gatepost::Channel->new($socket, $socket);
    $self->_greet;
    return;
}

# Only our own: what plugins started is theirs to wait for.
sub _reap {
    my $self = shift;
    for my $child (keys %{$self->{children}}) {
        next unless waitpid($child, POSIX::WNOHANG()) == $child;
        delete $self->{children}{$child};
        my ($status, $signal) = ($? >> 8, $? & 127);
        next unless $?;
        my $how = $signal ? "died of signal $signal" : "exited with status $status";
        print STDERR "gatepost-perl: the worker with process id $child $how\n";
    }
    return;
}

sub _hook {
    my ($self, $message) = @_;
    my $id = $message->{id} // return;
    my ($results, $encoded) = ([]);
    my ($then, $thereof) = $message->{then};
    if (!delete $self->{cancelled}{$id}) {
        @$self{qw(current hook)} = ($id, $message->{hook});
        my $latest = $then && clock_gettime(CLOCK_MONOTONIC) + $AT_ONCE;
        ($results, $encoded) = $self->{host}->run($message);
        $thereof = $self->_go_on($message, $then, $encoded)
            if $then && defined $encoded && length $encoded <= $BRIEF && clock_gettime(CLOCK_MONOTONIC) <= $latest;
        undef $self->{current};
    }
    delete $self->{departed}{$id};
    $self->{channel}->send(Gatepost::Schema::message_result($id, $encoded // _encoded($results), $thereof));
    return;
}

# Nobody had anything to say: the next hook is run at once, as if the core had heard that and asked. $first: the results of this one.
sub _go_on {
    my ($self, $message, $then, $first) = @_;
    @$message{qw(hook plugins transaction)} = @$then{qw(hook plugins transaction)};
    local $self->{then} = 1;
    @$self{qw(hook first)} = ($then->{hook}, $first);
    my ($results, $encoded) = $self->{host}->run($message);
    undef $self->{first};
    return $encoded // _encoded($results);
}

sub _encoded {
    my $results = shift;
    my $encoded = Gatepost::Schema::results(map { $_->{_bytes} // $Gatepost::Schema::RESULT->($_) } @$results);
    return $encoded if length $encoded <= $MAX_RESULTS;
    return Gatepost::Schema::results(map {
        $Gatepost::Schema::RESULT->({
            plugin => $_->{plugin}, disposition => 'error', message => 'the result is too large for a frame',
        })
    } @$results);
}

sub _event {
    my ($self, $message) = @_;
    $self->{host}->event($message);
    return;
}

# Only a hook that waits, here or in a call, can still be stopped; the others have their result sent already. That a
# client is gone stops none at `queue`: it is for the plugin to know.
sub _cancel {
    my ($self, $message) = @_;
    my $id = $message->{id} // return;
    my ($waiting) = grep { ($_->{kind} // '') eq 'hook' && ($_->{id} // '') eq $id } @{$self->{waiting}};
    if (_departs($waiting && $waiting->{hook}, $message)) { $self->{departed}{$id} = 1 }
    elsif ($waiting) { $self->{cancelled}{$id} = $message->{reason} // 'cancelled' }
    return;
}

sub _departs {
    my ($hook, $cancel) = @_;
    return ($hook // '') eq 'queue' && ($cancel->{reason} // '') eq 'disconnect';
}

# The cancel of the hook that runs. Dies where it ends it.
sub _cancel_current {
    my ($self, $message, $doing) = @_;
    return $self->{departed}{$self->{current}} = 1 if _departs($self->{hook}, $message);
    die Gatepost::Core::Error->new('cancelled', "$doing: cancelled: " . ($message->{reason} // ''));
}

# Takes in what the core sent already, where the hook is one that has a client to lose.
sub client_gone {
    my $self = shift;
    my $current = $self->{current} // return 0;
    return 0 if $self->{hook} ne 'queue' || $$ != $self->{pid};
    while (!$self->{departed}{$current} && $self->{channel}->has_input) {
        my $message = eval { $self->{channel}->next_frame } // $self->_no_frame;
        # End of file: serve() finds it again.
        last unless $message;
        my $kind = $message->{kind} // '';
        if ($kind eq 'cancel' && ($message->{id} // '') eq $current) { $self->_cancel_current($message, 'client_gone') }
        elsif ($kind eq 'cancel') { $self->_cancel($message) }
        elsif ($kind ne 'reply') { push @{$self->{waiting}}, $message }
    }
    return $self->{departed}{$current} // 0;
}

# Blocks until the core answers. What comes meanwhile waits for its turn, but for a hook of no session: it may be this
# very call that the core asks our plugins about.
sub call {
    my ($self, $method, $params) = @_;
    die Gatepost::Core::Error->new('failed', "$method: a plugin's child process cannot ask the core")
        if $$ != $self->{pid};
    my $id = ++$self->{calls};
    my $current = $self->{current};
    $self->{channel}->send(Gatepost::Schema::message_call({
        id => $id, for => $current, method => $method, params => $params,
    }));
    while (1) {
        my $message = eval { $self->{channel}->next_frame } // $self->_no_frame;
        # The core is gone, and with it everybody who could use what this hook would find.
        exit 0 unless $message;
        my $kind = $message->{kind} // '';
        if ($kind eq 'reply') {
            next if ($message->{id} // 0) != $id;
            my $error = $message->{error} or return $message->{ok} // {};
            die Gatepost::Core::Error->new($error->{code} // 'failed', "$method: " . ($error->{message} // 'failed'));
        }
        elsif ($kind eq 'cancel' && defined $current && ($message->{id} // '') eq $current) {
            $self->_cancel_current($message, $method);
        }
        elsif ($kind eq 'hook' && ($message->{session} // '') eq '') {
            # The plugin that called goes on afterwards.
            my @outer = ($Gatepost::Host::running, $Gatepost::Host::running_hook, $Gatepost::Host::spoken_so_far);
            my ($hook, $first) = @$self{qw(hook first)};
            local $Gatepost::Log::held;
            undef $self->{first};
            $self->_hook($message);
            ($Gatepost::Host::running, $Gatepost::Host::running_hook, $Gatepost::Host::spoken_so_far) = @outer;
            @$self{qw(current hook first)} = ($current, $hook, $first);
        }
        elsif ($kind eq 'cancel') { $self->_cancel($message) }
        else { push @{$self->{waiting}}, $message }
    }
}

# The hook config of plugins is the core's to call (Qpsmtpd::Config).
sub asks_plugins { 1 }

# Of what plugins found the core has the line, and tells it (Gatepost::Log).
sub tells_lines { 1 }

# $told: the plugins of this process that follow the log know it. A plugin's child shares the channel's descriptors, and must not write into the middle of a frame.
sub log {
    my ($self, $level, $plugin, $message, $told) = @_;
    if ($$ != $self->{pid}) {
        print STDERR defined $plugin ? "$plugin: $message\n" : "$message\n";
        return;
    }
    $self->{channel}->send(Gatepost::Schema::message_log({
        level => $level, message => $message, plugin => $plugin, for => $self->{current}, then => $self->{then}, told => $told,
    }));
    return;
}

# The core asks, by a signal, where we are: a deadline has passed.
sub late {
    my $self = shift;
    return $self->_unfinished('it is' . (Gatepost::Host::where_it_is() || ' in code that cannot be looked into')) if $$ == $self->{pid};
}

# What there is of the results of the hook that runs.
sub _unfinished {
    my ($self, $why) = @_;
    my ($id, $results) = ($self->{current}, $self->{host}->unfinished($why));
    return unless defined $id && $results;
    my $first = $self->{first};
    $self->{channel}->send(Gatepost::Schema::message_unfinished($id, defined $first ? ($first, _encoded($results)) : _encoded($results)));
    $self->{channel}->flush;
    return;
}

# The process ends because a plugin called exit: says which one, and where, so that the operator need not guess.
sub ended {
    my ($self, $code, $place) = @_;
    my $name = Gatepost::Host::running_plugin();
    return if $$ != $self->{pid} || !defined $name;
    my $hook = $Gatepost::Host::running_hook;
    my $where = defined $hook ? "in the hook $hook" : 'while it was loaded';
    print STDERR "gatepost-perl: the plugin $name called exit($code) $where$place\n";
    $self->_unfinished("called exit($code)$place");
    if (!defined $hook) {
        $self->{channel}->send(Gatepost::Schema::message_init_error({
            errors => [{plugin => $name, path => [], message => "called exit($code) $where$place"}],
        }));
    }
    $self->{channel}->flush;
    return;
}

1;
