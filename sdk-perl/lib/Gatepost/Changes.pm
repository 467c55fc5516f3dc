package Gatepost::Changes;

# Where the objects that plugins edit (connection, transaction, header, notes) say what was changed. While a plugin
# runs in a hook $list collects its changes for the result; outside of hooks, and in events, which have no result,
# it is undef and the edit stays in this process.

use strict;
use warnings;

our $list;

# Limits of the core (64 KiB a note), with room for the framing.
my $MAX_NOTE  = 60_000;
my $MAX_DEPTH = 8;

sub record {
    push @$list, {@_} if $list;
    return;
}

# What holds for one recipient, a hash as in the protocol, goes the same way: that a plugin has nothing to say is seen by one look
# at the list, which is taken for every plugin in every hook.
sub judge {
    push @$list, {recipient => $_[0]} if $list;
    return;
}

# How long the client is to wait for its reply, in milliseconds: the same way.
sub delay {
    push @$list, {delay => $_[0]} if $list;
    return;
}

# The changes and what holds for single recipients, as two lists, and how long the client is to wait, if it is; what was collected is
# taken.
sub take {
    my $all = $list;
    $list = [];
    my $delay = 0;
    $delay += $_ for map { $_->{delay} // () } @$all;
    return ([grep { $_->{op} } @$all], [map { $_->{recipient} // () } @$all], $delay || undef);
}

# Notes with live objects, and large ones, stay in this process, where qpsmtpd plugins expect them. True if mirrored.
sub note {
    my ($scope, $name, $value) = @_;
    return unless $list;
    my $room = $MAX_NOTE - length $name;
    return unless _plain($value, \$room, 0);
    push @$list, {op => 'note', scope => $scope, name => $name, value => _copy($value)};
    return 1;
}

sub _plain {
    my ($value, $room, $depth) = @_;
    return if $depth > $MAX_DEPTH || ($$room -= 9) < 0;
    return 1 unless defined $value;
    if (ref $value eq 'ARRAY') { return !grep { !_plain($_, $room, $depth + 1) } @$value }
    if (ref $value eq 'HASH') {
        $$room -= length for keys %$value;
        return !grep { !_plain($_, $room, $depth + 1) } values %$value;
    }
    return if ref $value || ref \$value eq 'GLOB';
    # A byte beyond ASCII may become two on the wire.
    return ($$room -= length($value) * ($value =~ /[^\x00-\x7f]/ ? 2 : 1)) >= 0;
}

# The plugin may go on editing what it stored; what is sent is what it was.
sub _copy {
    my $value = shift;
    return ref $value eq 'ARRAY' ? [map { _copy($_) } @$value]
         : ref $value eq 'HASH'  ? {map { $_ => _copy($value->{$_}) } keys %$value}
         :                         $value;
}

1;
