package Gatepost::Settings;

# Settings that a plugin declares, checked before it runs. A plugin file may have
#
#   sub declare_settings {
#       return (
#           addresses => {type => 'list', required => 1, help => 'recipients that do not exist'},
#           message   => {type => 'text', default => 'no such user here'},
#       );
#   }
#
# Types: text, integer, boolean, duration, size, list (of text), map, any. A duration ("5s") becomes milliseconds, a
# size ("10MB") bytes. Without declare_settings everything is handed over as it was written.
#
# declared($plugin)          -> list of {name, type, default, required, help}
# check(\@declared, \%given) -> (\%settings, list of {path, message})

use strict;
use warnings;

use Gatepost::MessagePack qw(pack_integer pack_boolean);
use Gatepost::Schema;

my %duration = (ms => 1, s => 1000, m => 60_000, h => 3_600_000, d => 86_400_000);
my %size     = (b => 1, kb => 1024, mb => 1024**2, gb => 1024**3);

sub _unit {
    my ($value, $units, $bare) = @_;
    my ($number, $unit) = $value =~ /\A\s*([0-9]+)\s*([A-Za-z]*)\s*\z/ or return;
    my $factor = $unit eq '' ? $bare : $units->{lc $unit};
    return defined $factor ? $number * $factor : undef;
}

my %accept = (
    text     => sub { ref $_[0] ? undef : "$_[0]" },
    integer  => sub { !ref $_[0] && $_[0] =~ /\A-?[0-9]{1,15}\z/ ? 0 + $_[0] : undef },
    boolean  => sub { ref $_[0] eq 'HASH' || ref $_[0] eq 'ARRAY' || "$_[0]" !~ /\A(?:1|0|true|false)?\z/
                        ? undef : "$_[0]" =~ /\A(?:1|true)\z/ ? 1 : 0 },
    duration => sub { ref $_[0] ? undef : _unit($_[0], \%duration, undef) },
    size     => sub { ref $_[0] ? undef : _unit($_[0], \%size, 1) },
    list     => sub { ref $_[0] eq 'ARRAY' && !grep({ ref } @{$_[0]}) ? $_[0] : undef },
    map      => sub { ref $_[0] eq 'HASH' ? $_[0] : undef },
    any      => sub { $_[0] },
);

my %wanted = (
    text => 'a text', integer => 'a whole number', boolean => 'true or false', list => 'a list of texts',
    duration => 'a duration such as "5s"', size => 'a size such as "10MB"', map => 'a table',
);

sub declared {
    my $plugin = shift;
    return unless $plugin->can('declare_settings');
    my @pairs = $plugin->declare_settings;
    my @declared;
    while (my ($name, $about) = splice @pairs, 0, 2) {
        my $type = $about->{type} // 'text';
        die "declare_settings: $name has the unknown type \"$type\"\n" unless $accept{$type};
        push @declared, {%$about, name => $name, type => $type};
    }
    return @declared;
}

sub check {
    my ($declared, $given) = @_;
    my %known = map { $_->{name} => $_ } @$declared;
    my (%settings, @errors);
    for my $setting (@$declared) {
        my $name = $setting->{name};
        if (defined $given->{$name}) {
            my $value = $accept{$setting->{type}}->($given->{$name});
            if (defined $value) { $settings{$name} = $value }
            else { push @errors, {path => [$name], message => "`$name` should be $wanted{$setting->{type}}"} }
        }
        elsif ($setting->{required}) { push @errors, {path => [$name], message => "`$name` is missing"} }
        elsif (defined $setting->{default}) {
            $settings{$name} = $accept{$setting->{type}}->($setting->{default});
        }
    }
    for my $name (grep { !$known{$_} } sort keys %$given) {
        my $all = join ', ', map { $_->{name} } @$declared;
        push @errors, {path => [$name], message => "unknown setting `$name`; there are: " . ($all || 'none')};
    }
    return (\%settings, @errors);
}

# For `ready`: the default in the type that it has.
sub announced {
    return map {
        my %setting = %$_;
        if (defined $setting{default} && $setting{type} =~ /\A(?:integer|boolean)\z/) {
            my $pack = $setting{type} eq 'integer' ? \&pack_integer : \&pack_boolean;
            $setting{default} = Gatepost::Schema::encoded($pack->($setting{default}));
        }
        \%setting;
    } @_;
}

1;
