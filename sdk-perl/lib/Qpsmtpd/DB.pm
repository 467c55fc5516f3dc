package Qpsmtpd::DB;

# A plugin's own table of keys and values, $plugin->db(...): in Redis where one answers, else in a DBM file.
#
# new(name => NAME, class => CLASS, ...)   the first of @child_classes that can be used, or the one named; dies with why none can
#
# Methods of both: lock, unlock, get($key), mget(@keys), set($key, $value), delete(@keys), get_keys, size, flush, name([$new]).

use strict;
use warnings;

our @child_classes = qw(Qpsmtpd::DB::Redis Qpsmtpd::DB::File::DBM);

sub new {
    my ($class, %args) = @_;
    my @why;
    for my $child ($args{class} // @child_classes) {
        (my $file = "$child.pm") =~ s{::}{/}g;
        my $db = eval { require $file; $child->new(%args) };
        return $db if $db;
        push @why, "$child: " . ($@ =~ s/ at \S+ line [0-9]+\.?\n?\z//r);
    }
    die "no database for " . ($args{name} // 'the plugin') . ' can be used: ' . join('; ', @why) . "\n";
}

sub name {
    my $self = shift;
    $self->{name} = shift if @_;
    return $self->{name};
}

1;
