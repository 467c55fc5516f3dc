package Qpsmtpd::Auth;

# validate_password($plugin, ...): what an AUTH hook does with a password once it knows the right one. Takes src_clear or src_crypt
# (what is kept), attempt_clear (PLAIN and LOGIN) or attempt_hash (CRAM-MD5), method (the mechanism), ticket (CRAM-MD5's challenge),
# deny (the return code where it is wrong, DENY unless said). Gives OK, that return code, or DECLINED where it has too little to go
# by; and a text with the name of the plugin's file.
#
# The conversation of AUTH is the core's; see the hook auth in docs/protocol.md.

use strict;
use warnings;

use Digest::MD5 ();
use File::Basename ();
use Qpsmtpd::Constants;

sub validate_password {
    my ($self, %given) = @_;
    my $file = File::Basename::basename((caller)[1]);
    my ($clear, $crypted, $password, $digest) = @given{qw(src_clear src_crypt attempt_clear attempt_hash)};
    my $deny = $given{deny} // DENY;

    if (!defined $clear && !defined $crypted) {
        $self->log(LOGINFO, 'fail: missing password');
        return ($deny, "$file - no such user");
    }
    my $method = lc($given{method} // '');
    if (!defined $clear && $method eq 'cram-md5') {
        $self->log(LOGINFO, 'skip: cram-md5 needs a password in clear text');
        return (DECLINED, $file);
    }

    my $right;
    if (defined $digest && defined $clear) {
        my $ticket = $given{ticket} // $self->{auth}{ticket};
        if (!defined $ticket) {
            $self->log(LOGERROR, 'skip: missing ticket');
            return (DECLINED, $file);
        }
        $right = _hmac_md5_hex($ticket, $clear) eq lc $digest;
    }
    elsif (defined $password) {
        $right = defined $clear && $clear eq $password
            || defined $crypted && (crypt($password, $crypted) // '') eq $crypted;
    }
    if ($right) {
        $self->log(LOGINFO, 'pass: password matches');
        return (OK, $file);
    }
    $self->log(LOGINFO, 'fail: wrong password');
    return ($deny, "$file - wrong password");
}

# RFC 2104, with core modules only.
sub _hmac_md5_hex {
    my ($text, $key) = @_;
    $key = Digest::MD5::md5($key) if length $key > 64;
    $key .= "\0" x (64 - length $key);
    my ($inner, $outer) = ($key ^ "\x36" x 64, $key ^ "\x5c" x 64);
    return Digest::MD5::md5_hex($outer . Digest::MD5::md5($inner . $text));
}

1;
