package Qpsmtpd::Base;

# Helpers that every plugin inherits: addresses of hosts, and DNS. The resolve_* methods ask the core's resolver; a
# plugin that wants Net::DNS objects gets them from get_resolver, if Net::DNS is installed.

use strict;
use warnings;

use Socket qw(inet_pton AF_INET AF_INET6);
use Gatepost::Core;

sub new { return bless {}, shift }

sub is_localhost {
    my ($self, $ip) = @_;
    return defined $ip && $ip =~ /\A(?:127\.|::ffff:127\.|::1\z)/i ? 1 : undef;
}

sub is_valid_ip {
    my ($self, $ip) = @_;
    return unless defined $ip;
    return 1 if $self->is_ipv6($ip);
    return defined inet_pton(AF_INET, $ip) && $ip ne '0.0.0.0' && $ip ne '255.255.255.255' ? 1 : undef;
}

sub is_ipv6 {
    my ($self, $ip) = @_;
    return defined $ip && defined inet_pton(AF_INET6, $ip) ? 1 : undef;
}

# An empty list where there is nothing, and where nothing is known now.
sub _resolve {
    my ($name, $type) = @_;
    my @records = eval { Gatepost::Core::dns($name, $type) };
    return @records if !$@ || ref $@ && $@->isa('Gatepost::Core::Error') && $@->code eq 'temporary';
    die $@;
}

# Mail of the plugin's own, by way of the core's outbox; see Gatepost::Core.
sub submit { my ($self, %mail) = @_; return Gatepost::Core::submit(%mail) }
sub bounce { my ($self, %mail) = @_; return Gatepost::Core::bounce(%mail) }

sub resolve_a    { _resolve($_[1], 'A') }
sub resolve_aaaa { _resolve($_[1], 'AAAA') }
sub resolve_ptr  { map { s/\.\z//r } _resolve($_[1], 'PTR') }
sub resolve_ns   { map { s/\.\z//r } _resolve($_[1], 'NS') }
sub resolve_mx   { map { s/\A[0-9]+ //r =~ s/\.\z//r } _resolve($_[1], 'MX') }

sub get_resolver {
    my ($self, %args) = @_;
    return $self->{_resolver} //= do {
        require Net::DNS;
        my $timeout = $args{timeout} || 5;
        my $resolver = Net::DNS::Resolver->new(dnsrch => 0);
        $resolver->tcp_timeout($timeout);
        $resolver->udp_timeout($timeout);
        $resolver;
    };
}

# The name that it had before release 1.
sub init_resolver { goto &get_resolver }

sub get_async_resolver {
    my ($self, %args) = @_;
    return $self->{_async_resolver} //= do {
        require Net::DNS::Async;
        Net::DNS::Async->new(%args);
    };
}

sub tildeexp {
    my ($self, $path) = @_;
    $path =~ s{\A~([^/]*)}{
        my $home = $1 eq '' ? $ENV{HOME} // (getpwuid $>)[7] : (getpwnam $1)[7];
        defined $home ? $home : "~$1"
    }e;
    return $path;
}

1;
