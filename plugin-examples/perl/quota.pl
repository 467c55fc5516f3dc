# Refuses a message for those recipients whose mailbox has no room for it.

sub declare_settings {
    return (limit => {type => 'size', default => '100MB', help => 'what a mailbox may hold; users may have limits of their own'});
}

sub hook_data_post {
    my ($self, $transaction) = @_;
    # Lines of address and bytes, as whoever looks after the mailboxes writes them.
    my %used = map { lc($_) =~ /^(.*\S)\s+(\d+)$/ } $self->qp->config('mailbox_sizes');
    my $room = $self->settings->{limit} - $transaction->data_size;
    my @recipients = $transaction->recipients;
    my @full = grep { ($used{lc $_->to_wire} // 0) > $room } @recipients;
    $self->recipient_verdict($_, DENY, 'mailbox full') for @full;
    $self->log(LOGINFO, sprintf 'pass, room in %d of %d mailboxes', @recipients - @full, scalar @recipients);
    return DECLINED;
}
