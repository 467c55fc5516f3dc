package Qpsmtpd::DB::Redis;

# Qpsmtpd::DB in Redis: one hash, called by the plugin's name, in the server of `redis_server` (127.0.0.1:6379 unless said; an address
# with a port, or the path of a socket). It needs the module Redis. cnx_timeout is how many seconds to wait for a connection.

use strict;
use warnings;

use parent -norequire, 'Qpsmtpd::DB';
use Qpsmtpd::DB;

sub new {
    my ($class, %args) = @_;
    require Redis;
    my $server = $args{redis_server} // $args{server} // $ENV{REDIS_SERVER} // '127.0.0.1:6379';
    my $redis = Redis->new(($server =~ m{\A/} ? 'sock' : 'server') => $server, cnx_timeout => $args{cnx_timeout} // 1, encoding => undef, reconnect => 1);
    return bless {redis => $redis, name => $args{name} // 'qpsmtpd'}, $class;
}

sub redis { $_[0]{redis} }

# One command is as good as another's lock.
sub lock   { 1 }
sub unlock { 1 }

sub get      { $_[0]{redis}->hget($_[0]{name}, $_[1]) }
sub mget     { my ($self, @keys) = @_; return @keys ? $self->{redis}->hmget($self->{name}, @keys) : () }
sub set      { my ($self, $key, $value) = @_; $self->{redis}->hset($self->{name}, $key, $value); return $value }
sub get_keys { $_[0]{redis}->hkeys($_[0]{name}) }
sub size     { $_[0]{redis}->hlen($_[0]{name}) }
sub flush    { $_[0]{redis}->del($_[0]{name}) }

sub delete {
    my ($self, @keys) = @_;
    return @keys ? $self->{redis}->hdel($self->{name}, @keys) : 0;
}

1;
