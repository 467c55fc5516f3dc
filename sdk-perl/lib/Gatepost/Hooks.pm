package Gatepost::Hooks;

# The one table that relates qpsmtpd's hooks to the protocol's: what a hook subscribes, and how its arguments become
# those a qpsmtpd plugin expects. Hooks that qpsmtpd knows and the protocol does not are in @UNSERVED: a plugin may
# register them (so that it loads), they are never called, and a warning says so.
#
# arguments($hook) -> code that gives the arguments after ($self, $transaction), from (\%args, $qp)

use strict;
use warnings;

use Qpsmtpd::Address;
use Qpsmtpd::Constants;

our @CONNECTION_FIELDS = qw(
    remote_ip local_ip remote_port local_port remote_host direction hello hello_host relay_client immune naughty
    karma authenticated auth_results
);

my @envelope = qw(sender recipients);

# Not `path`: it would make the core write every small message to disk. Bodies are read by calls, and only by the
# plugins that look at them.
my @message = (@envelope, qw(size header header_end body_start));

my $none    = sub { () };
my $address = sub {
    my $args = shift;
    my $address = Qpsmtpd::Address->from_wire($args->{address});
    my $parameters = $args->{parameters};
    return $address if !$parameters || !%$parameters;
    return ($address, map { lc $_ => $parameters->{$_} } sort keys %$parameters);
};
my $argument = sub { $_[0]{argument} // '' };
my $judged = sub {
    my $args = shift;
    return ($args->{plugin}, Qpsmtpd::Constants::verdict_code($args->{verdict}), $args->{message});
};

# hook => [transaction fields, arguments, is an event]
our %HOOK = (
    connect              => [[],         $none],
    helo                 => [[],         sub { $_[0]{host} }],
    ehlo                 => [[],         sub { $_[0]{host} }],
    mail                 => [[],         $address],
    rcpt                 => [\@envelope, $address],
    data                 => [\@envelope, $none],
    data_headers_end     => [\@message,  $none],
    data_post_headers    => [\@message,  $none],
    data_post            => [\@message,  $none],
    queue_pre            => [\@message,  $none],
    queue                => [\@message,  $none],
    queue_post           => [\@message,  $none, 1],
    rset                 => [[],         $none],
    noop                 => [[],         $none],
    quit                 => [[],         $none],
    vrfy                 => [[],         $argument],
    help                 => [[],         sub { split ' ', $_[0]{argument} // '' }],
    unrecognized_command => [[],         sub { (lc $_[0]{command}, $_[0]{argument} // '') }],
    reset_transaction    => [[],         $none,   1],
    disconnect           => [[],         $none,   1],
    deny                 => [[],         $judged, 1],
    ok                   => [[],         $judged, 1],
    received_line        => [\@envelope, sub { (($_[1]->connection->hello // '') eq 'ehlo' ? 'ESMTP' : 'SMTP', '', '') }],
    config               => [[],         sub { $_[0]{name} }],
);

our @UNSERVED = qw(
    logging user_config post-fork pre-connection ehlo_parse helo_parse auth_parse auth auth-plain auth-login
    auth-cram-md5 rcpt_parse rcpt_pre mail_parse mail_pre post-connection
);

# qpsmtpd's order, in which the hook_* methods of a plugin are found.
our @ORDER = (qw(
    logging config user_config post-fork pre-connection connect ehlo_parse ehlo helo_parse helo auth_parse auth
    auth-plain auth-login auth-cram-md5 rcpt_parse rcpt_pre rcpt mail_parse mail mail_pre data data_headers_end
    data_post_headers data_post queue_pre queue queue_post vrfy noop quit reset_transaction disconnect
    post-connection unrecognized_command deny ok received_line help
), 'rset');

my %known = map { $_ => 1 } @ORDER;

sub is_known  { $known{$_[0]} }
sub is_served { $HOOK{$_[0]} }
sub is_event  { my $hook = $HOOK{$_[0]}; $hook && $hook->[2] }

sub all_fields { (@CONNECTION_FIELDS, @message) }

# What a plugin that needs the fields in %$needed asks for with a hook. The arguments of received_line need `hello`.
sub fields {
    my ($hook, $needed) = @_;
    return [
        grep { $needed->{$_} || $hook eq 'received_line' && $_ eq 'hello' } @CONNECTION_FIELDS, @{$HOOK{$hook}[0]}
    ];
}

sub arguments {
    my $known = $HOOK{$_[0]};
    return $known ? $known->[1] : $none;
}

1;
