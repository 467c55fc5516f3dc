package Qpsmtpd::SMTP;

# The daemon as plugins see it, one for each session: $self->qp. While plugins are loaded there is one without a
# client, whose transaction is empty; notes that plugins give its connection are those that every connection begins with.

use strict;
use warnings;

use Qpsmtpd;
use parent -norequire, 'Qpsmtpd';
use Qpsmtpd::Connection;
use Qpsmtpd::Constants;
use Qpsmtpd::Transaction;

sub new {
    my ($class, %args) = @_;
    return bless {args => \%args, _connection => Qpsmtpd::Connection->new}, $class;
}

sub connection {
    $_[0]{_connection} = $_[1] if @_ > 1;
    return $_[0]{_connection};
}

sub transaction {
    $_[0]{_transaction} = $_[1] if @_ > 1;
    return $_[0]{_transaction} //= Qpsmtpd::Transaction->new;
}

# A plugin's own call of it tells the other plugins of a chain in memory; on the wire that is the core's business.
sub reset_transaction {
    my $self = shift;
    $self->run_hooks('reset_transaction') unless $Gatepost::Core::backend || !$self->{_transaction};
    return $self->{_transaction} = Qpsmtpd::Transaction->new;
}

# The reply of a hook that returns DONE. What is given here reaches the client when the hook is over; in memory it is kept in
# {_response}, as [code, lines].
sub respond {
    my ($self, $code, @lines) = @_;
    @lines = map { split /\r?\n/ } @lines;
    $self->{_response} = [$code, @lines];
    return 1;
}

sub take_response {
    my ($code, @lines) = @{delete $_[0]{_response} // return};
    return {code => $code, reply => \@lines};
}

# The client's; the core's word for it wins over what a plugin or a test says.
sub auth_user { my $self = shift; $self->{_auth_user} = shift if @_; return $self->connection->authenticated // $self->{_auth_user} }
sub auth_mechanism { my $self = shift; $self->{_auth_mechanism} = shift if @_; return $self->{_auth_mechanism} }
sub authenticated  { my $self = shift; $self->{_auth} = shift if @_; return $self->{_auth} // (defined $self->auth_user ? OK : undef) }

1;
