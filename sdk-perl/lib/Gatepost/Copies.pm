package Gatepost::Copies;

# Each session's own plugin objects, as if a process had been forked for it: made from the registered ones when a plugin has its first
# turn in the session, and gone with it. Data that hangs off a plugin is copied; live objects, code, handles and tied tables are shared,
# as their descriptors are between processes. A plugin whose code holds on to the object itself (a closure over $self) has one object
# for all sessions, since that code would go on with the registered one.
#
# $current   those of the session that is being served, by the plugins' numbers; undef where there is none
# of($plugin)
# copy($plugin)
# is_held($plugin)   whether code that hangs off it, or that it registered, holds on to it

use strict;
use warnings;

use B ();
use Scalar::Util ();

our $current;

my $numbers = 0;

sub next_number { return ++$numbers }

sub of {
    my $plugin = shift;
    my $number = $plugin->{_gatepost}{number};
    return $plugin unless $current && defined $number;
    return $current->{$number} //= copy($plugin);
}

sub copy {
    my $plugin = shift;
    my $copy = bless {%$plugin}, ref $plugin;
    # What the SDK knows of a plugin no plugin edits.
    my $own = $plugin->{_gatepost};
    my %seen;
    $seen{Scalar::Util::refaddr($own)} = $own if $own;
    for my $value (values %$copy) { $value = _deep($value, \%seen) if ref $value }
    return $copy;
}

sub is_held {
    my $plugin = shift;
    my (%seen, @codes);
    my @rest = values %$plugin;
    while (@rest) {
        my $value = shift @rest;
        my $kind = Scalar::Util::reftype($value) // next;
        next if $seen{Scalar::Util::refaddr($value)}++;
        if    ($kind eq 'CODE') { push @codes, $value }
        elsif (ref $value eq 'HASH' && !tied %$value)  { push @rest, values %$value }
        elsif (ref $value eq 'ARRAY' && !tied @$value) { push @rest, @$value }
    }
    return !!grep { _holds($_, Scalar::Util::refaddr($plugin)) } @codes;
}

# Whether one of the variables of a closure is a reference to that address.
sub _holds {
    my ($code, $address) = @_;
    my $lists = B::svref_2object($code)->PADLIST;
    return 0 unless $lists->can('ARRAYelt');
    my $values = $lists->ARRAYelt(1) or return 0;
    return 0 unless $values->can('ARRAY');
    return !!grep { $_->can('RV') && $_->can('FLAGS') && $_->FLAGS & B::SVf_ROK() && ${$_->RV} == $address } $values->ARRAY;
}

sub _deep {
    my ($value, $seen) = @_;
    my $kind = ref $value;
    return $value unless $kind eq 'HASH' && !tied %$value || $kind eq 'ARRAY' && !tied @$value;
    my $address = Scalar::Util::refaddr($value);
    return $seen->{$address} if $seen->{$address};
    if ($kind eq 'HASH') {
        my $copy = $seen->{$address} = {};
        $copy->{$_} = ref $value->{$_} ? _deep($value->{$_}, $seen) : $value->{$_} for keys %$value;
        return $copy;
    }
    my $copy = $seen->{$address} = [];
    @$copy = map { ref $_ ? _deep($_, $seen) : $_ } @$value;
    return $copy;
}

1;
