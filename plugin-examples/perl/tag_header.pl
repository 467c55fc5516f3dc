# Tags every message with a header field.

sub declare_settings {
    return (
        header => {type => 'text', default => 'X-Gatepost-Tag', help => 'name of the field'},
        value  => {type => 'text', default => 'seen',           help => 'its value'},
    );
}

sub hook_data_post {
    my ($self, $transaction) = @_;
    my ($header, $value) = @{$self->settings}{qw(header value)};
    $transaction->header->add($header, $value, 0);
    $self->log(LOGINFO, "pass, tagged with $header");
    return DECLINED;
}
