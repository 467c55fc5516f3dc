package Qpsmtpd::DSN;

# Replies with an enhanced status code (RFC 3463). Each function takes ([return code,] [text]) and gives
# (return code, "text (#class.subject.detail)"): Qpsmtpd::DSN->no_such_user(DENY, "nobody here by that name").
# The class follows the return code: 4 for a refusal for now, 5 for one for good, 2 for OK and DONE.

use strict;
use warnings;

use Qpsmtpd::Constants;

# name => [subject.detail, default text, default return code]
my %status = (
    unspecified               => ['0.0', 'Unspecified error', DENYSOFT],
    addr_unspecified          => ['1.0', 'Address error', DENYSOFT],
    no_such_user              => ['1.1', 'No such user', DENY],
    addr_bad_dest_system      => ['1.2', 'Bad destination system address', DENY],
    addr_bad_dest_mbox        => ['1.3', 'Bad destination mailbox address syntax', DENY],
    addr_ambigous             => ['1.4', 'Ambiguous recipient address', DENYSOFT],
    addr_rcpt_ok              => ['1.5', 'Recipient address is valid', OK],
    addr_mbox_moved           => ['1.6', 'Mailbox has moved', DENY],
    addr_bad_from_mbox        => ['1.7', 'Bad sender mailbox address syntax', DENY],
    addr_bad_from_system      => ['1.8', "FQDN required in the envelope sender", DENY],
    mbox_unspecified          => ['2.0', 'Mailbox error', DENYSOFT],
    mbox_disabled             => ['2.1', 'Mailbox is disabled', DENY],
    mbox_full                 => ['2.2', 'Mailbox is full', DENYSOFT],
    mbox_msg_too_long         => ['2.3', 'Message is too long for the mailbox', DENY],
    mbox_list_expansion_problem => ['2.4', 'Mailing list expansion problem', DENYSOFT],
    sys_unspecified           => ['3.0', 'Mail system error', DENYSOFT],
    sys_disk_full             => ['3.1', 'Mail system is full', DENYSOFT],
    sys_not_accepting_mail    => ['3.2', 'System does not accept network messages', DENY],
    sys_not_supported         => ['3.3', 'Not capable of what was asked', DENY],
    sys_msg_too_big           => ['3.4', 'Message is too big for the system', DENY],
    net_unspecified           => ['4.0', 'Network or routing error', DENYSOFT],
    temp_resolver_failed      => ['4.3', 'Temporary address resolution failure', DENYSOFT],
    net_routing_error         => ['4.4', 'Unable to route', DENYSOFT],
    net_system_congested      => ['4.5', 'Mail system congestion', DENYSOFT],
    too_many_hops             => ['4.6', 'Too many hops', DENY],
    proto_unspecified         => ['5.0', 'Protocol error', DENY],
    proto_invalid_command     => ['5.1', 'Invalid command', DENY],
    proto_syntax_error        => ['5.2', 'Syntax error', DENY],
    proto_rcpt_list_too_long  => ['5.3', 'Too many recipients', DENYSOFT],
    proto_invalid_cmd_args    => ['5.4', 'Invalid command arguments', DENY],
    proto_wrong_version       => ['5.5', 'Wrong protocol version', DENYSOFT],
    media_unspecified         => ['6.0', 'Media error', DENY],
    media_unsupported         => ['6.1', 'Media not supported', DENY],
    media_conv_prohibited     => ['6.2', 'Conversion required and prohibited', DENY],
    media_conv_unsupported    => ['6.3', 'Conversion required but not supported', DENY],
    media_conv_lossy          => ['6.4', 'Conversion with loss performed', DENYSOFT],
    sec_unspecified           => ['7.0', 'Security error', DENYSOFT],
    sec_sender_unauthorized   => ['7.1', 'Delivery not authorized, message refused', DENY],
    relaying_denied           => ['7.1', 'Relaying denied', DENY],
    bad_sender_ip             => ['7.1', "Bad sender's IP", DENY],
    sec_list_dest_prohibited  => ['7.2', 'Mailing list expansion prohibited', DENY],
    sec_conv_failed           => ['7.3', 'Security conversion required but not possible', DENY],
);

my %class = (
    OK, 2, DONE, 2, DENY, 5, DENY_DISCONNECT, 5, DENYSOFT, 4, DENYSOFT_DISCONNECT, 4, DECLINED, 4,
);

for my $name (keys %status) {
    my ($detail, $text_default, $rc_default) = @{$status{$name}};
    no strict 'refs';
    *$name = sub {
        shift if defined $_[0] && $_[0] eq __PACKAGE__;
        my $rc = defined $_[0] && $_[0] =~ /\A[0-9]+\z/ ? shift : undef;
        shift if @_ > 1 && !defined $_[0];
        my $text = shift;
        $rc //= $rc_default;
        $text = $text_default unless defined $text && $text ne '';
        return ($rc, sprintf '%s (#%d.%s)', $text, $class{$rc} // 4, $detail);
    };
}

1;
