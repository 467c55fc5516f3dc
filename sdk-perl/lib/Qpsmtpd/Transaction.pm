package Qpsmtpd::Transaction;

# A mail transaction: $self->transaction, and the second argument of every hook. Envelope and header come from the
# core with each hook; the body is fetched when somebody reads it (Qpsmtpd::Body). A transaction made by new() alone
# lives in memory: body_write fills it.

use strict;
use warnings;

use Qpsmtpd;
use parent -norequire, 'Qpsmtpd::Notes', 'Qpsmtpd::Body', 'Qpsmtpd';
use Qpsmtpd::Notes;
use Qpsmtpd::Body;
use Qpsmtpd::Address;
use Qpsmtpd::Header;
use Gatepost::Changes;

sub new {
    my ($class, %fields) = @_;
    return bless {_fields => \%fields, _notes => {}, _started => time}, $class;
}

sub note_scope { 'transaction' }

sub start_time { $_[0]{_started} }

# Fields as the core sent them. A hook that did not ask for one leaves the last known value; a flag may have been cleared.
sub update {
    my ($self, $fields) = @_;
    my $known = $self->{_fields};
    delete @$known{qw(immune whitelisted)};
    @$known{keys %$fields} = values %$fields;
    if (defined $fields->{header} && (!defined $self->{_loaded} || $self->{_loaded} ne $fields->{header})) {
        $self->{_loaded} = $fields->{header};
        ($self->{_header} //= Qpsmtpd::Header->new)->load($fields->{header});
    }
    return;
}

sub sender {
    my ($self, $sender) = @_;
    if (@_ > 1) {
        $sender = Qpsmtpd::Address->of($sender);
        $self->{_sender} = $sender;
        $self->{_fields}{sender} = $sender->to_wire;
        Gatepost::Changes::record(op => 'set_sender', address => $self->{_fields}{sender});
        return $sender;
    }
    my $text = $self->{_fields}{sender};
    return unless defined $text;
    my $known = $self->{_sender};
    return $known if $known && $known->to_wire eq $text;
    return $self->{_sender} = Qpsmtpd::Address->from_wire($text);
}

# In scalar context the number of recipients, as ever.
sub recipients {
    my $self = shift;
    if (@_) {
        my @new = map { Qpsmtpd::Address->of($_) } @_;
        my %kept = map { $_->to_wire => 1 } @new;
        $self->remove_recipient($_) for grep { !$kept{$_->to_wire} } $self->_recipients;
        my %had = map { $_->to_wire => 1 } $self->_recipients;
        $self->add_recipient($_) for grep { !$had{$_->to_wire} } @new;
    }
    my @all = $self->_recipients;
    return @all;
}

# An address keeps its object, and with it its notes, for as long as it is a recipient.
sub _recipients {
    my $self = shift;
    my $texts = $self->{_fields}{recipients} // [];
    my $known = $self->{_recipients} //= {};
    return map { $known->{$_} //= Qpsmtpd::Address->from_wire($_) } @$texts;
}

sub add_recipient {
    my ($self, $address) = @_;
    return unless $address;
    $address = Qpsmtpd::Address->of($address);
    my $text = $address->to_wire;
    push @{$self->{_fields}{recipients} //= []}, $text;
    push @{$self->{_fields}{recipient_parameters} //= []}, {};
    $self->{_recipients}{$text} = $address;
    Gatepost::Changes::record(op => 'add_recipient', address => $text);
    return;
}

sub remove_recipient {
    my ($self, $address) = @_;
    return unless $address;
    my $text = Qpsmtpd::Address->of($address)->to_wire;
    my $fields = $self->{_fields};
    my @all = @{$fields->{recipients} // []};
    my @kept = grep { $all[$_] ne $text } 0 .. $#all;
    $fields->{$_} = [@{$fields->{$_} // []}[@kept]] for qw(recipients recipient_parameters);
    Gatepost::Changes::record(op => 'remove_recipient', address => $text);
    return;
}

sub set_recipients { my $self = shift; $self->recipients(@_); return }

# RCPT's parameters for a recipient: keywords in lower case, as the hook rcpt has them. Not qpsmtpd's, which forgets them.
sub recipient_parameters {
    my ($self, $address) = @_;
    my $text = Qpsmtpd::Address->of($address)->to_wire;
    my $fields = $self->{_fields};
    my @texts = @{$fields->{recipients} // []};
    my ($at) = grep { $texts[$_] eq $text } 0 .. $#texts;
    my $parameters = defined $at ? $fields->{recipient_parameters}[$at] // {} : {};
    return map { lc $_ => $parameters->{$_} } keys %$parameters;
}

# undef before the end of the header block.
sub header {
    my $self = shift;
    $self->{_header} = shift if @_;
    return $self->{_header};
}

sub immune { $_[0]{_fields}{immune} }

# The note whitelistsender is the core's flag `whitelisted`, for this transaction: plugins in all languages see it.
sub notes {
    my ($self, $key) = @_;
    return $self->SUPER::notes(@_[1 .. $#_]) if $key ne 'whitelistsender';
    return $self->{_fields}{whitelisted} if @_ == 2;
    my $text = !$_[2] ? undef : $_[2] eq '1' ? 'whitelisted sender' : $_[2];
    Gatepost::Changes::record(op => 'whitelisted', reason => $text, scope => 'transaction');
    $self->{_fields}{whitelisted} = $text;
    return $_[2];
}

# Sets the message apart, with a reason; undef takes that back. Not qpsmtpd's: its plugins have nothing like it.
sub quarantine {
    my $self = shift;
    if (@_) {
        $self->{_fields}{quarantine} = shift;
        Gatepost::Changes::record(op => 'quarantine', reason => $self->{_fields}{quarantine});
    }
    return $self->{_fields}{quarantine};
}

# In the hooks queue and queue_post the way that all recipients at hand are to go, undef where no plugin gave them one. With a name
# it gives one to a recipient, or without that to all there are; undef takes it back. Not qpsmtpd's.
sub route {
    my ($self, @route) = @_;
    return $self->{_fields}{route} unless @route;
    my ($route, $recipient) = @route;
    Gatepost::Changes::record(op => 'route', route => $route, $recipient ? (address => Qpsmtpd::Address->of($recipient)->to_wire) : ());
    return $route;
}

1;
