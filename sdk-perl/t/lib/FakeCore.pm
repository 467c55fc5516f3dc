package FakeCore;

# The daemon's end of the wire, for tests and benchmarks: starts bin/gatepost-perl on descriptors 3 and 4, speaks to
# it, and shows what it said. Every wait has a deadline.

use strict;
use warnings;

use Cwd 'abs_path';
use Fcntl qw(F_DUPFD F_SETFD FD_CLOEXEC);
use File::Basename 'dirname';
use File::Temp ();
use IO::Select;
use POSIX ();
use Time::HiRes 'time';
use Gatepost::MessagePack qw(pack_text pack_bytes pack_integer pack_boolean map_head array_head);

our $ROOT = abs_path(dirname(__FILE__) . '/../..');
our $DEADLINE = 10;

my %integer = map { $_ => 1 } qw(
    id transaction deadline_ms remote_port local_port karma size header_end body_start worker max_frame version number
);
my %boolean = map { $_ => 1 } qw(relay_client resumed spoke);
my %bytes   = map { $_ => 1 } qw(header data);

# A value as the core would write it, its type known by its key.
sub encode {
    my ($value, $key) = @_;
    return "\xc0" unless defined $value;
    return map_head(scalar keys %$value) . join '', map { pack_text($_) . encode($value->{$_}, $_) } sort keys %$value
        if ref $value eq 'HASH';
    return array_head(scalar @$value) . join '', map { encode($_, $key) } @$value if ref $value eq 'ARRAY';
    $key //= '';
    return $integer{$key} ? pack_integer($value) : $boolean{$key} ? pack_boolean($value)
         : $bytes{$key}   ? pack_bytes($value)   : pack_text($value);
}

sub frame { my $body = encode($_[0]); return pack('N', length $body) . $body }

# new(env => {...}, args => [...]): starts the program. Its standard output and error go to files.
sub new {
    my ($class, %args) = @_;
    my $dir = File::Temp->newdir;
    pipe my $in_read, my $in_write or die "pipe: $!";
    pipe my $out_read, my $out_write or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        my @high = map { fcntl $_, F_DUPFD, 20 } $in_read, $out_write;
        POSIX::dup2($high[0] + 0, 3);
        POSIX::dup2($high[1] + 0, 4);
        POSIX::close($_) for 5 .. 255;
        open STDOUT, '>', "$dir/stdout" or die;
        open STDERR, '>', "$dir/stderr" or die;
        %ENV = (%ENV, GATEPOST_FD => '3,4', %{$args{env} // {}});
        no warnings "exec";
        exec $^X, "-I$ROOT/lib", "$ROOT/bin/gatepost-perl", @{$args{args} // []};
        POSIX::_exit(127);
    }
    close $_ for $in_read, $out_write;
    return $class->over($out_read, $in_write, pid => $pid, dir => $dir);
}

sub over {
    my ($class, $in, $out, %more) = @_;
    binmode $_ for $in, $out;
    return bless {in => $in, out => $out, buffer => '', next => 0, heard => [], answers => {}, owner => $$, %more}, $class;
}

sub send { $_[0]->send_raw(join '', map { frame($_) } @_[1 .. $#_]) }

sub send_raw {
    my ($self, $bytes) = @_;
    local $SIG{PIPE} = 'IGNORE';
    while (length $bytes) {
        my $n = syswrite $self->{out}, $bytes;
        return unless defined $n;
        substr $bytes, 0, $n, '';
    }
    return 1;
}

# The next message, or undef at end of file.
sub receive {
    my $self = shift;
    my $until = time + $DEADLINE;
    while (1) {
        if (length $self->{buffer} >= 4) {
            my $n = unpack 'N', $self->{buffer};
            if (length $self->{buffer} >= 4 + $n) {
                my $body = substr $self->{buffer}, 4, $n;
                substr $self->{buffer}, 0, 4 + $n, '';
                return Gatepost::MessagePack::decode($body);
            }
        }
        my $left = $until - time;
        die "nothing came within $DEADLINE seconds; stderr: " . $self->stderr
            unless $left > 0 && IO::Select->new($self->{in})->can_read($left);
        sysread($self->{in}, $self->{buffer}, 65536, length $self->{buffer}) or return;
    }
}

# The next message of that kind. Calls are answered on the way, from {answers}; the rest is kept in {heard}.
sub wait_for {
    my ($self, $kind) = @_;
    while (my $message = $self->receive) {
        push @{$self->{heard}}, $message;
        if ($message->{kind} eq 'call') {
            my $answer = $self->{answers}{$message->{method}};
            $answer = $answer->($message->{params}, $self, $message) if ref $answer eq 'CODE';
            $self->send({kind => 'reply', id => $message->{id}, %$answer}) if $answer;
        }
        return $message if $message->{kind} eq $kind;
    }
    return;
}

sub hello {
    my ($self, %change) = @_;
    return {
        kind => 'hello', protocol => 'gatepost-plugin', version => [1, 0], server => 'gatepost 0.1.0',
        features => [qw(cancel defer segments settings then)], max_frame => 1048576, %change,
    };
}

# Both halves of the handshake. Gives `ready` or `init_error`.
sub start {
    my ($self, @plugins) = @_;
    $self->send($self->hello, {
        kind => 'init', hostname => 'mx.example.org', worker => 1, scratch_dir => $self->{dir} ? "$self->{dir}" : undef,
        dns_server => $self->{dns_server}, plugins => [map { {args => [], settings => {}, %$_} } @plugins],
    });
    my $hello = $self->wait_for('hello') or return;
    $self->{plugins} = [map { $_->{name} } @plugins];
    while (my $message = $self->receive) {
        push @{$self->{heard}}, $message;
        $self->send({kind => 'reply', id => $message->{id}, %{$self->{answers}{$message->{method}}}})
            if $message->{kind} eq 'call';
        return $message if $message->{kind} =~ /\A(?:ready|init_error)\z/;
    }
    return;
}

sub hook_message {
    my ($self, $hook, %more) = @_;
    return {
        kind => 'hook', id => ++$self->{next}, hook => $hook, plugins => $self->{plugins}, session => 's1',
        deadline_ms => 30000, args => {}, connection => {remote_ip => '192.0.2.1', karma => 0, relay_client => 0}, %more,
    };
}

# Sends a hook and gives its `results`.
sub hook {
    my ($self, $hook, %more) = @_;
    my $message = $self->hook_message($hook, %more);
    $self->send($message);
    my $result = $self->wait_for('result') or return;
    die "result of $result->{id}, $message->{id} was asked" if $result->{id} != $message->{id};
    return $result->{results};
}

sub event {
    my ($self, $hook, %more) = @_;
    my $message = $self->hook_message($hook, %more);
    delete @$message{qw(id deadline_ms)};
    $self->send({%$message, kind => 'event'});
    return;
}

# The log lines heard so far, as "level plugin: message".
sub take_log {
    my $self = shift;
    return map { "$_->{level} " . ($_->{plugin} // '-') . ": $_->{message}" }
        grep { $_->{kind} eq 'log' } splice @{$self->{heard}};
}

sub close_channel { close $_[0]{out}; return }

# Waits for the process; gives its exit code, or "signal N".
sub wait_exit {
    my $self = shift;
    my $until = time + $DEADLINE;
    while (time < $until) {
        if (waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid}) {
            my $status = $?;
            delete $self->{pid};
            return $status & 127 ? 'signal ' . ($status & 127) : $status >> 8;
        }
        select undef, undef, undef, 0.005;
    }
    die "the process did not end within $DEADLINE seconds";
}

sub _slurp { open my $handle, '<', $_[0] or return ''; local $/; return <$handle> // '' }

sub stderr { my $dir = $_[0]{dir} or return ''; _slurp("$dir/stderr") }
sub stdout { my $dir = $_[0]{dir} or return ''; _slurp("$dir/stdout") }

sub DESTROY {
    my $self = shift;
    return unless $self->{pid} && $self->{owner} == $$;
    local $?;
    close $_ for grep { defined } @$self{qw(in out)};
    kill KILL => $self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

1;
