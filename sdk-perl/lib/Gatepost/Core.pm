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

sub config       { @{call('config', name => $_[0])->{values} // []} }
# Whether an address, as text or as Qpsmtpd::Address, is one of ours: `valid`, `invalid`, or `unknown` where no plugin
# answers for it. Dies with code `temporary` when that is not known now.
sub recipient_valid {
    my ($address) = "$_[0]" =~ /\A<?(.*?)>?\z/s;
    return call('recipient/valid', address => $address)->{validity};
}

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

package Gatepost::Core::Error;

use overload '""' => sub { "$_[0]{message} ($_[0]{code})" }, fallback => 1;

sub new {
    my ($class, $code, $message) = @_;
    return bless {code => $code, message => $message}, $class;
}

sub code    { $_[0]{code} }
sub message { $_[0]{message} }

1;
