package Gatepost::Session;

# What this process keeps of one client: the daemon object with its connection and transaction, which plugins share
# and may keep things in, and its own plugin objects (Gatepost::Copies). Dropped at `disconnect`.
#
# new($loading)   $loading is the daemon object with which plugins were loaded

use strict;
use warnings;

use Qpsmtpd::SMTP;

sub new {
    my ($class, $loading) = @_;
    my $qp = Qpsmtpd::SMTP->new;
    if ($loading) { my $notes = $loading->connection->{_notes}; @{$qp->connection->{_notes}}{keys %$notes} = values %$notes }
    return bless {qp => $qp, number => 0, copies => {}}, $class;
}

sub qp     { $_[0]{qp} }
sub copies { $_[0]{copies} }

# The other instances that were asked about it: plugin => {their key => 1}.
sub asked { $_[0]{asked} //= {} }

# Takes over what a hook or event carries; gives the daemon object and the transaction. $all_notes: it has all the notes
# there are, so that one that is missing was removed.
sub update {
    my ($self, $message, $all_notes) = @_;
    my $qp = $self->{qp};
    my $number = $message->{transaction} // 0;
    $self->_count($number, $message->{hook}) if $number != $self->{number} || !$number && $message->{hook} eq 'mail';

    $qp->connection->update($message->{connection}) if $message->{connection};
    # Straight to the slot, since every hook comes through here.
    my $transaction = $qp->{_transaction} // $qp->transaction;
    # The recipients at hand change from one hook to the next, and the way they go with them.
    delete $transaction->{_fields}{route};
    $transaction->update($message->{transaction_fields}) if $message->{transaction_fields};
    if ($all_notes || $message->{notes}) {
        my $notes = $message->{notes} // {};
        $qp->connection->merge_notes($notes->{connection} // {}, $all_notes);
        $transaction->merge_notes($notes->{transaction} // {}, $all_notes);
    }
    return ($qp, $transaction);
}

# A new number is a new transaction. MAIL begins one whether or not the core counts it yet; the number that the next
# hook brings then belongs to it, and so do the notes that plugins set in their mail hook. 0 is none.
sub _count {
    my ($self, $number, $hook) = @_;
    my $mail = $hook eq 'mail';
    $self->{qp}->reset_transaction if $mail || $self->{number} || !$self->{begun};
    $self->{begun} = $mail;
    $self->{number} = $number;
    return;
}

sub end_transaction {
    my $self = shift;
    $self->{qp}->reset_transaction;
    @$self{qw(number begun)} = (0, 0);
    return;
}

1;
