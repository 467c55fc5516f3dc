# NAME: refuses recipients by a list. Change it into what you need.

sub declare_settings {
    return (addresses => {type => 'list', default => [], help => 'recipients to refuse'});
}

sub hook_rcpt {
    my ($self, $transaction, $recipient) = @_;
    my %refused = map { lc $_ => 1 } @{$self->settings->{addresses}};
    if ($refused{lc $recipient->address}) {
        $self->log(LOGINFO, 'fail, no such user here');
        return DENY, 'no such user here';
    }
    $self->log(LOGINFO, 'skip, not listed');
    return DECLINED;
}
