package Gatepost::Copies;

# Each session's own plugin objects, as if a process had been forked for it: made from the registered ones when a plugin has its first
# turn in the session, and gone with it. Data that hangs off a plugin is copied; live objects, code, handles and tied tables are shared,
# as their descriptors are between processes.
#
# $current   those of the session that is being served, by the plugins' numbers; undef where there is none
# of($plugin)
# copy($plugin)

use strict;
use warnings;

use Scalar::Util ();

our $current;

# The SDK's own, which no plugin edits.
my %shared = map { $_ => 1 } qw(_registered _dirs _settings _guard);

my $numbers = 0;

sub next_number { return ++$numbers }

sub of {
    my $plugin = shift;
    my $number = $plugin->{_number};
    return $plugin unless $current && defined $number;
    return $current->{$number} //= copy($plugin);
}

sub copy {
    my $plugin = shift;
    my %seen;
    my %copy = map { $_ => ref $plugin->{$_} && !$shared{$_} ? _deep($plugin->{$_}, \%seen) : $plugin->{$_} } keys %$plugin;
    return bless \%copy, ref $plugin;
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
