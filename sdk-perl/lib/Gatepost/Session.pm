package Gatepost::Session;

# What this process keeps of one client: the daemon object with its connection and transaction, which plugins share
# and may keep things in. Dropped at `disconnect`.

use strict;
use warnings;

use Qpsmtpd::SMTP;

sub new {
    my $class = shift;
    return bless {qp => Qpsmtpd::SMTP->new}, $class;
}

sub qp { $_[0]{qp} }

# Takes over what a hook or event carries. $all_notes: it has all the notes there are, so that one that is missing was
# removed.
sub update {
    my ($self, $message, $all_notes) = @_;
    my $qp = $self->{qp};
    my $connection = $qp->connection;
    $connection->update($message->{connection}) if $message->{connection};

    my $transaction = $self->_transaction($message);
    $transaction->update($message->{transaction_fields}) if $message->{transaction_fields};

    if ($all_notes || $message->{notes}) {
        my $notes = $message->{notes} // {};
        $connection->merge_notes($notes->{connection} // {}, $all_notes);
        $transaction->merge_notes($notes->{transaction} // {}, $all_notes);
    }
    return $transaction;
}

# A new number is a new transaction. MAIL begins one whether or not the core counts it yet; the number that the next
# hook brings then belongs to it, and so do the notes that plugins set in their mail hook.
sub _transaction {
    my ($self, $message) = @_;
    my $qp = $self->{qp};
    my ($now, $was) = ($message->{transaction}, $self->{number});
    my $fresh = defined $now ? defined $was ? $now != $was : !$self->{begun} : defined $was;
    $fresh = 1 if $message->{hook} eq 'mail' && !(defined $now && defined $was && $now == $was);
    if ($fresh) {
        $qp->reset_transaction;
        $self->{begun} = 0;
    }
    $self->{begun} = 1 if $message->{hook} eq 'mail';
    $self->{number} = $now;
    return $qp->transaction;
}

sub end_transaction {
    my $self = shift;
    $self->{qp}->reset_transaction;
    @$self{qw(number begun)} = (undef, 0);
    return;
}

1;
