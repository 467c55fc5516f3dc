package Gatepost::Core;

# What a plugin may ask of the daemon. $backend answers: a Gatepost::Worker (the wire) or a Gatepost::Memory (tests).
# A backend has call($method, \%params) -> hash of the reply, or dies with a Gatepost::Core::Error; and
# log($level name, $plugin or undef, $message); and client_gone().

use strict;
use warnings;

our $backend;

# What init said: hostname, scratch_dir (may be undef), worker.
our %about = (hostname => 'localhost');

sub call {
    my ($method, %params) = @_;
    die Gatepost::Core::Error->new('failed', "$method: no core is connected") unless $backend;
    return $backend->call($method, \%params);
}

# Dies with code `temporary` when the answer is not known now.
sub dns {
    my ($name, $type) = @_;
    my $answer = call('dns', name => $name, type => $type // 'A');
    return wantarray ? @{$answer->{records} // []} : $answer->{status};
}

# The lines of a flat file; with an address those that are its own, else everybody's.
sub config {
    my ($name, $recipient) = @_;
    return @{call('config', name => $name, defined $recipient ? (recipient => ref $recipient ? $recipient->to_wire : $recipient) : ())->{values} // []};
}

# Whether an address, as text or as Qpsmtpd::Address, is one of ours: `valid`, `invalid`, or `unknown` where no plugin
# answers for it. Dies with code `temporary` when that is not known now.
sub recipient_valid {
    my ($address) = "$_[0]" =~ /\A<?(.*?)>?\z/s;
    return call('recipient/valid', address => $address)->{validity};
}

# Whether the client sends something before it is its turn, waiting so many seconds for it: in the hooks pre_connection, connect, helo, ehlo
# and data. Elsewhere it may, and this dies with code `not_found`.
sub client_spoke { call('client/spoke', ms => int(1000 * $_[0]))->{spoke} }

sub state_get    { call('state/get', key => $_[0])->{value} }
sub state_set    { call('state/set', key => $_[0], value => $_[1], ttl_ms => $_[2]); return }
sub state_add    { call('state/add', key => $_[0], add => $_[1], ttl_ms => $_[2])->{value} }
sub state_delete { call('state/delete', key => $_[0]); return }
sub more_time    { call('more_time', ms => $_[0]); return }

# Bytes of the message as received; shorter than $length only at its end.
sub message_read {
    my ($offset, $length) = @_;
    return call('message/read', offset => $offset, length => $length)->{data} // '';
}

# In the hook queue: whether the client hung up, and will thus send the message again. A plugin that looks just before
# the message is its own for good, and returns DENYSOFT instead, spares the recipients a duplicate; what it returns
# counts either way.
sub client_gone { $backend ? $backend->client_gone : 0 }

# Sends a message of the plugin's own: header, empty line, body; lines may end in LF. It is on disk when this returns its name in the outbox.
# submit(recipients => \@addresses, message => $text, sender => '' unless said)
sub submit {
    my (%mail) = @_;
    my @recipients = map {_address($_)} @{$mail{recipients}};
    return call('message/submit', sender => _address($mail{sender}), recipients => \@recipients, message => $mail{message})->{id};
}

# Tells the sender of a message, by a delivery status notification, that it did not reach a recipient. Returns its name in the outbox once it is on
# disk; undef where there may be none, as for a null sender.
# bounce(sender => , recipient => , text => why, message => the message or its header, code => 550 unless said, enhanced => '5.1.1' and the like, if known)
sub bounce {
    my (%mail) = @_;
    return call(
        'message/bounce',
        (map {$_ => _address($mail{$_})} qw(sender recipient)),
        (map {$_ => $mail{$_}} grep {defined $mail{$_}} qw(text message enhanced)),
        code => 0 + ($mail{code} // 550),
    )->{id};
}

# A Qpsmtpd::Address or text, with angle brackets or without.
sub _address {
    my $address = ref $_[0] ? $_[0]->address : $_[0];
    return ($address // '') =~ s/\A<(.*)>\z/$1/sr;
}

package Gatepost::Core::Error;

use overload '""' => sub { "$_[0]{message} ($_[0]{code})" }, fallback => 1;

sub new {
    my ($class, $code, $message) = @_;
    return bless {code => $code, message => $message}, $class;
}

sub code    { $_[0]{code} }
sub message { $_[0]{message} }

1;
