package Gatepost::Channel;

# Frames in and out over two descriptors (or one socket, both ways). Reading takes all that is there in one system
# call, writing waits until the reader would block, so a burst of hooks costs two calls in all.
#
# new($in, $out)   takes open handles
# from_environment takes those of GATEPOST_FD, and makes them close-on-exec
# next_frame()     the next frame's map, or undef at end of file; dies "CODE: explanation" on a broken frame
# has_input()      whether next_frame() would find something to read; a frame may still not be whole. Sends what waits

use strict;
use warnings;

use Errno qw(EINTR EPIPE ECONNRESET);
use Fcntl qw(F_GETFD F_SETFD FD_CLOEXEC);
use Gatepost::Codec ();
use Gatepost::Schema ();

sub new {
    my ($class, $in, $out) = @_;
    binmode $_ for $in, $out;
    my (undef, $decode) = Gatepost::Codec::decoder();
    return bless {in => $in, out => $out, buffer => '', pending => '', decode => $decode}, $class;
}

sub from_environment {
    my ($class, $value) = @_;
    my ($read, $write) = $value =~ /\A([0-9]{1,6})(?:,([0-9]{1,6}))?\z/
        or die "GATEPOST_FD is \"$value\"; it should be two descriptors like 3,4, or one like 3\n";
    my $in  = _adopt($read, defined $write ? '<' : '+<');
    my $out = defined $write ? _adopt($write, '>') : $in;
    return $class->new($in, $out);
}

# A plugin's child that kept these open would hide from both sides that the other has gone.
sub _adopt {
    my ($fd, $mode) = @_;
    if ($fd <= 2) {
        open my $away, "$mode&", $fd or die "GATEPOST_FD names descriptor $fd: $!\n";
        open my $null, $mode, '/dev/null' or die "/dev/null: $!\n";
        require POSIX;
        POSIX::dup2(fileno $null, $fd);
        return _close_on_exec($away);
    }
    open my $handle, "$mode&=", $fd or die "GATEPOST_FD names descriptor $fd: $!\n";
    return _close_on_exec($handle);
}

sub _close_on_exec {
    my $handle = shift;
    my $flags = fcntl $handle, F_GETFD, 0 or die "cannot read descriptor flags: $!\n";
    fcntl $handle, F_SETFD, $flags | FD_CLOEXEC or die "cannot set close-on-exec: $!\n";
    return $handle;
}

sub send { $_[0]{pending} .= $_[1] }

# Gives undef, and forgets what was to be sent, when the other side is gone.
sub flush {
    my $self = shift;
    # A signal's handler came in between: what it has to say goes out with the rest.
    return 1 if $self->{writing};
    local $self->{writing} = 1;
    while ($self->{pending} ne '') {
        my $n = syswrite $self->{out}, $self->{pending};
        if (defined $n) { substr $self->{pending}, 0, $n, '' }
        elsif ($! != EINTR) {
            my $error = $!;
            $self->{pending} = '';
            return if $error == EPIPE || $error == ECONNRESET;
            die "write: $error\n";
        }
    }
    return 1;
}

sub next_frame {
    my $self = shift;
    my $buffer = \$self->{buffer};
    while (1) {
        my $have = length $$buffer;
        if ($have >= 4) {
            my $n = unpack 'N', $$buffer;
            die "empty: a frame of length 0\n" unless $n;
            die "too_long: a frame of $n bytes, $Gatepost::Schema::MAX_FRAME is the limit\n"
                if $n > $Gatepost::Schema::MAX_FRAME;
            if ($have >= 4 + $n) {
                # Perl takes bytes off the front of a string without moving the rest.
                substr $$buffer, 0, 4, '';
                return $self->{decode}->(substr $$buffer, 0, $n, '');
            }
        }
        $self->_fill($have) or return;
    }
}

sub has_input {
    my $self = shift;
    return 1 if length $self->{buffer};
    $self->flush or return 0;
    vec(my $reading = '', fileno $self->{in}, 1) = 1;
    return select($reading, undef, undef, 0) > 0;
}

sub _fill {
    my ($self, $have) = @_;
    $self->flush or return;
    while (1) {
        my $n = sysread $self->{in}, $self->{buffer}, 65536, $have;
        return 1 if $n;
        if (defined $n) {
            die "truncated: the channel ended within a frame\n" if $have;
            return;
        }
        next if $! == EINTR;
        return if $! == ECONNRESET;
        die "read: $!\n";
    }
}

1;
