package Qpsmtpd::Notes;

# notes($key), notes($key, $value): what a connection, a transaction or an address carries for plugins. A base class.
# The value is anything, live objects included; setting returns it. Of connection and transaction plain data is
# mirrored to the core, where plugins of other processes see it (Gatepost::Changes).

use strict;
use warnings;

use Gatepost::Changes;

# 'connection' or 'transaction'; undef for objects whose notes the core does not know.
sub note_scope { undef }

sub notes {
    my ($self, $key) = (shift, shift);
    return $self->{_notes}{$key} unless @_;
    my $value = $self->{_notes}{$key} = shift;
    if ($Gatepost::Changes::list && defined(my $scope = $self->note_scope)) {
        Gatepost::Changes::note($scope, $key, $value) and $self->{_mirrored}{$key} = _text($value);
    }
    return $value;
}

# Takes what the core holds for a hook whose plugins read notes. A note that was mirrored from here and is unchanged
# keeps its Perl value (and identity), and so does one that was changed here where nobody could be told, until the core has another. If these are
# $all notes, one that was mirrored and is gone was removed.
sub merge_notes {
    my ($self, $incoming, $all) = @_;
    my ($notes, $mirrored) = ($self->{_notes} //= {}, $self->{_mirrored} //= {});
    for my $key (keys %$incoming) {
        my $value = $incoming->{$key};
        next if exists $mirrored->{$key} && exists $notes->{$key} && _same($notes->{$key}, $value);
        my $text = _text($value);
        my $before = $mirrored->{$key} // '';
        $mirrored->{$key} = $text;
        next if exists $notes->{$key} && $before eq $text;
        $notes->{$key} = ref $value ? _plain($value) : $value;
    }
    return unless $all;
    my @gone = grep { !exists $incoming->{$_} } keys %$mirrored;
    delete @$notes{@gone};
    delete @$mirrored{@gone};
    return;
}

# A copy that is the plugins' own, to edit as they like; a test that has booleans gets 1 and 0, as from the wire.
sub _plain {
    my $value = shift;
    return ref $value eq 'HASH'  ? {map { $_ => _plain($value->{$_}) } keys %$value}
         : ref $value eq 'ARRAY' ? [map { _plain($_) } @$value]
         : ref $value            ? ($value ? 1 : 0)
         :                         $value;
}

sub _same {
    my ($one, $other) = @_;
    return _text($one) eq _text($other) if ref $one || ref $other;
    return defined $one && defined $other ? $one eq $other : !defined $one && !defined $other;
}

# One text for equal data, whatever the order of keys: lengths keep neighbours apart.
sub _text {
    my $value = shift;
    return 'u' unless defined $value;
    return 'h' . join ',', map { length($_) . ":$_=" . _text($value->{$_}) } sort keys %$value if ref $value eq 'HASH';
    return 'a' . @$value . join ',', map { _text($_) } @$value if ref $value eq 'ARRAY';
    return length($value) . ":$value";
}

1;
