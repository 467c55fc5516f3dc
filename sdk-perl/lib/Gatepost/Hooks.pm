package Gatepost::Hooks;

# The one table that relates qpsmtpd's hooks to the protocol's: what a hook subscribes, and how its arguments become
# those a qpsmtpd plugin expects. Some hooks of qpsmtpd are served by another one of the protocol's (Gatepost::Turns), some by this
# process alone, and some by nobody: a plugin may register those (so that it loads), they are never called, and a warning says so.
#
# served_by($hook) -> the protocol's hook it is part of, mostly itself
# arguments($hook) -> code that gives the arguments after ($self, $transaction), from (\%args, $qp)

use strict;
use warnings;

use Qpsmtpd::Address;
use Qpsmtpd::Constants;

our @CONNECTION_FIELDS = qw(
    remote_ip local_ip remote_port local_port remote_host direction hello hello_host early_talker relay_client
    immune whitelisted naughty karma score authenticated tls_version tls_cipher tls_server_name tls_client_name auth_results
);

my @envelope = qw(sender recipients recipient_parameters);

# Not `path`: it would make the core write every small message to disk. Bodies are read by calls, and only by the
# plugins that look at them.
my @message = (@envelope, qw(size header header_end body_start));

my @queue = (@message, 'route');

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

# As Qpsmtpd::Auth has them. A digest of CRAM-MD5 comes with the challenge it answers.
my $credentials = sub {
    my $args = shift;
    return (lc $args->{mechanism}, @$args{qw(user password response challenge)});
};

# hook => [transaction fields, arguments, is an event]
our %HOOK = (
    connect              => [[],         $none],
    helo                 => [[],         sub { $_[0]{host} }],
    ehlo                 => [[],         sub { $_[0]{host} }],
    (map { $_ => [[], sub { $_[0]{line} }] } qw(helo_parse ehlo_parse mail_parse)),
    mail_pre             => [[],         sub { $_[0]{line} }],
    mail                 => [[],         $address],
    rcpt_parse           => [\@envelope, sub { $_[0]{line} }],
    rcpt_pre             => [\@envelope, sub { $_[0]{line} }],
    rcpt                 => [\@envelope, $address],
    data                 => [\@envelope, $none],
    data_headers_end     => [\@message,  $none],
    data_lines           => [\@message,  sub { @{$_[0]}{qw(lines offset)} }],
    data_post_headers    => [\@message,  $none],
    data_post            => [\@message,  $none],
    queue_pre            => [\@message,  $none],
    queue                => [\@queue,    $none],
    queue_post           => [\@queue,    $none, 1],
    rset                 => [[],         $none],
    noop                 => [[],         $none],
    quit                 => [[],         $none],
    vrfy                 => [[],         $argument],
    help                 => [[],         sub { split ' ', $_[0]{argument} // '' }],
    unrecognized_command => [[],         sub { (lc $_[0]{command}, length($_[0]{argument} // '') ? $_[0]{argument} : ()) }],
    reset_transaction    => [[],         $none,   1],
    disconnect           => [[],         $none,   1],
    auth                 => [[],         $credentials],
    deny                 => [[],         $judged, 1],
    ok                   => [[],         $judged, 1],
    received_line        => [\@envelope, sub { _protocol($_[1]->connection) }],
    config               => [[],         sub { $_[0]{name} }],
    recipient_valid      => [[],         $address],
    user_config          => [[],         $address],
);

# As qpsmtpd has it: the protocol (RFC 3848), how the client authenticated, how the connection is encrypted.
my %protocol = (ehlo => 'ESMTP', lhlo => 'LMTP');

sub _protocol {
    my $connection = shift;
    my $extended = $protocol{$connection->hello // ''} or return ('SMTP', '', '');
    my $cipher = $connection->tls_cipher // return ($extended, '', '');
    return ("${extended}S", '', "($cipher encrypted) ");
}

my %served_by = (
    'pre-connection' => 'connect', 'post-connection' => 'disconnect', map { $_ => 'auth' } qw(auth-plain auth-login auth-cram-md5),
);

# Told by Gatepost::Log what this process logs.
my %in_process = (logging => 1);

# qpsmtpd's order, and what is ours, in which the hook_* methods of a plugin are found.
our @ORDER = (qw(
    logging config user_config post-fork pre-connection connect ehlo_parse ehlo helo_parse helo auth_parse
    auth-plain auth-login auth-cram-md5 auth rcpt_parse rcpt_pre rcpt mail_parse mail mail_pre data data_headers_end
    data_post_headers data_post queue_pre queue queue_post vrfy noop quit reset_transaction disconnect
    post-connection unrecognized_command deny ok received_line help
), 'rset', 'recipient_valid', 'data_lines');

my %known = map { $_ => 1 } @ORDER;

sub is_known  { $known{$_[0]} }
sub is_served { $HOOK{$_[0]} }
sub served_by { $served_by{$_[0]} // $_[0] }
sub is_in_process { $in_process{$_[0]} }
sub is_event  { my $hook = $HOOK{$_[0]}; $hook && $hook->[2] }

sub all_fields { (@CONNECTION_FIELDS, @queue) }

# What a plugin that needs the fields in %$needed asks for with a hook. The arguments of received_line need two.
sub fields {
    my ($hook, $needed) = @_;
    my %always = $hook eq 'received_line' ? (hello => 1, tls_cipher => 1) : ();
    return [grep { $needed->{$_} || $always{$_} } @CONNECTION_FIELDS, @{$HOOK{$hook}[0]}];
}

sub arguments {
    my $known = $HOOK{$_[0]};
    return $known ? $known->[1] : $none;
}

1;
