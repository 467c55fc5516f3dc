package Qpsmtpd::Postfix;

# Hands a message to Postfix's cleanup(8), which keeps it in Postfix's queue.
#
# Qpsmtpd::Postfix->inject_mail($transaction)   gives (status, queue id, reason); status 0 is success. Where no cleanup can be asked, or
#                                               it hangs up, the status is CLEANUP_STAT_DEFER, and the reason says what went wrong
#
# The transaction's note postfix-queue-sockets is a list of sockets to try (/path, or host:port), postfix-queue-flags the flags.
#
# On the wire attributes are name NUL value NUL, ended by an empty name; records are a letter, a length of 7 bits a byte with the lowest
# first, and the data (Postfix: attr_print0.c, rec_type.h, record.c).

use strict;
use warnings;

use IO::Socket::INET;
use IO::Socket::UNIX;
use Qpsmtpd::Postfix::Constants;

my $MAX_LINE = 2048;
my $TIMEOUT  = 300;

sub inject_mail {
    my ($class, $transaction) = @_;
    my $sockets = $transaction->notes('postfix-queue-sockets') // ['/var/spool/postfix/public/cleanup'];
    my @got = eval {
        local $SIG{ALRM} = sub { die "no answer in $TIMEOUT seconds\n" };
        local $SIG{PIPE} = 'IGNORE';
        alarm $TIMEOUT;
        my $self = $class->_open(@$sockets);
        my @answer = $self->_hand_over($transaction);
        alarm 0;
        @answer;
    };
    my $why = $@;
    alarm 0;
    return @got if @got;
    $why =~ s/\s+\z//;
    return (CLEANUP_STAT_DEFER, undef, "Postfix's cleanup: $why");
}

sub _open {
    my ($class, @sockets) = @_;
    my @why;
    for my $where (@sockets) {
        my $path = $where =~ s{\Aunix:}{}r;
        my $socket = $path =~ m{\A/} ? IO::Socket::UNIX->new(Peer => $path)
            : IO::Socket::INET->new(PeerAddr => $path =~ s/\Ainet:|\Atcp://r, Timeout => 10);
        return bless {socket => $socket}, $class if $socket;
        push @why, "$where: $!";
    }
    die 'cannot connect: ' . join('; ', @why) . "\n";
}

sub _hand_over {
    my ($self, $transaction) = @_;
    my %hello = $self->_attributes;
    my $id = $hello{queue_id} // die "did not say a queue id\n";
    $self->_send(join("\0", 'flags', $transaction->notes('postfix-queue-flags') || 0) . "\0\0");
    $self->_record(T => time);
    $self->_record(S => $transaction->sender ? $transaction->sender->address : '');
    $self->_record(R => $_->address) for $transaction->recipients;
    $self->_record(M => '');
    $self->_line($_) for split /\n/, $transaction->header ? $transaction->header->as_string : '';
    $transaction->body_resetpos;
    while (defined(my $line = $transaction->body_getline)) { $self->_line($line) }
    $self->_record($_ => '') for qw(X E);
    my %answer = $self->_attributes;
    return ($answer{status} // die("hung up before it said what became of $id\n"), $id, $answer{reason} // '');
}

sub _line {
    my ($self, $line) = @_;
    $line =~ s/\r?\n\z//;
    $self->_record(L => substr $line, 0, $MAX_LINE, '') while length $line > $MAX_LINE;
    return $self->_record(N => $line);
}

sub _record {
    my ($self, $type, $data) = @_;
    utf8::encode($data) if utf8::is_utf8($data);
    return $self->_send($type . _length(length $data) . $data);
}

sub _length {
    my $n = shift;
    my $bytes = '';
    while ($n > 127) {
        $bytes .= chr(0x80 | $n & 0x7f);
        $n >>= 7;
    }
    return $bytes . chr $n;
}

sub _send {
    my ($self, $bytes) = @_;
    print {$self->{socket}} $bytes or die "write: $!\n";
    return;
}

sub _attributes {
    my $self = shift;
    $self->{socket}->flush or die "write: $!\n";
    local $/ = "\0";
    my %attributes;
    while (defined(my $name = readline $self->{socket})) {
        chomp $name;
        return %attributes if $name eq '';
        my $value = readline($self->{socket}) // last;
        chomp $value;
        $attributes{$name} = $value;
    }
    return %attributes;
}

1;
