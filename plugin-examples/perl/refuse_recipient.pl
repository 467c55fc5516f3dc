# Refuses recipients that do not exist.

sub declare_settings {
    return (
        addresses => {type => 'list', required => 1, help => 'recipients to refuse'},
        message   => {type => 'text', default => 'no such user here', help => 'what the client is told'},
    );
}

sub hook_rcpt {
    my ($self, $transaction, $recipient) = @_;
    my %refused = map { lc $_ => 1 } @{$self->settings->{addresses}};
    if (!$refused{lc $recipient->address}) {
        $self->log(LOGINFO, 'skip, not listed');
        return DECLINED;
    }
    return $self->get_reject($self->settings->{message}, $self->settings->{message});
}
