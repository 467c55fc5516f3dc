package Gatepost::Memory;

# A core that lives in a hash: the backend of Gatepost::Core in tests of plugins.
#
# new(config => {NAME => \@lines}, dns => {"NAME TYPE" => \@records or 'temporary'}, message => $bytes,
#     recipients => {ADDRESS => 'valid', 'invalid' or 'temporary'}, client_gone => whether the client hung up,
#     client_spoke => whether it speaks before its turn)

use strict;
use warnings;

use Gatepost::Core;

sub new {
    my ($class, %args) = @_;
    return bless {config => {}, dns => {}, state => {}, message => '', log => [], %args}, $class;
}

sub log {
    my ($self, $level, $plugin, $message) = @_;
    push @{$self->{log}}, {level => $level, plugin => $plugin, message => $message};
    return;
}

sub client_gone { $_[0]{client_gone} }

sub take_log { my $self = shift; return splice @{$self->{log}} }

my %method = (
    dns => sub {
        my ($self, $params) = @_;
        (my $name = lc $params->{name}) =~ s/\.\z//;
        my $records = $self->{dns}{"$name $params->{type}"} // return {status => 'no_such_name', records => []};
        die Gatepost::Core::Error->new('temporary', "dns: $name: try again later") unless ref $records;
        return {status => @$records ? 'found' : 'no_records', records => $records};
    },
    'config'       => sub { {values => $_[0]{config}{$_[1]{name}} // []} },
    'recipient/valid' => sub {
        my ($self, $params) = @_;
        my $validity = $self->{recipients}{$params->{address}} // 'unknown';
        die Gatepost::Core::Error->new('temporary', 'a plugin cannot tell now') if $validity eq 'temporary';
        return {validity => $validity};
    },
    'state/get'    => sub { {value => $_[0]{state}{$_[1]{key}}} },
    'state/set'    => sub { $_[0]{state}{$_[1]{key}} = $_[1]{value}; {} },
    'state/add'    => sub { {value => $_[0]{state}{$_[1]{key}} += $_[1]{add}} },
    'state/delete' => sub { delete $_[0]{state}{$_[1]{key}}; {} },
    'message/read' => sub {
        my ($self, $params) = @_;
        return {data => ''} if $params->{offset} >= length $self->{message};
        return {data => substr $self->{message}, $params->{offset}, $params->{length}};
    },
    'client/spoke' => sub { {spoke => $_[0]{client_spoke} ? 1 : 0} },
    'message/submit' => sub {
        my ($self, $params) = @_;
        push @{$self->{submitted}}, $params;
        return {id => sprintf '%016x', scalar @{$self->{submitted}}};
    },
    'message/bounce' => sub {
        my ($self, $params) = @_;
        push @{$self->{bounced}}, $params;
        return $params->{sender} eq '' ? {} : {id => sprintf '%016x', scalar @{$self->{bounced}}};
    },
    more_time => sub { {} },
);

sub call {
    my ($self, $name, $params) = @_;
    my $method = $method{$name} or die Gatepost::Core::Error->new('unknown_method', "there is no method $name");
    return $self->$method($params);
}

1;
