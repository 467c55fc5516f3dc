# Judges each recipient by the beginning of its name: `hard` and `soft` after DATA, `late-hard` and `late-soft` where the message is to be kept.
# `discard`, `quarantine` and `hold` divert the message for that recipient, and behind `all-` for everybody.

sub judge {
    my ($self, $transaction, $prefix) = @_;
    for my $recipient ($transaction->recipients) {
        if ($recipient->user =~ /^${prefix}(all-)?(discard|quarantine|hold)/) {
            my ($all, $divert) = ($1, $2);
            return $self->$divert('looks bad') if $all;
            $self->recipient_verdict($recipient, $self->$divert('looks bad'));
        }
        $self->recipient_verdict($recipient, DENY, 'not wanted') if $recipient->user =~ /^${prefix}hard/;
        $self->recipient_verdict($recipient, DENYSOFT, 'not now') if $recipient->user =~ /^${prefix}soft/;
    }
    return DECLINED;
}

sub hook_data_post { return judge(@_, '') }

sub hook_queue { return judge(@_, 'late-') }
