package Qpsmtpd::SMTP;

# The daemon as plugins see it, one for each session: $self->qp. While plugins are loaded there is one without a
# client, whose connection and transaction are empty.

use strict;
use warnings;

use parent -norequire, 'Qpsmtpd::Base';
use Qpsmtpd::Base;
use Qpsmtpd::Connection;
use Qpsmtpd::Constants;
use Qpsmtpd::Transaction;
use Gatepost::Core;
use Gatepost::Log;

# hook name -> list of {name, code} in the order of the chain; code takes ($transaction, @arguments).
our %hooks;

sub new {
    my $class = shift;
    return bless {_connection => Qpsmtpd::Connection->new}, $class;
}

sub connection {
    $_[0]{_connection} = $_[1] if @_ > 1;
    return $_[0]{_connection};
}

sub transaction {
    $_[0]{_transaction} = $_[1] if @_ > 1;
    return $_[0]{_transaction} //= Qpsmtpd::Transaction->new;
}

sub reset_transaction {
    my $self = shift;
    return $self->{_transaction} = Qpsmtpd::Transaction->new;
}

# List: the lines of the flat file; scalar: its first. With 'map' a reference to a hash of its lines. A second
# argument of any other kind asks for one recipient's own files (qpsmtpd's user_config), of which there are none yet: everybody's are given.
sub config {
    my ($self, $name, $kind) = @_;
    my @values = Gatepost::Core::config($name);
    @values = ($Gatepost::Core::about{hostname}) if !@values && $name eq 'me';
    if (defined $kind && !ref $kind && $kind eq 'map') {
        return {map { my ($key, $value) = split /[:\s]\s*/, $_, 2; ($key => $value // '') } @values};
    }
    return wantarray ? @values : $values[0];
}

# The reply of a hook that returns DONE. What is given here reaches the client when the hook is over.
sub respond {
    my ($self, $code, @lines) = @_;
    $self->{_response} = {code => $code, reply => [map { split /\r?\n/ } @lines]};
    return 1;
}

sub take_response { delete $_[0]{_response} }

sub hooks {
    my ($self, $hook) = @_;
    return \%hooks unless defined $hook;
    return @{$hooks{$hook} // []};
}

sub log {
    my ($self, $level, @message) = @_;
    Gatepost::Log::line(undef, $level, join ' ', grep { defined } @message);
    return;
}

sub address {
    my ($self, $text) = @_;
    require Qpsmtpd::Address;
    return Qpsmtpd::Address->new($text);
}

sub auth_user      { $_[0]->connection->authenticated }
sub authenticated  { defined $_[0]->auth_user ? OK : undef }
sub auth_mechanism { undef }
sub version        { require Gatepost; $Gatepost::VERSION }

# A folder for files of this process, with a slash at its end. Gone with the process where the core gave one.
sub spool_dir {
    my $self = shift;
    require File::Temp;
    my $dir = $Gatepost::Core::about{scratch_dir}
        // ($self->{_own_scratch} //= File::Temp->newdir('gatepost-XXXXXXXX', TMPDIR => 1));
    return "$dir/";
}

my $serial = 0;

sub temp_file {
    my $self = shift;
    my $name = sprintf '%s%d:%d:%d', $self->spool_dir, time, $$, $serial++;
    $self->transaction->remove_later($name);
    return $name;
}

sub temp_dir {
    my $self = shift;
    my $name = $self->temp_file;
    mkdir $name, 0700 or die "$name: $!\n";
    return $name;
}

1;
