# Judges each recipient by the beginning of its name: `hard` and `soft` after DATA, `late-hard` and `late-soft` where the message is to be kept.

sub judge {
    my ($self, $transaction, $prefix) = @_;
    for my $recipient ($transaction->recipients) {
        $self->recipient_verdict($recipient, DENY, 'not wanted') if $recipient->user =~ /^${prefix}hard/;
        $self->recipient_verdict($recipient, DENYSOFT, 'not now') if $recipient->user =~ /^${prefix}soft/;
    }
    return DECLINED;
}

sub hook_data_post { return judge(@_, '') }

sub hook_queue { return judge(@_, 'late-') }
