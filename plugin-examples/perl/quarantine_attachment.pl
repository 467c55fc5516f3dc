# Sets messages apart that carry an attachment with a forbidden name.

sub declare_settings {
    return (names => {type => 'list', default => [qw(*.exe *.js *.scr *.vbs)], help => 'forbidden names, * and ? allowed'});
}

sub register {
    my $self = shift;
    my @globs = map { quotemeta =~ s/\\\*/.*/gr =~ s/\\\?/./gr } @{$self->settings->{names}};
    $self->{forbidden} = @globs ? qr/\A(?:@{[join '|', @globs]})\z/is : qr/(?!)/;
}

sub hook_data_post {
    my ($self, $transaction) = @_;
    my ($found) = $self->forbidden_names($transaction->header->as_string);
    my $part;    # the header of a part, while we are in one
    $transaction->body_resetpos;
    while (!defined $found && defined(my $line = $transaction->body_getline)) {
        if    ($line =~ /^--/) { $part = '' }
        elsif (defined $part && $line eq "\n") { ($found) = $self->forbidden_names($part); undef $part }
        elsif (defined $part) { $part .= $line }
    }
    $self->log(LOGINFO, defined $found ? "fail, attachment $found quarantined" : 'pass, no forbidden attachment');
    $transaction->quarantine("attachment $found") if defined $found;
    return DECLINED;
}

# From the parameters of a header block, be they quoted, bare, or percent-encoded (RFC 2231).
sub forbidden_names {
    my ($self, $block) = @_;
    my @names;
    for my $field ($block =~ s/\n[ \t]+/ /gr =~ /^(?:Content-Disposition|Content-Type):(.*)/gim) {
        while ($field =~ /;\s*(?:file)?name(\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))/gi) {
            my ($encoded, $quoted, $name) = ($1, $2, $2 // $3);
            $name =~ s/\\(.)/$1/g if defined $quoted;
            $name = $name =~ s/^[^']*'[^']*'//r =~ s/%([0-9a-f]{2})/chr hex $1/gier if $encoded;
            push @names, $name;
        }
    }
    return grep { $_ =~ $self->{forbidden} } @names;
}
